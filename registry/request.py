"""Reads a request into the catalogue's own spelling, or says what the model, the engines or the hubs have instead."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import NamedTuple

from registry.errors import ResolutionError
from registry.spec import HUBS, Capability, Model, Request, Spec, canonical_format, format_size, quantization_bits


class Wanted(NamedTuple):
    """The request in the catalogue's own spelling."""

    model_format: str | None
    quantization: str | None
    engine: str | None
    size_in_billions: float | None
    hubs: tuple[str, ...] | None
    revision: str | None
    gpus: int | None
    trusts_remote_code: bool

    @classmethod
    def read(cls, request: Request, model: Model, capabilities: Sequence[Capability]) -> Wanted:
        return cls(
            model_format=_read_format(request.model_format, model),
            quantization=_read_quantization(request.quantization, model),
            engine=None if request.engine is None else read_engine(request.engine, capabilities),
            size_in_billions=_read_size(request.size_in_billions, model),
            hubs=read_hubs(request.hub),
            revision=request.revision,
            gpus=request.gpus,
            trusts_remote_code=request.trusts_remote_code,
        )


def _read_format(text: str | None, model: Model) -> str | None:
    if text is None:
        return None
    name = canonical_format(text)
    known = tuple(dict.fromkeys(spec.model_format for spec in model.specs))
    if name not in known:
        raise _no_such("format", text, known, model)
    return name


def _read_quantization(text: str | None, model: Model) -> str | None:
    if text is None:
        return None
    known = tuple(dict.fromkeys(q for spec in model.specs for q in spec.quantizations))
    if any(q.lower() == text.lower() for q in known):
        return text
    bits = quantization_bits(text)
    if bits is None or _is_layout_name(text) or all(quantization_bits(q) != bits for q in known):
        raise _no_such("quantization", text, known, model)
    return text


def is_same_quantization(spec: Spec, quantization: str, text: str) -> bool:
    """True if `text` means this quantization: its name in any case, or the bits that the spec has only once."""
    if quantization.lower() == text.lower():
        return True
    return not _is_named(spec, text) and same_bits(spec, text) == [quantization]


def has_quantization(spec: Spec, text: str) -> bool:
    """True if `text` may mean one of the spec's quantizations."""
    return _is_named(spec, text) or bool(same_bits(spec, text))


def same_bits(spec: Spec, text: str) -> list[str]:
    """Return the quantizations of as many bits as `text` names, none where it names one layout."""
    bits = quantization_bits(text)
    if bits is None or _is_layout_name(text):
        return []
    return [q for q in spec.quantizations if quantization_bits(q) == bits]


def _is_named(spec: Spec, text: str) -> bool:
    return any(q.lower() == text.lower() for q in spec.quantizations)


def _is_layout_name(text: str) -> bool:
    """True for names such as `Q4_K_M` that mean one layout, where `4bit` and `int4` mean any of four bits."""
    return text.lower().startswith(("q", "iq", "ud-"))


def read_engine(text: str, capabilities: Sequence[Capability]) -> str:
    """Return an engine's own name from any spelling of it; raises ResolutionError with the near one."""
    for capability in capabilities:
        if text.lower() in (capability.engine.lower(), *capability.aliases):
            return capability.engine
    known = [capability.engine for capability in capabilities]
    near = get_close_matches(text.lower(), known, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"the engines are {listing(known)}"
    raise ResolutionError(f"There is no engine `{text}`", hint=hint)


def _read_size(size: float | None, model: Model) -> float | None:
    sizes = sorted({spec.size_in_billions for spec in model.specs})
    if size is not None and size not in sizes:
        raise _no_such("size", format_size(size), [format_size(each) for each in sizes], model)
    return size


def read_hubs(text: str | None) -> tuple[str, ...] | None:
    """Return the hubs' own names, in the order that is asked for; raises ResolutionError for what is no hub."""
    if text is None:
        return None
    return tuple(dict.fromkeys(_read_hub(part.strip()) for part in text.split(",")))


def _read_hub(text: str) -> str:
    name = {"hf": "huggingface", "ms": "modelscope"}.get(text.lower(), text.lower())
    if name not in HUBS:
        raise ResolutionError(f"There is no hub `{text}`", hint=f"the hubs are {listing(HUBS)}")
    return name


def _no_such(what: str, text: str, known: Sequence[str], model: Model) -> ResolutionError:
    near = get_close_matches(text.lower(), {name.lower(): name for name in known}, n=1, cutoff=0.6)
    spelled = next((name for name in known if near and name.lower() == near[0]), None)
    hint = f"did you mean `{spelled}`?" if spelled else f"launch inspect {model.name}"
    details = (f"it has {listing(known)}",)
    return ResolutionError(f"`{model.name}` has no {what} `{text}`", hint=hint, details=details)


def listing(names: Sequence[str], joint: str = "and") -> str:
    """Return names as a sentence lists them: `a, b and c`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {joint} {names[-1]}"
