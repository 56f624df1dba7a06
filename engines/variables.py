"""Environment variables that engines of several kinds are given alike."""

from __future__ import annotations

from collections.abc import Mapping

from engines.base import Settings

# Hugging Face's libraries ask no hub and tell nobody.
OFFLINE: Mapping[str, str] = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
_VISIBLE: Mapping[str, str] = {
    "cuda": "CUDA_VISIBLE_DEVICES",
    "rocm": "ROCR_VISIBLE_DEVICES",
    "vulkan": "GGML_VK_VISIBLE_DEVICES",
}


def visible_gpus(settings: Settings) -> Mapping[str, str]:
    """Return what shows an engine its GPUs and no others, numbered as the driver does; {} where it has none."""
    visible = _VISIBLE.get(settings.accelerator)
    if visible is None or not settings.gpus:
        return {}
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", visible: ",".join(map(str, settings.gpus))}
