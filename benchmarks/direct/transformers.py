"""What somebody would write without us: Transformers' own continuous batching in this process, nothing around it.

The yardstick of the engine `transformers`, run by the engine environment's Python; `lib/turns.py` says how it is asked.
The end of a text is ignored.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import turns

PAGE_TOKENS = 256


def parse() -> argparse.Namespace:
    parser = turns.options(__doc__, model="a folder with safetensors and a tokenizer")
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


def stream_all(manager: Any, prompts: list[list[int]], tokens: int) -> list[list[float]]:
    """Return the time of each token's arrival, for each prompt."""
    times: dict[str, list[float]] = {}
    for identity in manager.add_requests(prompts, max_new_tokens=tokens, streaming=True):
        times[identity] = []
    open_streams = len(prompts)
    while open_streams:
        if (result := manager.get_result(timeout=60)) is None:
            raise SystemExit("no token within a minute")
        times[result.request_id].append(time.perf_counter())
        open_streams -= result.is_finished()
    return list(times.values())


def main() -> None:
    options = parse()
    model, tokenizer = load(options)
    manager = start(model, options)
    turns.answer_turns(lambda prompts: stream_all(manager, tokenizer(prompts).input_ids, options.tokens))
    manager.stop(hard_stop=True)


if __name__ == "__main__":
    main()
