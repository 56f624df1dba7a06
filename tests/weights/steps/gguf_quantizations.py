"""Quantise a GGUF to each of the twelve quantizations that Mistral-7B-Instruct-v0.2 comes in, by llama.cpp itself.

Runs in the environment of the engine `llama-cpp-python`:  python -m tests.weights.steps.gguf_quantizations GGUF FOLDER
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import llama_cpp

# llama.cpp's `llama_ftype`; its Q2_K has been Q3_K in some tensors since the beginning.
FILE_TYPES = {
    "Q2_K": llama_cpp.LLAMA_FTYPE_MOSTLY_Q2_K,
    "Q3_K_S": llama_cpp.LLAMA_FTYPE_MOSTLY_Q3_K_S,
    "Q3_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q3_K_M,
    "Q3_K_L": llama_cpp.LLAMA_FTYPE_MOSTLY_Q3_K_L,
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "Q4_K_S": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_S,
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "Q5_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_0,
    "Q5_K_S": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_K_S,
    "Q5_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_K_M,
    "Q6_K": llama_cpp.LLAMA_FTYPE_MOSTLY_Q6_K,
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
}


def main(gguf: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    llama_cpp.llama_backend_init()
    for quantization, file_type in FILE_TYPES.items():
        quantize(gguf, folder / f"{quantization}.gguf", file_type)


def quantize(gguf: Path, file: Path, file_type: int) -> None:
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = file_type
    parameters.allow_requantize = True
    status = llama_cpp.llama_model_quantize(str(gguf).encode(), str(file).encode(), ctypes.byref(parameters))
    if status:
        raise SystemExit(f"llama.cpp could not quantise {gguf} to {file}: status {status}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
