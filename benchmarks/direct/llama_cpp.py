"""What somebody would write without us: llama.cpp's server by xllamacpp in this process, asked without HTTP.

The yardstick of the engine `llama.cpp`, run by the engine environment's Python. Says `ready`; then each line on stdin,
`STREAMS TURN`, is answered by a line of JSON: the tokens after the first of each stream, the seconds from the first
token to the last, and their quotient. Each turn asks other things.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

TOPICS = ("rivers", "bridges", "bees", "clocks", "maps", "glass", "salt", "paper", "trains", "wool", "tides", "bread")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--tokens", type=int, default=64, help="of each stream; the end of the text is ignored")
    parser.add_argument("--context", type=int, default=1024, help="tokens of each slot")
    parser.add_argument("--slots", type=int, default=8)
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


def measure(server: Any, prompts: list[str], tokens: int) -> dict[str, float]:
    """Return the tokens after the first of each stream, and the seconds in which they came."""
    with ThreadPoolExecutor(len(prompts)) as pool:
        times = list(pool.map(lambda prompt: stream(server, prompt, tokens), prompts))
    took_s = max(each[-1] for each in times) - min(each[0] for each in times)
    count = sum(len(each) - 1 for each in times)
    return {"completion_tokens": count, "decoding_s": took_s, "tokens_per_s": count / took_s}


def main() -> None:
    options = parse()
    server = start(options)
    measure(server, ["Once upon a time"], 8)
    print("ready", flush=True)
    for line in sys.stdin:
        streams, turn = map(int, line.split())
        chosen = [TOPICS[(turn + index) % len(TOPICS)] for index in range(streams)]
        prompts = [f"A long essay on {topic}, part {turn}, from the beginning:\n\n" for topic in chosen]
        print(json.dumps(measure(server, prompts, options.tokens)), flush=True)


if __name__ == "__main__":
    main()
