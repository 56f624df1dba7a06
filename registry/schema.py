"""What a catalogue entry may say in YAML.

`validate_entry` turns plain data into the canonical JSON that the index stores and `registry.spec` reads;
`json_schema` describes the same for editors. Reading the files, and finding the line of a key, is `yaml_file.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from registry.spec import FORMAT_ALIASES, parse_size

Ability = Literal[
    "generate", "chat", "tools", "reasoning", "vision", "audio", "omni", "infill", "embed", "rerank", "classify"
]
Format = Literal["pytorch", "gptq", "awq", "gguf", "fp8", "fp4", "bnb", "mlx", "mistral"]

_PLACEHOLDERS = re.compile(r"\{(quantization|part|draft_quantization)\}")


def _size(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("is not a size in billions of parameters")
    return parse_size(str(value))


def _format(value: object) -> object:
    return FORMAT_ALIASES.get(value.lower(), value.lower()) if isinstance(value, str) else value


def _safe_path(value: str) -> str:
    """Refuse a path that could leave its folder, or be taken for an option."""
    bare = _PLACEHOLDERS.sub("x", value)
    if not re.fullmatch(r"[A-Za-z0-9_][\w.+@ -]*(/[A-Za-z0-9_][\w.+@ -]*)*", bare):
        raise ValueError("is not a plain relative path such as `folder/name.{quantization}.gguf`")
    return value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
RepoId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*(/[\w{][\w.{}-]*)?$", max_length=160)]
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w./-]{0,127}$")]
SafePath = Annotated[str, AfterValidator(_safe_path)]
Size = Annotated[
    float,
    BeforeValidator(_size, json_schema_input_type=int | float | str),
    Field(description="Billions of parameters: 7, 0.5 or 0_5"),
]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PartialDate = Annotated[str, Field(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$", description="2024, 2024-01 or 2024-01-15")]
Count = Annotated[int, Field(gt=0)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ArchitectureEntry(_Entry):
    """Facts of the network, from the model's own configuration."""

    kind: Literal["dense", "experts"] | None = None
    class_names: list[str] = Field(default=[], description="`architectures` of config.json")
    model_type: str | None = Field(default=None, description="`model_type` of config.json")
    parameters: Count | None = None
    active_parameters: Count | None = Field(
        default=None, description="Parameters used for one token, where experts are"
    )
    experts: Count | None = None
    active_experts: Count | None = None
    layers: Count | None = None
    hidden_size: Count | None = None
    intermediate_size: Count | None = None
    heads: Count | None = None
    kv_heads: Count | None = None
    head_size: Count | None = None
    vocabulary: Count | None = Field(default=None, description="Tokens in the vocabulary")
    tokenizer: str | None = None
    activation: str | None = None
    normalization: str | None = None
    positions: str | None = None
    position_base: float | None = Field(default=None, strict=False, description="Theta of rotary positions")
    attention: str | None = None


class ReasoningEntry(_Entry):
    """The marks around a model's thinking."""

    start: str | None = None
    end: str | None = None
    hybrid: bool = Field(default=False, description="The model can be told not to think")


class ChatEntry(_Entry):
    """How a conversation becomes text, where it differs from what the weights carry."""

    template: str | None = Field(default=None, description="Jinja; without it the weights' own is used")
    stop: list[str] = []
    stop_token_ids: list[int] = []
    reasoning: ReasoningEntry | None = None
    tool_calls: str | None = Field(default=None, description="The format in which the model calls tools")


class GenerationEntry(_Entry):
    """Sampling values that the model's makers recommend."""

    temperature: float | None = Field(default=None, ge=0, le=2, strict=False)
    top_p: float | None = Field(default=None, gt=0, le=1, strict=False)
    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = Field(default=None, ge=0, le=1, strict=False)
    repetition_penalty: float | None = Field(default=None, gt=0, le=2, strict=False)
    max_tokens: Count | None = None


class PinnedFileEntry(_Entry):
    """Size and hash of one file at the pinned revision."""

    size_bytes: Count | None = None
    sha256: Sha256 | None = None
    estimated: bool = Field(default=False, description="The size was computed: shown, never enforced")


class DraftEntry(_Entry):
    """A small model that drafts tokens for this one."""

    repo_id: RepoId
    file: SafePath | None = None
    quantizations: list[Label] = []


class SourceEntry(_Entry):
    """Where the files are on one hub; `{quantization}` and `{part}` are filled in."""

    repo_id: RepoId
    revision: Revision | None = Field(default=None, description="A commit pins the source; a branch may move")
    quantizations: list[Label] = Field(default=[], description="Those published here; without it, all of the spec's")
    file: SafePath | None = Field(default=None, description="The weights' path in the repo, for formats of one file")
    part_file: SafePath | None = Field(default=None, description="The path of one part, with `{part}`")
    parts: dict[Label, list[Label]] = Field(default={}, description="Quantization: the values of `{part}`, in order")
    projectors: list[SafePath] = Field(default=[], description="Files that turn images or sound into tokens")
    exclude: list[str] = Field(default=[], description="Patterns of files that are not needed")
    draft: DraftEntry | None = None
    files: dict[SafePath, PinnedFileEntry] = {}
    quantization_config: dict[str, Any] = Field(
        default={}, description="Facts of the quantized weights, such as desc_act"
    )

    @model_validator(mode="after")
    def _parts_have_a_template(self) -> Self:
        if any(self.parts.values()) and "{part}" not in (self.part_file or ""):
            raise ValueError("`parts` needs a `part_file` with `{part}` in it")
        return self


class ResourcesEntry(_Entry):
    """What its publisher or an operator states that a spec needs."""

    storage_bytes: Count | None = None
    gpu_count: Annotated[int, Field(ge=0)] | None = None
    gpu_memory_bytes: Count | None = Field(default=None, description="Over all GPUs together")
    memory_per_gpu_bytes: Count | None = None
    precision: str | None = None
    distributed: bool | None = None


class SpecEntry(_Entry):
    """One format and size of the model."""

    format: Annotated[Format, BeforeValidator(_format)]
    size_in_billions: Size
    activated_size_in_billions: Size | None = None
    quantizations: list[Label] = Field(default=[], description="Without it, the union of the sources' lists")
    sources: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], SourceEntry] = {}
    architecture: ArchitectureEntry | None = Field(default=None, description="Where this size differs from the model's")
    context_length: Count | None = None
    resources: ResourcesEntry | None = None

    @model_validator(mode="after")
    def _quantizations_agree(self) -> Self:
        published = list(dict.fromkeys(q for source in self.sources.values() for q in source.quantizations))
        if not self.quantizations:
            self.quantizations = published
        if not self.quantizations:
            raise ValueError("`quantizations` are named neither here nor by a source")
        unknown = [q for q in published if q not in self.quantizations]
        if unknown:
            raise ValueError(f"a source publishes `{unknown[0]}`, which is not among the spec's quantizations")
        return self


class ModelEntry(_Entry):
    """One model of the catalogue."""

    name: Name
    aliases: list[Name] = []
    family: str = ""
    description: str = ""
    license: str | None = Field(default=None, description="SPDX identifier, or LicenseRef-…")
    languages: list[Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z]+)*$")]] = []
    abilities: list[Ability] = []
    context_length: Count | None = Field(default=None, description="Tokens that the model was made for")
    modality: list[Literal["text", "image", "audio", "video"]] = ["text"]
    task: str | None = None
    released: PartialDate | None = None
    knowledge_cutoff: PartialDate | None = None
    updated: PartialDate | None = Field(default=None, description="When this entry was last changed")
    homepage: Annotated[str, Field(pattern=r"^https://")] | None = None
    notes: list[str] = Field(default=[], description="What a reader should know, such as where sources disagree")
    architecture: ArchitectureEntry = ArchitectureEntry()
    chat: ChatEntry = ChatEntry()
    generation: GenerationEntry = GenerationEntry()
    engine_packages: dict[str, list[str]] = Field(
        default={}, description="Engine: packages that this model needs besides"
    )
    specs: list[SpecEntry] = Field(min_length=1)


def validate_entry(data: Any) -> dict[str, Any]:
    """Return an entry's canonical JSON, without what is left at its default; raises pydantic.ValidationError."""
    entry = ModelEntry.model_validate(data)
    result = entry.model_dump(mode="json", exclude_defaults=True)
    for spec, model in zip(result["specs"], entry.specs, strict=True):
        spec["quantizations"] = model.quantizations
    return result


def json_schema() -> Mapping[str, Any]:
    """Return the JSON Schema of one entry, for editors and for the docs."""
    return ModelEntry.model_json_schema()
