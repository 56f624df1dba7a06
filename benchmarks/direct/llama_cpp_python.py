"""What somebody would write without us: llama-cpp-python's own streams in this process, one after another.

The yardstick of the engine `llama-cpp-python`, run by the engine environment's Python; `lib/turns.py` says how it is
asked.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import turns


def parse() -> argparse.Namespace:
    parser = turns.options(__doc__, model="a GGUF file", slots=False)
    parser.add_argument("--threads", type=int, default=1, help="that decode")
    parser.add_argument("--threads-batch", type=int, default=2, help="that read prompts")
    return parser.parse_args()


def load(options: argparse.Namespace) -> Any:
    import llama_cpp

    return llama_cpp.Llama(
        options.model,
        n_ctx=options.context,
        n_threads=options.threads,
        n_threads_batch=options.threads_batch,
        verbose=False,
    )


def stream(llama: Any, prompt: str, tokens: int) -> Iterator[float]:
    """Yield the time of each token's arrival."""
    for chunk in llama.create_completion(prompt, max_tokens=tokens, temperature=0, stream=True):
        if chunk["choices"][0]["text"]:
            yield time.perf_counter()


def main() -> None:
    options = parse()
    llama = load(options)
    turns.answer_turns(lambda prompts: [list(stream(llama, prompt, options.tokens)) for prompt in prompts])


if __name__ == "__main__":
    main()
