"""What somebody would write without us: Transformers' own continuous batching in this process, nothing around it.

The yardstick of the engine `transformers`, run by the engine environment's Python. Says `ready`; then each line on
stdin, `STREAMS TURN`, is answered by a line of JSON: the tokens after the first of each stream, the seconds from the
first token to the last, and their quotient. Each turn asks other things.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

# A script's folder comes first on the path, where this file is named like the package that it measures.
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).parent.resolve()]
TOPICS = ("rivers", "bridges", "bees", "clocks", "maps", "glass", "salt", "paper", "trains", "wool", "tides", "bread")
PAGE_TOKENS = 256


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a folder with safetensors and a tokenizer")
    parser.add_argument("--slots", type=int, default=8, help="streams that there may be at once")
    parser.add_argument("--tokens", type=int, default=64, help="of each stream; the end of the text is ignored")
    parser.add_argument("--context", type=int, default=1024, help="tokens of each stream's cache")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--dtype", default="float32", help="auto: what the engine takes on a CPU")
    parser.add_argument("--attn-implementation", default="sdpa")
    return parser.parse_args()


def load(options: argparse.Namespace) -> tuple[Any, Any]:
    """Return model and tokenizer."""
    import torch
    import transformers

    if options.threads:
        torch.set_num_threads(options.threads)
    dtype = "float32" if options.dtype == "auto" else options.dtype
    model = transformers.AutoModelForCausalLM.from_pretrained(
        options.model, dtype=dtype, attn_implementation=options.attn_implementation, local_files_only=True
    )
    return model, transformers.AutoTokenizer.from_pretrained(options.model, local_files_only=True)


def start(model: Any, options: argparse.Namespace) -> Any:
    """Return the manager, running, with a cache that holds each stream's whole context."""
    import transformers

    pages = -(-options.context // PAGE_TOKENS) * options.slots
    config = transformers.ContinuousBatchingConfig(
        page_size=PAGE_TOKENS,
        num_blocks=pages,
        max_batch_tokens=PAGE_TOKENS,
        max_requests_per_batch=options.slots,
        safety_margin=0.0,
        allow_block_sharing=False,
    )
    greedy = transformers.GenerationConfig(do_sample=False, eos_token_id=-1)
    manager = model.init_continuous_batching(greedy, config)
    manager.start()
    return manager


def measure(manager: Any, prompts: list[list[int]], tokens: int) -> dict[str, float]:
    """Return the tokens after the first of each stream, and the seconds in which they came."""
    begun = time.perf_counter()
    manager.add_requests(prompts, max_new_tokens=tokens, streaming=True)
    first: dict[str, float] = {}
    open_streams = len(prompts)
    while open_streams:
        if (result := manager.get_result(timeout=60)) is None:
            raise SystemExit("no token within a minute")
        first.setdefault(result.request_id, time.perf_counter() - begun)
        open_streams -= result.is_finished()
    took_s = time.perf_counter() - begun - min(first.values())
    count = len(prompts) * (tokens - 1)
    return {"completion_tokens": count, "decoding_s": took_s, "tokens_per_s": count / took_s}


def main() -> None:
    options = parse()
    model, tokenizer = load(options)
    manager = start(model, options)
    measure(manager, [tokenizer("Once upon a time").input_ids], 4)
    print("ready", flush=True)
    for line in sys.stdin:
        streams, turn = map(int, line.split())
        chosen = [TOPICS[(turn + index) % len(TOPICS)] for index in range(streams)]
        prompts = [f"A long essay on {topic}, part {turn}, from the beginning:\n\n" for topic in chosen]
        print(json.dumps(measure(manager, tokenizer(prompts).input_ids, options.tokens)), flush=True)
    manager.stop(hard_stop=True)


if __name__ == "__main__":
    main()
