"""Unpack SmolLM2's GGUF into what Hugging Face's libraries read: safetensors in bfloat16, configuration, tokenizer.

Runs in the environment of the engine `transformers`:  python -m tests.weights.steps.smollm2_pytorch GGUF FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def main(gguf: Path, folder: Path) -> None:
    found = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    unpacked = GgufConfig(dequantize=True)
    AutoModelForCausalLM.from_pretrained(
        **found, dtype=torch.bfloat16, quantization_config=unpacked, use_safetensors=True
    ).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(**found)
    # The header says `smollm`, whose numbers are single digits; Transformers 5.23 reads every GPT-2 vocabulary alike.
    digits = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
