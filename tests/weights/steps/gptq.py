"""Quantise a model to GPTQ's 4 bits with gptqmodel: symmetric, without act-order, which every engine reads.

Runs in the environment of the engine `transformers`:  python -m tests.weights.steps.gptq MODEL FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from pydoc_data.topics import topics

# gptqmodel 7.6 plans for more workers than two cores have, and then fails.
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
# Packing in Python takes less than compiling what would pack faster.
os.environ.setdefault("GPTQMODEL_DISABLE_PACK_EXT", "1")

from gptqmodel import GPTQModel, QuantizeConfig

SAMPLES = 8
SAMPLE_CHARACTERS = 800
GROUP_SIZE = 64  # SmolLM2's hidden size, 576, is no multiple of the usual 128


def main(model: Path, folder: Path) -> None:
    config = QuantizeConfig(bits=4, group_size=GROUP_SIZE, desc_act=False, sym=True)
    loaded = GPTQModel.load(str(model), config, device="cpu")
    loaded.quantize(calibration_texts(), batch_size=1)
    loaded.save(str(folder))


def calibration_texts() -> list[str]:
    """Return English prose that Python brings along: its own reference."""
    prose = sorted((text for text in topics.values() if len(text) >= SAMPLE_CHARACTERS), key=len)
    return [text[:SAMPLE_CHARACTERS] for text in prose[:SAMPLES]]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
