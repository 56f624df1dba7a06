"""What somebody would write without us: xllamacpp in this process, one chat request, its text on stdout as it comes.

The yardstick of first_token.py, run by the engine environment's Python. The last line on stderr is JSON with what was
measured: seconds from sending the request, tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    for name in ("--ctx-size", "--parallel", "--threads", "--threads-batch", "--max-tokens"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--lean", action="store_true", help="neither fit parameters to the memory nor warm up")
    parser.add_argument("--prompt", required=True)
    return parser.parse_args()


def start(options: argparse.Namespace) -> Any:
    """Return the server with its model loaded."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.n_ctx = options.ctx_size
    params.n_parallel = options.parallel
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads_batch
    if options.lean:
        params.fit_params = params.warmup = False
    return xllamacpp.Server(params)


def answer(server: Any, prompt: str, max_tokens: int) -> dict[str, float]:
    """Write the answer to stdout piece by piece, and return its tokens and times."""
    begun = time.perf_counter()
    measured: dict[str, float] = {}

    def receive(chunk: Any) -> bool:
        text = "".join(choice["delta"].get("content") or "" for choice in chunk.get("choices", ()))
        if text:
            measured.setdefault("first_token_s", time.perf_counter() - begun)
            sys.stdout.write(text)
            sys.stdout.flush()
        if chunk.get("usage"):
            measured["completion_tokens"] = chunk["usage"]["completion_tokens"]
        return False

    server.handle_chat_completions(
        {
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
        receive,
    )
    return {**measured, "total_s": time.perf_counter() - begun}


def main() -> None:
    options = parse()
    measured = answer(start(options), options.prompt, options.max_tokens)
    print(json.dumps(measured), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
