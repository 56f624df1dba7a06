"""The words of this product as data: models, specs, sources, capabilities, machines, requests, resolutions.

Standard library only, so that reading the catalogue costs nothing at start-up. `schema.py` says what YAML may hold;
its validated form is JSON of the same shape, which `Model.from_json` turns into these types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Self, TypeVar

_T = TypeVar("_T")
_NOTHING: Mapping[str, Any] = {}

FORMAT_ALIASES = {"ggufv2": "gguf", "safetensors": "pytorch"}
HUBS = ("huggingface", "modelscope", "url", "pypi", "local")


# --- what a catalogue entry says -------------------------------------------------------------------------------------


class Architecture(NamedTuple):
    """Facts of the network, each None where nobody vouches for it."""

    kind: str | None = None
    class_names: tuple[str, ...] = ()
    model_type: str | None = None
    parameters: int | None = None
    active_parameters: int | None = None
    experts: int | None = None
    active_experts: int | None = None
    layers: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_size: int | None = None
    vocabulary: int | None = None
    tokenizer: str | None = None
    activation: str | None = None
    normalization: str | None = None
    positions: str | None = None
    position_base: float | None = None
    attention: str | None = None


class Reasoning(NamedTuple):
    """How a model marks its thinking: the text between `start` and `end`; `hybrid` models can be told not to think."""

    start: str | None = None
    end: str | None = None
    hybrid: bool = False


class Chat(NamedTuple):
    """How a conversation becomes text; a `template` of None means the one that the weights carry."""

    template: str | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    reasoning: Reasoning | None = None
    tool_calls: str | None = None


class GenerationDefaults(NamedTuple):
    """Sampling values that the model's makers recommend; None leaves the product's own default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None


class PinnedFile(NamedTuple):
    """What is known of one file at its source's pinned revision.

    A size that is `estimated` was computed, not read from the hub: it is shown and added up, never enforced.
    """

    size_bytes: int | None = None
    sha256: str | None = None
    estimated: bool = False
    md5: str | None = None


class Draft(NamedTuple):
    """A small model that drafts tokens for the large one (speculative decoding)."""

    repo_id: str
    file: str | None = None
    quantizations: tuple[str, ...] = ()


class Source(NamedTuple):
    """Where a spec's files are, on one hub. `{quantization}` and `{part}` stand in templates.

    Of the hub `url`, `repo_id` is an address: of a tar archive, whose checksum is the revision, or with a slash at its
    end of a folder. `mirrors` are other addresses of the same. `with_code`: the Python files beside the weights are
    wanted too, because the user trusts them; no catalogue says that.
    """

    hub: str
    repo_id: str
    revision: str | None = None
    quantizations: tuple[str, ...] = ()
    file: str | None = None
    part_file: str | None = None
    parts: Mapping[str, tuple[str, ...]] = _NOTHING
    projectors: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    draft: Draft | None = None
    files: Mapping[str, PinnedFile] = _NOTHING
    quantization_config: Mapping[str, Any] = _NOTHING
    mirrors: tuple[str, ...] = ()
    with_code: bool = False

    @property
    def is_pinned(self) -> bool:
        """True if `revision` is a commit, or an exact version, and not a branch that may move."""
        if self.hub == "url":  # everything there has a checksum
            return True
        if self.revision is None:
            return False
        return self.hub == "pypi" or re.fullmatch(r"[0-9a-f]{40}", self.revision) is not None

    def repo_for(self, quantization: str) -> str:
        return self.repo_id.replace("{quantization}", quantization)

    def file_names(self, quantization: str) -> tuple[str, ...]:
        """Return the paths of the weights of a single-file format in loading order, or () where only the hub knows."""
        if quantization in self.parts and self.part_file is not None:
            template = self.part_file.replace("{quantization}", quantization)
            return tuple(template.replace("{part}", part) for part in self.parts[quantization])
        return () if self.file is None else (self.file.replace("{quantization}", quantization),)

    def at_revision(self, revision: str) -> Self:
        """Return this source at another revision: what was known of the pinned one no longer counts."""
        if revision == self.revision:
            return self
        return self._replace(revision=revision, files={}, quantization_config={})

    @classmethod
    def from_json(cls, hub: str, data: Mapping[str, Any]) -> Self:
        values = dict(data)
        if hub == "url":
            values["repo_id"] = values.pop("address")
            digests = [f"{kind}:{values.pop(kind)}" for kind in ("sha256", "md5") if kind in data]
            values["revision"] = digests[0] if digests else None
        for name in ("quantizations", "projectors", "exclude", "mirrors"):
            values[name] = tuple(data.get(name, ()))
        values["parts"] = {key: tuple(parts) for key, parts in data.get("parts", {}).items()}
        values["files"] = {path: PinnedFile(**facts) for path, facts in data.get("files", {}).items()}
        values["draft"] = _optional(Draft, data.get("draft"), "quantizations")
        return cls(hub=hub, **values)


class Resources(NamedTuple):
    """What somebody states that a spec needs, in bytes; None where nobody says."""

    storage_bytes: int | None = None
    gpu_count: int | None = None
    gpu_memory_bytes: int | None = None
    memory_per_gpu_bytes: int | None = None
    precision: str | None = None
    distributed: bool | None = None


class Spec(NamedTuple):
    """One format and size of a model, with its quantizations and where they are published."""

    model_format: str
    size_in_billions: float
    quantizations: tuple[str, ...]
    sources: tuple[Source, ...]
    activated_size_in_billions: float | None = None
    architecture: Architecture | None = None
    context_length: int | None = None
    resources: Resources | None = None

    def sources_of(self, quantization: str) -> tuple[Source, ...]:
        """Return the sources that publish `quantization`, in the catalogue's order."""
        return tuple(s for s in self.sources if not s.quantizations or quantization in s.quantizations)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        values = dict(data)
        values["model_format"] = values.pop("format")
        values["quantizations"] = tuple(data["quantizations"])
        values["sources"] = tuple(Source.from_json(hub, source) for hub, source in data.get("sources", {}).items())
        values["architecture"] = _optional(Architecture, data.get("architecture"), "class_names")
        values["resources"] = _optional(Resources, data.get("resources"))
        return cls(**values)


class Model(NamedTuple):
    """One entry of the catalogue."""

    name: str
    specs: tuple[Spec, ...]
    aliases: tuple[str, ...] = ()
    family: str = ""
    description: str = ""
    license: str | None = None
    languages: tuple[str, ...] = ()
    abilities: tuple[str, ...] = ()
    context_length: int | None = None
    modality: tuple[str, ...] = ("text",)
    task: str | None = None
    released: str | None = None
    knowledge_cutoff: str | None = None
    updated: str | None = None
    homepage: str | None = None
    notes: tuple[str, ...] = ()
    architecture: Architecture = Architecture()
    chat: Chat = Chat()
    generation: GenerationDefaults = GenerationDefaults()
    engine_packages: Mapping[str, tuple[str, ...]] = _NOTHING

    def context_of(self, spec: Spec) -> int | None:
        return spec.context_length or self.context_length

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        values = dict(data)
        for name in ("aliases", "languages", "abilities", "notes"):
            values[name] = tuple(data.get(name, ()))
        values["modality"] = tuple(data.get("modality", ("text",)))
        values["specs"] = tuple(Spec.from_json(spec) for spec in data["specs"])
        values["architecture"] = _optional(Architecture, data.get("architecture"), "class_names") or Architecture()
        chat = dict(data.get("chat", {}))
        chat["reasoning"] = _optional(Reasoning, chat.get("reasoning"))
        values["chat"] = _optional(Chat, chat, "stop", "stop_token_ids")
        values["generation"] = GenerationDefaults(**data.get("generation", {}))
        values["engine_packages"] = {k: tuple(v) for k, v in data.get("engine_packages", {}).items()}
        return cls(**values)


def _optional(cls: type[_T], data: Mapping[str, Any] | None, *tuples: str) -> _T | None:
    if data is None:
        return None
    return cls(**{name: tuple(value) if name in tuples else value for name, value in data.items()})


# --- what engines can run, and on what -------------------------------------------------------------------------------


class FactRule(NamedTuple):
    """A fact of the weights that makes an engine refuse them, and why: `quantization_config[key] == value`."""

    key: str
    value: object
    reason: str


class FormatSupport(NamedTuple):
    """That an engine reads a format: with which bits a weight, on which accelerators, and what it then refuses.

    `bits` are those of `quantization_bits`; 16 stands for unquantized weights. `otherwise` says why not the rest.
    None means any. A format with an `only_named` is read where engine and format are both named; it says why.
    `cpu_dtype` is what it is computed in best on a CPU without bfloat16.
    """

    model_format: str
    bits: tuple[int, ...] | None = None
    accelerators: tuple[str, ...] | None = None
    otherwise: str = ""
    refuses: tuple[FactRule, ...] = ()
    only_named: str = ""
    cpu_dtype: str = "auto"


# What engines may offer beyond text for text: names for data, with what each means to a caller.
FEATURES: Mapping[str, str] = {
    "batching": "several requests at once",
    "batch_invariant": "the same greedy answer, whatever else is answered at once",
    "logprobs": "log-probabilities of tokens",
    "json_schema": "answers that satisfy a JSON schema",
    "tools": "calls of functions",
    "reasoning": "the reasoning apart from the answer, on or off",
    "reasoning_budget": "a limit to the tokens of the reasoning",
    "embeddings": "vectors of texts",
    "infill": "text between a beginning and an end",
    "several_gpus": "one model on several GPUs",
}


class Capability(NamedTuple):
    """What one engine can run, and where. `ranks` orders engines by accelerator, the lowest first.

    `features` are names of FEATURES. Engines that are not `automatic` are used only when named. `setup_bytes` is what
    an environment takes to fetch, and `accelerator` what its build for one machine runs on; "": the machine's.
    `own_bytes` of memory are its own, besides weights and cache, as measured with a model of 135M parameters.
    `splits_heads`: on several GPUs each takes a part of the attention heads, so that not every number of them will do.
    """

    engine: str
    formats: tuple[FormatSupport, ...]
    ranks: Mapping[str, int]
    systems: tuple[str, ...] = ("Linux", "Darwin")
    aliases: tuple[str, ...] = ()
    refusals: Mapping[str, str] = _NOTHING
    automatic: bool = True
    features: frozenset[str] = frozenset()
    needs_weights: bool = True
    setup_bytes: int = 0
    own_bytes: int = 0
    accelerator: str = ""
    splits_heads: bool = False

    def support_of(self, model_format: str) -> FormatSupport | None:
        return next((support for support in self.formats if support.model_format == model_format), None)


class Gpu(NamedTuple):
    """One GPU: memory in bytes, the driver's version; `vendor` is `nvidia`, `amd` or `intel`.

    Of NVIDIA's, `compute` is the compute capability and `cuda` the newest CUDA that the driver knows; of AMD's,
    `target` is the architecture that programs are compiled for, such as `gfx1100`.
    """

    number: int
    name: str
    memory_bytes: int
    driver: str = ""
    vendor: str = "nvidia"
    compute: tuple[int, int] | None = None
    cuda: tuple[int, int] | None = None
    target: str = ""


class Machine(NamedTuple):
    """The hardware found: `cores` are those that this process may use, counting affinity and container limits.

    `has_bfloat16`: the GPUs, or else the CPU, calculate in it. `rocm` is the version of AMD's runtime that is
    installed; `has_vulkan`: Vulkan's loader and a driver for it are.
    """

    system: str
    architecture: str
    cores: int
    memory_bytes: int
    gpus: tuple[Gpu, ...] = ()
    has_bfloat16: bool = False
    rocm: str = ""
    has_vulkan: bool = False

    @property
    def accelerator(self) -> str:
        """`cuda`, `rocm`, `vulkan`, `metal` or `cpu`: what the first GPU offers, whatever an engine makes of it."""
        if self.gpus and self.gpus[0].vendor == "nvidia":
            return "cuda"
        if self.gpus and self.gpus[0].vendor == "amd" and self.rocm:
            return "rocm"
        if self.gpus and self.has_vulkan:
            return "vulkan"
        return "metal" if (self.system, self.architecture) == ("Darwin", "arm64") else "cpu"


# --- what is asked for, and what comes out ---------------------------------------------------------------------------


class Request(NamedTuple):
    """What a person asks for; everything but the name may be left to resolution.

    `hub` may name several, in the order to try them: `modelscope,huggingface`. `gpus` is how many the model is to run
    on; `trusts_remote_code`: Python code that comes with the weights may run.
    """

    name: str
    model_format: str | None = None
    quantization: str | None = None
    engine: str | None = None
    size_in_billions: float | None = None
    hub: str | None = None
    revision: str | None = None
    gpus: int | None = None
    trusts_remote_code: bool = False


class Rejection(NamedTuple):
    """One combination that was not chosen, and why."""

    engine: str
    model_format: str
    quantization: str
    reason: str


class Resolution(NamedTuple):
    """The choice, why it was made, what to beware of, and everything that was not chosen.

    `alternatives` are the other places of the same files, to be tried in this order where `source` fails; none where
    one hub was asked for. `is_ordered`: the order of hubs is the user's own. `conflicts` say why the engine, which
    nothing else can stand in for, will not load these weights; they are among the warnings.
    """

    model: Model
    spec: Spec
    quantization: str
    engine: str
    source: Source
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    rejected: tuple[Rejection, ...]
    alternatives: tuple[Source, ...] = ()
    is_ordered: bool = False
    conflicts: tuple[str, ...] = ()


def canonical_format(name: str) -> str:
    """Return a format's name as the catalogue spells it: `ggufv2` is `gguf`, in any case."""
    return FORMAT_ALIASES.get(name.lower(), name.lower())


def quantization_bits(quantization: str) -> int | None:
    """Return the bits of a weight that a quantization's name states, 16 for unquantized, None where it says nothing.

    `Q4_K_M`, `Int4`, `4-bit`, `4bit`, `UD-Q4_K_XL`, `mxfp4` are 4; `none`, `bf16` are 16; `FP8` is 8.
    """
    name = quantization.lower()
    if name in ("none", "f16", "fp16", "bf16"):
        return 16
    found = re.search(r"(?:iq|q|int|fp|f)(\d+)|(\d+)-?bit", name)
    return None if found is None else int(found.group(1) or found.group(2))


def format_size(size_in_billions: float) -> str:
    """Return a size as people write it: `7`, `0.5`."""
    return f"{size_in_billions:g}"


def parse_size(text: str) -> float:
    """Return billions of parameters from `7`, `7b`, `0.5`, `0_5` or `0.5B`; raises ValueError for anything else."""
    cleaned = text.strip().lower().removesuffix("b").replace("_", ".")
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,18})?", cleaned) or not float(cleaned):
        raise ValueError(f"`{text}` is not a size in billions of parameters")
    return float(cleaned)
