"""Serves one GGUF file by llama-cpp-python over the OpenAI-compatible server of `lib`, one request at a time.

Runs in the engine's environment. Its options are the names of `llama_cpp.Llama`'s parameters, with either dashes or
underscores; any other is refused.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

from openai_server import add_arguments, serve

# The parameters of `llama_cpp.Llama` that are handed over as they are, and their types.
PLAIN: Mapping[str, Callable[[str], object]] = {
    "n_threads": int,
    "n_threads_batch": int,
    "n_batch": int,
    "n_ubatch": int,
    "n_gpu_layers": int,
    "main_gpu": int,
    "rope_freq_base": float,
    "rope_freq_scale": float,
    "yarn_ext_factor": float,
    "yarn_attn_factor": float,
    "yarn_beta_fast": float,
    "yarn_beta_slow": float,
    "yarn_orig_ctx": int,
    "lora_path": os.path.abspath,
    "lora_scale": float,
}
SWITCHES = ("use_mmap", "use_mlock", "offload_kqv", "flash_attn", "op_offload", "swa_full", "numa")
CACHE_TYPES = {name: f"GGML_TYPE_{name.upper()}" for name in ("f32", "f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")}
# For each choice the name of llama_cpp's constant.
CHOICES: Mapping[str, Mapping[str, str]] = {
    "split_mode": {name: f"LLAMA_SPLIT_MODE_{name.upper()}" for name in ("none", "layer", "row")},
    "rope_scaling_type": {name: f"LLAMA_ROPE_SCALING_TYPE_{name.upper()}" for name in ("none", "linear", "yarn")},
    "type_k": CACHE_TYPES,
    "type_v": CACHE_TYPES,
}


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llama-cpp-python", usage="--model FILE [option]...", allow_abbrev=False)
    add_arguments(parser)
    parser.argument_default = argparse.SUPPRESS  # what is not given is llama_cpp.Llama's to choose
    for name, kind in PLAIN.items():
        parser.add_argument(*_flags(name), dest=name, type=kind, metavar="VALUE")
    for name in SWITCHES:
        parser.add_argument(*_flags(name), dest=name, action=argparse.BooleanOptionalAction)
    for name, choices in CHOICES.items():
        parser.add_argument(*_flags(name), dest=name, choices=tuple(choices))
    parser.add_argument(*_flags("tensor_split"), dest="tensor_split", type=_proportions, metavar="PART,PART,...")
    return parser


def _flags(name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}")))


def _proportions(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def parameters(arguments: argparse.Namespace, llama_cpp: Any) -> dict[str, Any]:
    """Return the parameters of `llama_cpp.Llama` that were given."""
    given = {name: value for name, value in vars(arguments).items() if name in {*PLAIN, *SWITCHES, "tensor_split"}}
    chosen = {name: choices[getattr(arguments, name)] for name, choices in CHOICES.items() if name in arguments}
    return {**given, **{name: getattr(llama_cpp, constant) for name, constant in chosen.items()}}


def main() -> int:
    arguments = options().parse_args()
    if not os.path.isfile(arguments.model):
        print(f"llama-cpp-python: error: there is no model file `{arguments.model}`", file=sys.stderr)
        return 1
    import llama_cpp

    from llama_backend import LlamaBackend

    try:
        llama = llama_cpp.Llama(arguments.model, n_ctx=arguments.ctx_size, **parameters(arguments, llama_cpp))
        backend = LlamaBackend(llama, arguments)
    except Exception as error:  # noqa: BLE001  the binding raises whatever it likes; the log says what went before
        print(f"llama-cpp-python: error: {error}", file=sys.stderr)
        return 1
    serve(backend, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
