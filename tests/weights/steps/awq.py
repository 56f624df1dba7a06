"""Quantise a model to AWQ's 4 bits by rounding: the layout that engines read, without AWQ's own search for scales.

AWQ's libraries quantise on CUDA only. Runs where numpy and safetensors are:
    python -m tests.weights.steps.awq MODEL FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.weights.steps.repacked import repack
from tests.weights.steps.tensors import BITS, GROUP_SIZE, as_awq

CONFIG = {
    "quant_method": "awq",
    "bits": BITS,
    "group_size": GROUP_SIZE,
    "version": "gemm",
    "zero_point": True,
    "modules_to_not_convert": None,
}

if __name__ == "__main__":
    repack(Path(sys.argv[1]), Path(sys.argv[2]), as_awq, CONFIG)
