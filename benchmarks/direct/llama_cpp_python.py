"""What somebody would write without us: llama-cpp-python's own streams in this process, one after another.

The yardstick of the engine `llama-cpp-python`, run by the engine environment's Python. Says `ready`; then each line on
stdin, `STREAMS TURN`, is answered by a line of JSON: the tokens after the first of each stream, the seconds from the
first token to the last, and their quotient. Each turn asks other things.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# A script's folder comes first on the path, where a file is named like the package that this one measures.
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).parent.resolve()]
TOPICS = ("rivers", "bridges", "bees", "clocks", "maps", "glass", "salt", "paper", "trains", "wool", "tides", "bread")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--tokens", type=int, default=64, help="of each stream at most")
    parser.add_argument("--context", type=int, default=1024)
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


def measure(llama: Any, prompts: list[str], tokens: int) -> dict[str, float]:
    """Return the tokens after the first of each stream, and the seconds in which they came."""
    times = [list(stream(llama, prompt, tokens)) for prompt in prompts]
    took_s = times[-1][-1] - times[0][0]
    count = sum(len(each) - 1 for each in times)
    return {"completion_tokens": count, "decoding_s": took_s, "tokens_per_s": count / took_s}


def main() -> None:
    options = parse()
    llama = load(options)
    measure(llama, ["Once upon a time"], 8)
    print("ready", flush=True)
    for line in sys.stdin:
        streams, turn = map(int, line.split())
        chosen = [TOPICS[(turn + index) % len(TOPICS)] for index in range(streams)]
        prompts = [f"A long essay on {topic}, part {turn}, from the beginning:\n\n" for topic in chosen]
        print(json.dumps(measure(llama, prompts, options.tokens)), flush=True)


if __name__ == "__main__":
    main()
