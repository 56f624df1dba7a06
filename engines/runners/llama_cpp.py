"""Serves one GGUF file by llama.cpp's own HTTP server, which xllamacpp carries.

Runs in the engine's environment with llama-server's options, of those that a single model on one machine needs; any
other is refused. Unlike llama-server it neither fits parameters to the memory at hand nor warms up (together 250 ms,
and the launcher decided the first), has no web page, lists no slots, and lets no other site's scripts in. The context
is the total of all slots, and is never shared between them. Old prompts take at most 1 GiB of memory, not 8.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from typing import Any


def _at_least_one(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def _layers(text: str) -> int:
    """Return a number of layers as CommonParams has it, where -1 and -2 stand for words."""
    return {"auto": -1, "all": -2}.get(text) or int(text)


PROMPT_CACHE_MIB = 1024
# llama-server's flags, CommonParams' name, type: options that are handed over as they are.
PLAIN: tuple[tuple[tuple[str, ...], str, Callable[[str], object]], ...] = (
    (("-c", "--ctx-size"), "n_ctx", int),
    (("-np", "--parallel"), "n_parallel", _at_least_one),
    (("-t", "--threads"), "cpuparams.n_threads", int),
    (("-tb", "--threads-batch"), "cpuparams_batch.n_threads", int),
    (("--poll",), "cpuparams.poll", int),
    (("-b", "--batch-size"), "n_batch", int),
    (("-ub", "--ubatch-size"), "n_ubatch", int),
    (("-ngl", "--gpu-layers", "--n-gpu-layers"), "n_gpu_layers", _layers),
    (("-mg", "--main-gpu"), "main_gpu", int),
    (("-s", "--seed"), "sampling.seed", int),
    (("-cram", "--cache-ram"), "cache_ram_mib", int),
    (("--cache-reuse",), "n_cache_reuse", int),
    (("-sps", "--slot-prompt-similarity"), "slot_prompt_similarity", float),
    (("--rope-freq-base",), "rope_freq_base", float),
    (("--rope-freq-scale",), "rope_freq_scale", float),
    (("--chat-template",), "chat_template", str),
    (("--mmproj",), "mmproj.path", str),
    (("-lv", "--verbosity"), "verbosity", int),
)
# flags, CommonParams' name, the value that the flag sets
SWITCHES: tuple[tuple[str, str, bool], ...] = (
    ("--warmup", "warmup", True),
    ("--embedding", "embedding", True),
    ("--swa-full", "swa_full", True),
    ("--check-tensors", "check_tensors", True),
    ("--no-kv-offload", "no_kv_offload", True),
    ("--no-cache-prompt", "cache_prompt", False),
    ("--no-cont-batching", "cont_batching", False),
)
CACHE_TYPES = {name: name.upper() for name in ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")}
ON_OFF = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}
SPLITS = {"none": "NONE", "layer": "LAYER", "row": "ROW"}
ROPE_SCALINGS = {"none": "NONE", "linear": "LINEAR", "yarn": "YARN"}
POOLINGS = {name: name.upper() for name in ("none", "mean", "cls", "last", "rank")}
LOAD_MODES = {"auto": "AUTO", "none": "NONE", "mmap": "MMAP", "mlock": "MMAP_MLOCK"}
# flags, CommonParams' name, xllamacpp's enumeration, and for each choice the end of its member's name
CHOICES: tuple[tuple[tuple[str, ...], str, str, dict[str, str]], ...] = (
    (("-fa", "--flash-attn"), "flash_attn_type", "llama_flash_attn_type", ON_OFF),
    (("-ctk", "--cache-type-k"), "cache_type_k", "ggml_type", CACHE_TYPES),
    (("-ctv", "--cache-type-v"), "cache_type_v", "ggml_type", CACHE_TYPES),
    (("-sm", "--split-mode"), "split_mode", "llama_split_mode", SPLITS),
    (("--pooling",), "pooling_type", "llama_pooling_type", POOLINGS),
    (("--rope-scaling",), "rope_scaling_type", "llama_rope_scaling_type", ROPE_SCALINGS),
    (("--load-mode",), "load_mode", "llama_load_mode", LOAD_MODES),
)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llama.cpp",
        usage="--model FILE [option]...",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=120),  # else each start imports shutil, 4 ms
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("-m", "--model", required=True, help="the GGUF file, the first of its parts")
    parser.add_argument("--host", default="127.0.0.1", help="an address, or a Unix socket's path ending in .sock")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("-a", "--alias", action="append", default=[], help="the model's name in answers")
    parser.add_argument("--lora", action="append", default=[], metavar="FILE")
    parser.add_argument("--no-mmap", dest="load_mode", action="store_const", const="none")
    parser.add_argument("--mlock", dest="load_mode", action="store_const", const="mlock")
    for flags, name, kind in PLAIN:
        parser.add_argument(*flags, dest=name, type=kind, metavar="VALUE")
    for flag, name, switched in SWITCHES:
        parser.add_argument(flag, dest=name, action="store_const", const=switched)
    for flags, name, _, choices in CHOICES:
        parser.add_argument(*flags, dest=name, choices=tuple(choices))
    return parser


def parameters(given: dict[str, Any]) -> Any:
    """Return xllamacpp's CommonParams for the options that were given."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.fit_params = params.warmup = params.kv_unified = params.ui = params.endpoint_slots = False
    # Else a conversation that ends with an assistant's message is gone on with: a new turn is what others begin.
    params.prefill_assistant = False
    params.endpoint_metrics = params.use_jinja = True
    params.cors_origins = ""
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.model.path = given["model"]
    params.hostnames = [given["host"]]
    params.port = given["port"]
    params.model_alias = set(given["alias"])
    params.lora_adapters = [_adapter(xllamacpp, path) for path in given["lora"]]
    for _, name, enumeration, choices in CHOICES:
        if name in given:
            given[name] = getattr(getattr(xllamacpp, enumeration), f"{enumeration.upper()}_{choices[given[name]]}")
    settable = {option[1] for options in (PLAIN, SWITCHES, CHOICES) for option in options}
    for name in settable & given.keys():
        _set(params, name, given[name])
    # A repetition penalty looks at all that a slot holds, not at the last 64 tokens; -1 is refused (2026.10).
    params.sampling.penalty_last_n = max(0, params.n_ctx) // params.n_parallel
    return params


def _adapter(xllamacpp: Any, path: str) -> Any:
    adapter = xllamacpp.CommonAdapterLoraInfo()
    adapter.path, adapter.scale = path, 1.0
    return adapter


def _set(params: Any, name: str, value: object) -> None:
    part, _, attribute = name.rpartition(".")
    setattr(getattr(params, part) if part else params, attribute, value)


def main() -> int:
    given = vars(options().parse_args())
    if not os.path.isfile(given["model"]):
        print(f"llama.cpp: error: there is no model file `{given['model']}`", file=sys.stderr)
        return 1
    import xllamacpp

    params = parameters(given)
    try:
        server = xllamacpp.Server(params)
    except Exception as error:  # noqa: BLE001  the binding raises RuntimeError for whatever went wrong; the log says what
        print(f"llama.cpp: error: {error}", file=sys.stderr)
        return 1
    print(f"llama.cpp: ready at {server.listening_address}", file=sys.stderr, flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
