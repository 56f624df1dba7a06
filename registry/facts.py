"""What the weights themselves say, in the small files beside them or the header before them: facts that decide.

Pure functions of what was read; `peeking.py` reads it. What a file does not say is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from registry.spec import Architecture, Source

_NOTHING: Mapping[str, Any] = {}


class WeightFacts(NamedTuple):
    """The facts of one source's weights.

    `quantization_config` is the weights' own, {} for unquantized ones; `dtype` is torch's name of theirs;
    `has_code`: they come with Python code that must run for them to be loaded (`auto_map`).
    """

    architecture: Architecture = Architecture()
    quantization_config: Mapping[str, Any] = _NOTHING
    dtype: str | None = None
    context_length: int | None = None
    has_code: bool = False


class SourceKey(NamedTuple):
    """What facts belong to: the repo at a revision, and in a repo of single files the file."""

    hub: str
    repo_id: str
    revision: str | None
    file: str | None

    @classmethod
    def of(cls, source: Source, quantization: str) -> SourceKey:
        names = source.file_names(quantization)
        return cls(source.hub, source.repo_for(quantization), source.revision, names[0] if names else None)


# Whether an engine, as it is here, knows an architecture of a format's weights; None where nobody can tell.
Knows = Callable[[str, str, Architecture], bool | None]


def nobody_can_tell(engine: str, model_format: str, architecture: Architecture) -> bool | None:
    """Return that it is not known which architectures the engine knows."""
    return None


class Knowledge(NamedTuple):
    """What is known of weights and engines beyond the catalogue, when a choice is made."""

    facts: Mapping[SourceKey, WeightFacts | None] = {}
    knows: Knows = nobody_can_tell

    def of(self, sources: Iterable[Source], quantization: str) -> WeightFacts | None:
        """Return the facts of the first source whose weights were looked at."""
        keys = (SourceKey.of(source, quantization) for source in sources)
        return next((facts for key in keys if (facts := self.facts.get(key)) is not None), None)

    def with_facts(self, source: Source, quantization: str, facts: WeightFacts | None) -> Knowledge:
        return self._replace(facts={**self.facts, SourceKey.of(source, quantization): facts})


NOTHING_KNOWN = Knowledge()

# What each kind of file calls the numbers of an architecture.
_IN_CONFIG = {
    "layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_size": "head_dim",
    "vocabulary": "vocab_size",
}
_IN_PARAMS = {
    "layers": "n_layers",
    "hidden_size": "dim",
    "intermediate_size": "hidden_dim",
    "heads": "n_heads",
    "kv_heads": "n_kv_heads",
    "head_size": "head_dim",
    "vocabulary": "vocab_size",
}
_IN_GGUF = {
    "layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "heads": "attention.head_count",
    "kv_heads": "attention.head_count_kv",
    "head_size": "attention.key_length",
    "vocabulary": "vocab_size",
}


def facts_of_config(config: Mapping[str, Any], quantize_config: Mapping[str, Any]) -> WeightFacts:
    """Return what `config.json` says, and `quantize_config.json`, where older GPTQ weights say how they are packed."""
    text = _mapping(config.get("text_config")) or config  # models that also see or hear have their language's part
    quantized = _mapping(config.get("quantization_config") or text.get("quantization_config"))
    if quantize_config:
        quantized = {"quant_method": "gptq", **quantize_config, **quantized}
    return WeightFacts(
        architecture=_architecture(_IN_CONFIG, text)._replace(
            class_names=_texts(config.get("architectures")), model_type=_text(config.get("model_type"))
        ),
        quantization_config=quantized,
        dtype=_text(text.get("dtype") or text.get("torch_dtype") or config.get("torch_dtype")),
        context_length=_whole(text.get("max_position_embeddings")),
        has_code=bool(config.get("auto_map")),
    )


def facts_of_params(params: Mapping[str, Any]) -> WeightFacts:
    """Return what `params.json` says, in Mistral AI's own layout."""
    return WeightFacts(
        architecture=_architecture(_IN_PARAMS, params),
        quantization_config=_mapping(params.get("quantization")),
        context_length=_whole(params.get("max_seq_len") or params.get("max_position_embeddings")),
    )


def facts_of_gguf(values: Mapping[str, object]) -> WeightFacts:
    """Return what a GGUF header's keys say; the architecture's name is llama.cpp's own."""
    name = _text(values.get("general.architecture"))
    own = {key.removeprefix(f"{name}."): value for key, value in values.items()}
    return WeightFacts(
        architecture=_architecture(_IN_GGUF, own)._replace(model_type=name),
        context_length=_whole(own.get("context_length")),
    )


def _architecture(names: Mapping[str, str], values: Mapping[str, object]) -> Architecture:
    """Return the numbers that `values` has under these names; without heads for keys and values, all heads are."""
    numbers: dict[str, Any] = {fact: _whole(values.get(name)) for fact, name in names.items()}
    return Architecture()._replace(**{**numbers, "kv_heads": numbers["kv_heads"] or numbers["heads"]})


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else _NOTHING
