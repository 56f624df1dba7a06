"""Repos whose small files decide who can run them, with weights large enough to be noticed when they move."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from tests.fakes.hub import HubServer

WEIGHTS_BYTES = 5 << 20
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 96,
    "num_attention_heads": 12,
    "num_key_value_heads": 3,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}
GPTQ: dict[str, Any] = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
AWQ: dict[str, Any] = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}


def publish_folder(
    hub: HubServer, repo_id: str, config: dict[str, Any], *, more: dict[str, bytes] | None = None
) -> str:
    """Publish a repo of safetensors with this `config.json`, and return its commit."""
    files: dict[str, bytes | Path] = {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": bytes(WEIGHTS_BYTES),
        "tokenizer.json": b"{}",
        **(more or {}),
    }
    return hub.add_repo(repo_id, files)


def gguf(architecture: str, *, context_length: int = 2048, size_bytes: int = WEIGHTS_BYTES) -> bytes:
    """Return a GGUF file with a header that says so much, a vocabulary after it, and no tensors to speak of."""
    keys = [
        _text("general.architecture") + struct.pack("<I", 8) + _text(architecture),
        _text("general.file_type") + struct.pack("<II", 4, 15),
        *(
            _text(f"{architecture}.{key}") + struct.pack("<II", 4, value)
            for key, value in (
                ("context_length", context_length),
                ("block_count", 2),
                ("embedding_length", 96),
                ("attention.head_count", 12),
                ("attention.head_count_kv", 3),
            )
        ),
        _text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 50_000) + _text("word") * 50_000,
    ]
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + b"".join(keys)
    return header + bytes(max(0, size_bytes - len(header)))


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def write_layer(path: Path, specs: dict[str, tuple[str, str]], **source: str) -> Path:
    """Write the model `weighed` with specs by format: quantization and repo."""
    more = "".join(f"\n        {name}: {value}" for name, value in source.items())
    text = "".join(
        f"""\
  - format: {model_format}
    size_in_billions: 1
    quantizations: [{quantization}]
    sources:
      huggingface:
        repo_id: {repo_id}{more}
"""
        for model_format, (quantization, repo_id) in specs.items()
    )
    path.write_text(f"name: weighed\nabilities: [chat]\nspecs:\n{text}", encoding="utf-8")
    return path


def weights_asked_for(hub: HubServer) -> list[str]:
    """Return the paths of weights of which bytes were sent, the headers of GGUF files aside."""
    return [
        request.path
        for request in hub.requests
        if request.origin == "cdn" and request.method == "GET" and request.sent_bytes > 100_000
    ]
