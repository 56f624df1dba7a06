"""Serves one model by Transformers, with continuous batching, over the OpenAI-compatible server of `lib`.

Runs in the engine's environment; with several GPUs once for each, started by torch.distributed.run, of which the first
serves. What goes wrong while loading is the log's last line, behind `transformers: error:`.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

from openai_server import add_arguments, serve

DTYPES = ("auto", "float32", "bfloat16", "float16")


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="transformers", usage="--model PATH [option]...", allow_abbrev=False)
    add_arguments(parser)
    parser.add_argument("--quantize", choices=("8-bit", "4-bit"), help="by bitsandbytes, while the weights are read")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="the type to compute in, and of the cache")
    parser.add_argument("--threads", type=int, metavar="N", help="processor cores to compute with")
    parser.add_argument("--trust-remote-code", action="store_true", help="run the Python code beside the weights")
    parser.add_argument("--attn-implementation", metavar="NAME", help="sdpa, eager, flash_attention_2 or _3")
    parser.add_argument(
        "--max-batch-tokens", type=int, default=256, metavar="N", help="of a step, and of a page of cache"
    )
    parser.add_argument("--no-prefix-caching", action="store_true", help="read the same beginning of a prompt anew")
    return parser


def main() -> int:
    arguments = options().parse_args()
    if not os.path.exists(arguments.model):
        return fail(f"there is no model at `{arguments.model}`")
    print("transformers: importing torch and transformers", file=sys.stderr, flush=True)
    try:
        from transformers_backend import start

        backend = start(arguments)
    except Exception as error:  # noqa: BLE001  whatever upstream raises, the launcher reads it in the log
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        return fail(f"{type(error).__name__}: {lines[0]}")
    if backend.is_driver:
        serve(backend, arguments)
    else:
        backend.join()
    return 0


def fail(reason: str) -> int:
    print(f"transformers: error: {reason}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
