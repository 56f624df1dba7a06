"""A copy of a model in which the layers' linear weights are packed in another way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.weights.steps.tensors import Array, read_tensors, write_json, write_tensors

Pack = Callable[[str, Array], dict[str, Array]]


def repack(
    model: Path, folder: Path, pack: Pack, config: Mapping[str, object], config_name: str = "quant_config.json"
) -> None:
    """Write `model` to `folder` with each layer's projections as `pack` gives them, the rest in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Array] = {}
    for name, tensor in read_tensors(model / "model.safetensors").items():
        is_packed = name.endswith("_proj.weight")
        tensors |= pack(name.removesuffix(".weight"), tensor) if is_packed else {name: tensor}
    write_tensors(folder / "model.safetensors", tensors, floats="float16")
    for file in model.iterdir():
        if file.name not in ("model.safetensors", "config.json"):
            shutil.copy(file, folder / file.name)
    described = json.loads((model / "config.json").read_text("utf-8"))
    described.pop("dtype", None)
    write_json(folder / "config.json", {**described, "torch_dtype": "float16", "quantization_config": config})
    write_json(folder / config_name, config)
