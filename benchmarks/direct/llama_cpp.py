"""What somebody would write without us: llama.cpp's server by xllamacpp in this process, asked without HTTP.

The yardstick of the engine `llama.cpp`, run by the engine environment's Python; `lib/turns.py` says how it is asked.
The end of a text is ignored.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import turns


def parse() -> argparse.Namespace:
    parser = turns.options(__doc__, model="a GGUF file")
    parser.add_argument("--threads", type=int, default=1, help="that decode one stream")
    parser.add_argument("--threads-batch", type=int, default=2, help="that read prompts and decode several streams")
    return parser.parse_args()


def start(options: argparse.Namespace) -> Any:
    """Return the server with its model loaded."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.n_ctx, params.n_parallel = options.context * options.slots, options.slots
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads_batch
    params.fit_params = params.warmup = params.kv_unified = False
    return xllamacpp.Server(params)


def stream(server: Any, prompt: str, tokens: int) -> list[float]:
    """Return the time of each token's arrival."""
    times: list[float] = []

    def receive(chunk: Any) -> bool:
        if any(choice.get("text") for choice in chunk.get("choices", ())):
            times.append(time.perf_counter())
        return False

    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True}
    server.handle_completions(body, receive)
    return times


def main() -> None:
    options = parse()
    server = start(options)

    def stream_all(prompts: list[str]) -> list[list[float]]:
        with ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(lambda prompt: stream(server, prompt, options.tokens), prompts))

    turns.answer_turns(stream_all)


if __name__ == "__main__":
    main()
