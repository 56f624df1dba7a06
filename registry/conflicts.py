"""What stands between an engine and these very weights: facts of theirs that it refuses, and code that they bring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from registry.facts import Knowledge, WeightFacts
from registry.spec import Source

if TYPE_CHECKING:
    from registry.judging import Candidate

# What `quant_method` says of weights that are one format of the catalogue, and of no other.
_FORMAT_OF_METHOD = {"gptq": "gptq", "awq": "awq", "bitsandbytes": "bnb"}
_QUANTIZED = frozenset(_FORMAT_OF_METHOD.values())


class Conflict(NamedTuple):
    """Why an engine will not load certain weights: to be read after its name, as a sentence, and what to do."""

    reason: str
    sentence: str
    hint: str | None = None


def conflicts(
    candidate: Candidate, sources: Sequence[Source], knowledge: Knowledge, *, trusts_code: bool
) -> tuple[Conflict, ...]:
    """Return why the candidate's engine will not load what its sources have, by all that is known of them."""
    if not candidate.capability.needs_weights:
        return ()
    facts = knowledge.of(sources, candidate.quantization)
    if facts is None:  # what the catalogue says of the pinned revision
        return tuple(_refused_facts(candidate, sources[0].quantization_config))
    repo_id = sources[0].repo_for(candidate.quantization)
    if contradiction := _contradiction(candidate, facts, repo_id):
        return (contradiction,)
    found = [*_refused_facts(candidate, facts.quantization_config), *_code(facts, repo_id, trusts_code=trusts_code)]
    return tuple(found or _unknown_architecture(candidate, facts, knowledge, trusts_code=trusts_code))


def unchecked(candidate: Candidate, source: Source, knowledge: Knowledge) -> Iterator[str]:
    """Yield the facts of the weights that decide, and that nobody has looked up."""
    if knowledge.of((source,), candidate.quantization) is not None:
        return
    support = candidate.capability.support_of(candidate.spec.model_format)
    for rule in support.refuses if support else ():
        if rule.key not in source.quantization_config:
            yield f"unchecked: `{rule.key}` of these weights; `{candidate.capability.engine}` refuses `{rule.value}`"


def _refused_facts(candidate: Candidate, quantization_config: Mapping[str, Any]) -> Iterator[Conflict]:
    support = candidate.capability.support_of(candidate.spec.model_format)
    for rule in support.refuses if support else ():
        if quantization_config.get(rule.key) == rule.value:
            yield _of_engine(candidate, rule.reason)


def _contradiction(candidate: Candidate, facts: WeightFacts, repo_id: str) -> Conflict | None:
    """Return that the weights are not of the format that the catalogue says, if they say so themselves."""
    told = candidate.spec.model_format
    method = str(facts.quantization_config.get("quant_method", "")).lower()
    actual = _FORMAT_OF_METHOD.get(method)
    if told in _QUANTIZED and not facts.quantization_config:
        return _wrong_format(repo_id, told, "unquantized")
    if actual is None or actual == told or told not in (*_QUANTIZED, "pytorch"):
        return None
    return _wrong_format(repo_id, told, f"`{actual}`")


def _wrong_format(repo_id: str, told: str, actual: str) -> Conflict:
    return Conflict(
        f"would find {actual} weights where `{told}` was promised",
        f"The weights of `{repo_id}` are {actual}, not `{told}` as the catalogue says",
    )


def _code(facts: WeightFacts, repo_id: str, *, trusts_code: bool) -> Iterator[Conflict]:
    if facts.has_code and not trusts_code:
        yield Conflict(
            "would run Python code that comes with the weights",
            f"`{repo_id}` comes with Python code of its own, which would run on this machine with all your rights",
            hint="read it; if you trust those who wrote it, add --trust-remote-code",
        )


def _unknown_architecture(
    candidate: Candidate, facts: WeightFacts, knowledge: Knowledge, *, trusts_code: bool
) -> Iterator[Conflict]:
    if facts.has_code and trusts_code:  # its code is the architecture
        return
    engine, model_format = candidate.capability.engine, candidate.spec.model_format
    if knowledge.knows(engine, model_format, facts.architecture) is False:
        names = facts.architecture.class_names or (facts.architecture.model_type,)
        yield _of_engine(candidate, f"does not know the architecture `{names[0]}`")


def _of_engine(candidate: Candidate, reason: str) -> Conflict:
    return Conflict(reason, f"`{candidate.capability.engine}` {reason}")
