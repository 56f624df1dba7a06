"""Quantise a model to GPTQ's 4 bits by rounding: the layout that engines read, in the kinds that some of them refuse.

Runs where numpy and safetensors are:
    python -m tests.weights.steps.gptq_by_rounding MODEL FOLDER [plain|act-order|asymmetric]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tests.weights.steps.repacked import repack
from tests.weights.steps.tensors import BITS, GROUP_SIZE, Array, as_gptq

KINDS = {"plain": (True, False), "act-order": (True, True), "asymmetric": (False, False)}


def main(model: Path, folder: Path, kind: str = "plain") -> None:
    is_symmetric, is_act_order = KINDS[kind]
    random = np.random.default_rng(0)

    def pack(name: str, weight: Array) -> dict[str, Array]:
        order = random.permutation(weight.shape[1]) if is_act_order else None
        return as_gptq(name, weight, symmetric=is_symmetric, order=order)

    config = {
        "quant_method": "gptq",
        "bits": BITS,
        "group_size": GROUP_SIZE,
        "damp_percent": 0.1,
        "desc_act": is_act_order,
        "sym": is_symmetric,
        "true_sequential": True,
        "model_name_or_path": None,
        "model_file_base_name": "model",
    }
    repack(model, folder, pack, config, "quantize_config.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
