"""Where else a model is published, for those who cannot have what they asked for."""

from __future__ import annotations

from collections.abc import Iterator

from registry.spec import Model, Source, Spec, format_size


def published_elsewhere(model: Model, refused: Spec, *, at: Source | None = None) -> Iterator[str]:
    """Yield the places that have what a spec was asked for, each as a sentence.

    They are the spec's own other sources where it was refused at one of them, and the model's other specs: those of
    the same size where there are any.
    """
    if at is not None:
        yield from _places(refused, [source for source in refused.sources if source != at])
    others = [spec for spec in model.specs if spec is not refused and spec.sources]
    same_size = [spec for spec in others if spec.size_in_billions == refused.size_in_billions]
    for spec in same_size or others:
        yield from _places(
            spec, spec.sources, size="" if same_size else f" of size {format_size(spec.size_in_billions)}"
        )


def _places(spec: Spec, sources: tuple[Source, ...] | list[Source], size: str = "") -> Iterator[str]:
    for source in sources:
        yield f"`{spec.model_format}`{size} is on {source.hub}: `{source.repo_id}`"
