"""What the steps share: safetensors in bfloat16 without torch, and the two ways of packing 4-bit weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from safetensors import TensorSpec, deserialize, serialize_file

Array: TypeAlias = np.ndarray

GROUP_SIZE = 64
BITS = 4
PER_WORD = 32 // BITS
LEVELS = (1 << BITS) - 1
# Which of eight neighbouring columns is in which four bits of a word, lowest first: AutoAWQ's GEMM layout.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def read_tensors(file: Path) -> dict[str, Array]:
    """Return all tensors of a safetensors file as float32."""
    return {name: _as_float32(tensor) for name, tensor in deserialize(file.read_bytes())}


def write_tensors(file: Path, tensors: Mapping[str, Array], *, floats: str = "bfloat16") -> None:
    """Write tensors; those of float32 as `floats`, which is `bfloat16` or `float16`, the others as they are."""
    stored = {name: _as_stored(tensor, floats) for name, tensor in tensors.items()}
    specs = {
        name: TensorSpec(dtype=dtype, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes)
        for name, (dtype, array) in stored.items()
    }
    serialize_file(specs, str(file), {"format": "pt"})


def write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _as_float32(stored: Mapping[str, Any]) -> Array:
    assert stored["dtype"] == "BF16"
    words = np.frombuffer(stored["data"], np.uint16).reshape(stored["shape"])
    return (words.astype(np.uint32) << 16).view(np.float32)


def _as_stored(tensor: Array, floats: str) -> tuple[str, Array]:
    """Return the name that safetensors has for a type, and the values in it, one after the other."""
    if tensor.dtype != np.float32:
        return tensor.dtype.name, np.ascontiguousarray(tensor)
    if floats == "float16":
        return floats, np.ascontiguousarray(tensor, np.float16)
    return floats, _rounded_to_bfloat16(tensor)


def _rounded_to_bfloat16(tensor: Array) -> Array:
    """Return the upper halves of float32 values as uint16, rounded to the nearest even."""
    words = np.ascontiguousarray(tensor).view(np.uint32)
    return ((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype(np.uint16)


class Groups(NamedTuple):
    """A weight [out, in] in 4 bits: `levels` [in, out], `scales` and `zeros` [groups, out]."""

    levels: Array
    scales: Array
    zeros: Array


def quantize(weight: Array, group_of: Array, *, symmetric: bool) -> Groups:
    """Return a weight [out, in] rounded to the nearest of its group's 16 levels; `group_of` [in] numbers the groups."""
    columns = weight.T
    scales = np.zeros((int(group_of.max()) + 1, columns.shape[1]), np.float32)
    zeros = np.full(scales.shape, (LEVELS + 1) // 2, np.float32)
    for group in range(len(scales)):
        members = columns[group_of == group]
        if symmetric:
            scales[group] = 2 * np.abs(members).max(axis=0) / LEVELS
        else:
            low, high = np.minimum(members.min(axis=0), 0), np.maximum(members.max(axis=0), 0)
            scales[group] = (high - low) / LEVELS
            zeros[group] = np.round(-low / scales[group])
    scales = np.maximum(scales, 1e-6).astype(np.float16).astype(np.float32)
    levels = np.clip(np.round(columns / scales[group_of]) + zeros[group_of], 0, LEVELS)
    return Groups(levels.astype(np.uint32), scales, zeros.astype(np.uint32))


def as_awq(name: str, weight: Array) -> dict[str, Array]:
    """Return a weight [out, in] as AWQ's `GEMM` version holds it: words run along the outputs."""
    groups = quantize(weight, _groups_in_order(weight.shape[1]), symmetric=False)
    return {
        f"{name}.qweight": _packed(groups.levels, AWQ_ORDER),
        f"{name}.qzeros": _packed(groups.zeros, AWQ_ORDER),
        f"{name}.scales": groups.scales,
    }


def as_gptq(name: str, weight: Array, *, symmetric: bool = True, order: Array | None = None) -> dict[str, Array]:
    """Return a weight [out, in] as GPTQ's first version holds it: words run along the inputs, zeros are one less.

    `order` [in] says in which order the inputs are grouped, where it is not their own (act-order).
    """
    group_of = _groups_in_order(weight.shape[1])
    if order is not None:
        group_of = group_of[np.argsort(order)]
    groups = quantize(weight, group_of, symmetric=symmetric)
    plain = tuple(range(PER_WORD))
    return {
        f"{name}.qweight": np.ascontiguousarray(_packed(groups.levels.T, plain).T),
        f"{name}.qzeros": _packed((groups.zeros - 1) & LEVELS, plain),
        f"{name}.scales": groups.scales,
        f"{name}.g_idx": group_of.astype(np.int32),
    }


def _groups_in_order(inputs: int) -> Array:
    return np.arange(inputs) // GROUP_SIZE


def _packed(levels: Array, order: tuple[int, ...]) -> Array:
    """Return [rows, columns / 8] words of eight neighbouring columns."""
    eights = levels.reshape(len(levels), -1, PER_WORD)
    words = np.zeros(eights.shape[:2], np.uint32)
    for place, column in enumerate(order):
        words |= eights[:, :, column] << np.uint32(BITS * place)
    return words.view(np.int32)
