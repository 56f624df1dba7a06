"""What somebody would write without us: vLLM's own server on loopback, and plain HTTP streams to it.

The yardstick of the engine `vllm`, run by the engine environment's Python. Says `ready`; then each line on stdin,
`STREAMS TURN`, is answered by a line of JSON: the tokens after the first of each stream, the seconds from the first
token to the last, and their quotient. Each turn asks other things. Options after `--` go to vLLM.
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

TOPICS = ("rivers", "bridges", "bees", "clocks", "maps", "glass", "salt", "paper", "trains", "wool", "tides", "bread")
READY_WITHIN_S = 300


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a folder with safetensors and a tokenizer")
    parser.add_argument("--tokens", type=int, default=64, help="of each stream; the end of the text is ignored")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--slots", type=int, default=8)
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


def measure(port: int, prompts: list[str], tokens: int) -> dict[str, float]:
    """Return the tokens after the first of each stream, and the seconds in which they came."""
    with ThreadPoolExecutor(len(prompts)) as pool:
        times = list(pool.map(lambda prompt: list(stream(port, prompt, tokens)), prompts))
    took_s = max(each[-1] for each in times) - min(each[0] for each in times)
    count = len(prompts) * (tokens - 1)
    return {"completion_tokens": count, "decoding_s": took_s, "tokens_per_s": count / took_s}


def main() -> None:
    options = parse()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = start(options, port)
    try:
        wait_ready(server, port)
        measure(port, ["Once upon a time"], 8)
        print("ready", flush=True)
        for line in sys.stdin:
            streams, turn = map(int, line.split())
            chosen = [TOPICS[(turn + index) % len(TOPICS)] for index in range(streams)]
            prompts = [f"A long essay on {topic}, part {turn}, from the beginning:\n\n" for topic in chosen]
            print(json.dumps(measure(port, prompts, options.tokens)), flush=True)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


if __name__ == "__main__":
    main()
