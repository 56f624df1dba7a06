"""What somebody would write without us: vLLM's own server on loopback, and plain HTTP streams to it.

The yardstick of the engine `vllm`, run by the engine environment's Python; `lib/turns.py` says how it is asked. The end
of a text is ignored. Options after `--` go to vLLM.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

import turns

READY_WITHIN_S = 300


def parse() -> argparse.Namespace:
    parser = turns.options(__doc__, model="a folder with safetensors and a tokenizer")
    parser.add_argument("--threads", type=int, default=0, help="0: as vLLM chooses")
    parser.add_argument("options", nargs="*", help="vLLM's own, after --")
    return parser.parse_args()


def start(options: argparse.Namespace, port: int) -> subprocess.Popen[bytes]:
    command = (
        *(sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", options.model, "--served-model-name", "m", "--host", "127.0.0.1", "--port", str(port)),
        *("--max-model-len", str(options.context), "--max-num-seqs", str(options.slots)),
        *("--generation-config", "vllm", *options.options),
    )
    threads = {"OMP_NUM_THREADS": str(options.threads)} if options.threads else {}
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", **threads}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=variables, start_new_session=True)


def wait_ready(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the server did not become ready")


def stream(port: int, prompt: str, tokens: int) -> Iterator[float]:
    """Yield the time of each token's arrival."""
    body = {
        "model": "m",
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    for line in connection.getresponse():
        if line.startswith(b"data: {"):
            yield time.perf_counter()


def stream_all(port: int, prompts: list[str], tokens: int) -> list[list[float]]:
    """Return the time of each token's arrival, for each prompt."""
    with ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(lambda prompt: list(stream(port, prompt, tokens)), prompts))


def main() -> None:
    options = parse()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = start(options, port)
    try:
        wait_ready(server, port)
        turns.answer_turns(lambda prompts: stream_all(port, prompts, options.tokens))
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


if __name__ == "__main__":
    main()
