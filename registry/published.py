"""Where else a model is published, for those who cannot have what they asked for."""

from __future__ import annotations

from collections.abc import Iterator

from registry.spec import Model, Spec, format_size


def published_elsewhere(model: Model, refused: Spec) -> Iterator[str]:
    """Yield the places of the model's other specs of the same size, else of all sizes, each as a sentence."""
    others = [spec for spec in model.specs if spec is not refused and spec.sources]
    same_size = [spec for spec in others if spec.size_in_billions == refused.size_in_billions]
    for spec in same_size or others:
        size = "" if same_size else f" of size {format_size(spec.size_in_billions)}"
        for source in spec.sources:
            yield f"`{spec.model_format}`{size} is on {source.hub}: `{source.repo_id}`"
