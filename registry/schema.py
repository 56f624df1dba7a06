"""What a catalogue entry may say in YAML.

`validate_entry` turns plain data into the canonical JSON that the index stores and `registry.spec` reads;
`json_schema` describes the same for editors. Reading the files is `yaml_file.py`'s, and
finding the line of a key `yaml_document.py`'s.
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

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_LABEL = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_REPO_ID = r"[A-Za-z0-9][\w.-]*(/(\w|\{quantization\})([\w.-]|\{quantization\})*)?"
_DRAFT_REPO_ID = _REPO_ID.replace("quantization", "(draft_)?quantization")
_REVISION = r"[A-Za-z0-9][\w.-]*(/\w[\w.-]*)*"
_PARTIAL_DATE = r"[0-9]{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?)?"
_LANGUAGE = r"[a-z]{2,3}(-[A-Za-z]+)*"
_HUB = r"[a-z][a-z0-9_]*"
_SHA256 = r"[0-9a-f]{64}"
_MD5 = r"[0-9a-f]{32}"
# Plain http within this machine only. What follows `?` or `#` may change, and names of users do not belong here.
_ADDRESS = (
    r"(https://[A-Za-z0-9][A-Za-z0-9.-]*|http://(127\.0\.0\.1|localhost))(:[0-9]{1,5})?"
    r"(/([A-Za-z0-9_.+@~-]|\{quantization\})+)*(/|\.tar)"
)
# Control characters could rewrite what a terminal shows; line feeds and tabs could not.
_TEXT = r"[^\x00-\x08\x0b-\x1f\x7f-\x9f]*"


def _size(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("is not a size in billions of parameters")
    return parse_size(str(value))


def _format(value: object) -> object:
    return FORMAT_ALIASES.get(value.lower(), value.lower()) if isinstance(value, str) else value


def _year(value: object) -> object:
    return str(value) if type(value) is int else value


def matches(pattern: str, what: str) -> AfterValidator:
    """Return a check that text is wholly of `pattern`; `what` says so in words."""

    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(f"is not {what}")
        return value

    return AfterValidator(check)


def _path(*placeholders: str) -> AfterValidator:
    """Return a check that refuses a path that could leave its folder, be taken for an option, or stay unfilled."""

    def check(value: str) -> str:
        bare = value
        for name in placeholders:
            bare = bare.replace(f"{{{name}}}", "x")
        if not re.fullmatch(r"[A-Za-z0-9_][\w.+@ -]*(/[A-Za-z0-9_][\w.+@ -]*)*", bare):
            raise ValueError("is not a plain relative path such as `folder/name.{quantization}.gguf`")
        return value

    return AfterValidator(check)


def _pattern(pattern: str, **facts: Any) -> Any:
    """Return what editors are told; the check itself is `matches`, whose errors are in words."""
    return Field(json_schema_extra={"pattern": f"^{pattern}$"}, **facts)


Text = Annotated[str, matches(_TEXT, "text without control characters")]
Name = Annotated[str, matches(_NAME, "a plain name such as `qwen2.5-instruct`"), _pattern(_NAME)]
Label = Annotated[str, matches(_LABEL, "a plain name such as `Q4_K_M`"), _pattern(_LABEL)]
RepoId = Annotated[
    str, matches(_REPO_ID, "a repo id such as `organisation/name-{quantization}`"), _pattern(_REPO_ID, max_length=160)
]
Revision = Annotated[str, matches(_REVISION, "a commit, a branch or a version"), _pattern(_REVISION, max_length=128)]
DraftRepoId = Annotated[
    str,
    matches(_DRAFT_REPO_ID, "a repo id such as `organisation/name-{draft_quantization}`"),
    _pattern(_DRAFT_REPO_ID, max_length=160),
]
SafePath = Annotated[str, _path()]
WeightsPath = Annotated[str, _path("quantization")]
PartPath = Annotated[str, _path("quantization", "part")]
DraftPath = Annotated[str, _path("quantization", "draft_quantization")]
Size = Annotated[
    float,
    BeforeValidator(_size, json_schema_input_type=int | float | str),
    Field(description="Billions of parameters: 7, 0.5 or 0_5"),
]
FormatName = Annotated[Format, BeforeValidator(_format)]
Sha256 = Annotated[str, matches(_SHA256, "a SHA-256 of 64 hexadecimal digits"), _pattern(_SHA256)]
Md5 = Annotated[str, matches(_MD5, "an MD5 of 32 hexadecimal digits"), _pattern(_MD5)]
FileAddress = Annotated[
    str, matches(_ADDRESS, "an https address that ends in `.tar`, or in `/` for a folder"), _pattern(_ADDRESS)
]
PartialDate = Annotated[
    str,
    BeforeValidator(_year, json_schema_input_type=int | str),
    matches(_PARTIAL_DATE, "a date such as 2024, 2024-01 or 2024-01-15"),
]
Language = Annotated[str, matches(_LANGUAGE, "a language code such as `en`"), _pattern(_LANGUAGE)]
HubName = Annotated[str, matches(_HUB, "a hub's name such as `huggingface`")]
HttpsAddress = Annotated[str, matches(r"https://[^\s\x00-\x1f]+", "an address that begins with `https://`")]
Package = Annotated[str, matches(r"[A-Za-z0-9][^\x00-\x1f\x7f]*", "a package as pip names it, such as `einops>=0.8`")]
Count = Annotated[int, Field(gt=0)]


_ON_URL_ONLY = ("address", "mirrors", "md5", "sha256")


class PlacedError(ValueError):
    """What is wrong deeper than where the check stands; `key` leads from there to it, `hint` helps."""

    def __init__(self, message: str, key: tuple[str | int, ...], *, hint: str | None = None) -> None:
        super().__init__(message)
        self.key = key
        self.hint = hint


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class ArchitectureEntry(_Entry):
    """Facts of the network, from the model's own configuration."""

    kind: Literal["dense", "experts"] | None = None
    class_names: list[Text] = Field(default=[], description="`architectures` of config.json")
    model_type: Text | None = Field(default=None, description="`model_type` of config.json")
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
    tokenizer: Text | None = None
    activation: Text | None = None
    normalization: Text | None = None
    positions: Text | None = None
    position_base: float | None = Field(default=None, strict=False, description="Theta of rotary positions")
    attention: Text | None = None


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
    tool_calls: Label | None = Field(default=None, description="The format in which the model calls tools")


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
    md5: Md5 | None = Field(default=None, description="Finds damage, not tampering; used where there is no sha256")
    estimated: bool = Field(default=False, description="The size was computed: shown, never enforced")


class DraftEntry(_Entry):
    """A small model that drafts tokens for this one; `{draft_quantization}` is filled in."""

    repo_id: DraftRepoId
    file: DraftPath | None = None
    quantizations: list[Label] = Field(default=[], description="Those in which the draft is published")


class SourceEntry(_Entry):
    """Where the files are on one hub; `{quantization}` and `{part}` are filled in."""

    repo_id: RepoId | None = Field(default=None, description="The repo, or the package; `url` has an `address` instead")
    address: FileAddress | None = Field(
        default=None, description="Of the hub `url`: a tar archive, or with `/` at its end the folder of `files`"
    )
    mirrors: list[FileAddress] = Field(default=[], description="Other addresses of the same, tried in order")
    md5: Md5 | None = Field(default=None, description="Of the archive; finds damage, not tampering")
    sha256: Sha256 | None = Field(default=None, description="Of the archive")
    revision: Revision | None = Field(default=None, description="A commit pins the source; a branch may move")
    quantizations: list[Label] = Field(default=[], description="Those published here; without it, all of the spec's")
    file: WeightsPath | None = Field(default=None, description="The weights' path in the repo, for formats of one file")
    part_file: PartPath | None = Field(default=None, description="The path of one part, with `{part}`")
    parts: dict[Label, list[Label]] = Field(default={}, description="Quantization: the values of `{part}`, in order")
    projectors: list[SafePath] = Field(default=[], description="Files that turn images or sound into tokens")
    exclude: list[Text] = Field(default=[], description="Patterns of files that are not needed")
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

    def check_on(self, hub: str) -> None:
        """Raise PlacedError unless the files can be found on the hub, and on `url` be told right from wrong."""
        needed, foreign = ("address", ("repo_id", "revision")) if hub == "url" else ("repo_id", _ON_URL_ONLY)
        if getattr(self, needed) is None:
            raise PlacedError("is missing", (needed,))
        for name in foreign:
            if getattr(self, name):
                raise PlacedError(f"does not go with the hub `{hub}`", (name,))
        if hub == "url":
            self._check_checksums(is_folder=str(self.address).endswith("/"))

    def _check_checksums(self, *, is_folder: bool) -> None:
        has_checksum = bool(self.md5 or self.sha256)
        if any(mirror.endswith("/") != is_folder for mirror in self.mirrors):
            raise PlacedError("is not of the same kind as `address`, an archive or a folder", ("mirrors",))
        if has_checksum == is_folder or bool(self.files) != is_folder:
            needs = "`files` with their checksums" if is_folder else "its `md5` or `sha256`, and no `files`"
            raise PlacedError(f"needs {needs}", ("address",))
        for path, file in self.files.items():
            if file.md5 is None and file.sha256 is None:
                raise PlacedError("needs its `md5` or `sha256`", ("files", path))


class ResourcesEntry(_Entry):
    """What its publisher or an operator states that a spec needs."""

    storage_bytes: Count | None = None
    gpu_count: Annotated[int, Field(ge=0)] | None = None
    gpu_memory_bytes: Count | None = Field(default=None, description="Over all GPUs together")
    memory_per_gpu_bytes: Count | None = None
    precision: Label | None = Field(default=None, description="Such as bfloat16")
    distributed: bool | None = None


class SpecEntry(_Entry):
    """One format and size of the model."""

    format: FormatName
    size_in_billions: Size
    activated_size_in_billions: Size | None = None
    quantizations: list[Label] = Field(default=[], description="Without it, the union of the sources' lists")
    sources: dict[HubName, SourceEntry] = {}
    architecture: ArchitectureEntry | None = Field(default=None, description="Where this size differs from the model's")
    context_length: Count | None = None
    resources: ResourcesEntry | None = None

    @model_validator(mode="after")
    def _sources_have_places(self) -> Self:
        for hub, source in self.sources.items():
            try:
                source.check_on(hub)
            except PlacedError as error:
                raise PlacedError(str(error), ("sources", hub, *error.key)) from error
        return self

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
    aliases: list[Name] = Field(default=[], description="Other names; case never matters")
    family: Text = Field(default="", description="Models of one family are shown as each other's siblings")
    description: Text = ""
    license: Text | None = Field(default=None, description="SPDX identifier, or LicenseRef-…")
    languages: list[Language] = Field(default=[], description="Codes such as `en`")
    abilities: list[Ability] = []
    context_length: Count | None = Field(default=None, description="Tokens that the model was made for")
    modality: list[Literal["text", "image", "audio", "video"]] = ["text"]
    task: Text | None = Field(default=None, description="As hubs name it, such as text-generation")
    released: PartialDate | None = Field(default=None, description="2024, 2024-01 or 2024-01-15")
    knowledge_cutoff: PartialDate | None = Field(default=None, description="2024, 2024-01 or 2024-01-15")
    updated: PartialDate | None = Field(default=None, description="When this entry was last changed")
    homepage: HttpsAddress | None = None
    notes: list[Text] = Field(default=[], description="What a reader should know, such as where sources disagree")
    architecture: ArchitectureEntry = ArchitectureEntry()
    chat: ChatEntry = ChatEntry()
    generation: GenerationEntry = GenerationEntry()
    engine_packages: dict[Label, list[Package]] = Field(
        default={}, description="Engine, or `any` for all: packages that this model needs besides"
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
