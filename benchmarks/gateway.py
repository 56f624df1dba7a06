"""Compare streams through the endpoint with the same engine reached directly, in pairs that alternate who goes first.

    python -m benchmarks.gateway [--only NAME] [--pairs N] [--streams N] [--tokens N] [--requests N]

`launch` runs as a process of its own with the engine behind it; the client speaks bare HTTP to either's socket.
Fails where a median is beyond its limit:

paced     echo at 50 tokens a second for each stream: tokens a second, as a ratio
one       echo: what the endpoint adds to the first token of one stream
together  echo: the same, at the median of streams that begin in the same instant
unpaced   echo as fast as it goes: the endpoint's processor time for each event that it passes on
memory    the endpoint's resident memory after many requests, and how much it grew over the last nine tenths of them
llama     llama.cpp with the embedded model, eight streams: tokens a second, as a ratio
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from benchmarks.engines import TOPICS, Times, tokens_per_s
from engines.process import SOCKET_NAME

LAUNCH = str(Path(sys.executable).with_name("launch"))
ECHO = ("mistral-instruct-v0.2", "--engine", "echo", "--context-length", "16384")
LLAMA = ("smollm2-instruct", "--engine", "llama.cpp", "--concurrency", "8", "--context-length", "1024")
TOKENS_PER_S = 50
LLAMA_STREAMS, LLAMA_TOKENS = 8, 64
# Limits: ratios at least, the rest at most.
PACED_RATIO = 0.98
LLAMA_RATIO = 0.97
ONE_MS = 2.0
TOGETHER_MS = 40.0
EVENT_US = 20.0
MEMORY_MB = 80.0
GROWTH_MB = 2.0
AT_ONCE = 16
PIECE_BYTES = 65536
# A single first token takes milliseconds and scatters as much; so many times the pairs make a median of them.
ONE_TIMES, TOGETHER_TIMES = 30, 4


class Server(NamedTuple):
    """A running `launch`: the endpoint's port and process, and the engine's own socket."""

    port: int
    pid: int
    socket: str


class Stream:
    """One request and the times at which its events came; as light as can be, since it shares the processors."""

    def __init__(self, body: bytes) -> None:
        self._request = (
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        ) + body
        self._received: list[tuple[float, bytes]] = []
        self.began = 0.0

    def begin(self, server: Server, *, directly: bool) -> socket.socket:
        """Send the request and return the socket that the answer comes from."""
        self.began = time.perf_counter()
        if directly:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(server.socket)
        else:
            connection = socket.create_connection(("127.0.0.1", server.port))
        connection.sendall(self._request)
        return connection

    def receive(self, connection: socket.socket) -> bool:
        """Note what has come; return False at the end."""
        data = connection.recv(PIECE_BYTES)
        self._received.append((time.perf_counter(), data))
        return bool(data)

    def times(self) -> list[float]:
        """Return when each event came, without the one that says that it is done."""
        found: list[float] = []
        for arrived, data in self._received:
            found += [arrived] * data.count(b"data: {")
        whole = b"".join(data for _, data in self._received)
        if b"[DONE]" not in whole:
            raise SystemExit(f"no whole answer: {whole[:500].decode(errors='replace')}")
        return found


def asked(server: Server, bodies: Sequence[bytes], *, directly: bool = False) -> list[Stream]:
    """Return the streams of requests that begin in the same instant, all of them ended."""
    streams = [Stream(body) for body in bodies]
    with selectors.DefaultSelector() as under_way:
        for stream in streams:
            under_way.register(stream.begin(server, directly=directly), selectors.EVENT_READ, stream)
        while under_way.get_map():
            for key, _ in under_way.select():
                connection = cast(socket.socket, key.fileobj)
                if not key.data.receive(connection):
                    under_way.unregister(connection)
                    connection.close()
    return streams


@contextmanager
def serving(*options: str, engine_options: Sequence[str] = ()) -> Iterator[Server]:
    """Start `launch` with a runtime folder of its own, in which there is one engine's socket."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as folder:
        command = [LAUNCH, *options, "--port", "0", "--json", "--", *engine_options]
        environment = {**os.environ, "XDG_RUNTIME_DIR": folder}
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            try:
                events = map(json.loads, process.stdout or ())
                ready = next(event for event in events if event["event"] == "ready")
                (engine,) = Path(folder).rglob(SOCKET_NAME)
                yield Server(urlsplit(ready["url"]).port or 0, ready["pid"], str(engine))
            finally:
                process.terminate()


# --- what is measured ------------------------------------------------------------------------------------------------


def paced(given: argparse.Namespace) -> bool:
    pace = ("--tokens-per-second", str(TOKENS_PER_S))
    with serving(*ECHO, "--concurrency", str(given.streams), engine_options=pace) as server:
        return at_least("paced", PACED_RATIO, in_pairs(given.pairs, lambda directly: rate_of(server, given, directly)))


def rate_of(server: Server, given: argparse.Namespace, directly: bool) -> float:
    streams = asked(server, [words(given.tokens)] * given.streams, directly=directly)
    times = [each.times() for each in streams]
    began, ended = min(each.began for each in streams), max(each[-1] for each in times)
    return sum(map(len, times)) / (ended - began)


def one(given: argparse.Namespace) -> bool:
    with serving(*ECHO, "--concurrency", "1") as server:
        measure = lambda directly: first_token_ms(server, 1, directly)  # noqa: E731
        return added("one", ONE_MS, in_pairs(ONE_TIMES * given.pairs, measure))


def together(given: argparse.Namespace) -> bool:
    pace = ("--tokens-per-second", str(TOKENS_PER_S))
    with serving(*ECHO, "--concurrency", str(given.streams), engine_options=pace) as server:
        measure = lambda directly: first_token_ms(server, given.streams, directly)  # noqa: E731
        return added("together", TOGETHER_MS, in_pairs(TOGETHER_TIMES * given.pairs, measure))


def first_token_ms(server: Server, count: int, directly: bool) -> float:
    """Return the median over `count` streams, from the instant in which the first of them began."""
    streams = asked(server, [words(16)] * count, directly=directly)
    began = min(each.began for each in streams)
    return median((each.times()[0] - began) * 1000 for each in streams)


def unpaced(given: argparse.Namespace) -> bool:
    with serving(*ECHO, "--concurrency", str(given.streams)) as server:
        asked(server, [words(10)] * given.streams)
        costs = []
        for _ in range(given.pairs):
            before_s = processor_s(server.pid)
            events = sum(len(each.times()) for each in asked(server, [words(given.tokens)] * given.streams))
            costs.append((processor_s(server.pid) - before_s) * 1e6 / events)
    return report("unpaced", f"{median(costs):.1f} µs an event", median(costs) <= EVENT_US, EVENT_US, costs)


def memory(given: argparse.Namespace) -> bool:
    with serving(*ECHO, "--concurrency", str(AT_ONCE)) as server:
        sizes = []
        for _ in range(10):
            for _ in range(given.requests // 10 // AT_ONCE):
                asked(server, [words(8)] * AT_ONCE)
            sizes.append(resident_mb(server.pid))
    grown = sizes[-1] - sizes[0]
    said = f"{sizes[-1]:.1f} MB after {given.requests:,} requests, {grown:+.1f} MB since a tenth of them"
    return report("memory", said, sizes[-1] <= MEMORY_MB and grown <= GROWTH_MB, MEMORY_MB, sizes)


def llama(given: argparse.Namespace) -> bool:
    with serving(*LLAMA) as server:
        numbers = iter(range(1000))
        measure = lambda directly: llama_rate(server, numbers, directly)  # noqa: E731
        return at_least("llama", LLAMA_RATIO, in_pairs(given.pairs, measure))


def llama_rate(server: Server, numbers: Iterator[int], directly: bool) -> float:
    """Return what streams give while all of them write, each time with prompts that are in nobody's cache."""
    bodies = [essay(next(numbers)) for _ in range(LLAMA_STREAMS)]
    times: Times = [each.times()[:LLAMA_TOKENS] for each in asked(server, bodies, directly=directly)]
    return tokens_per_s(times)


def words(count: int) -> bytes:
    """Return a request that echo answers with `count` tokens."""
    return json.dumps({"prompt": " ".join(["word"] * count), "stream": True, "max_tokens": count}).encode()


def essay(number: int) -> bytes:
    prompt = f"Part {number} of a long essay on {TOPICS[number % len(TOPICS)]}, from the beginning:\n\n"
    greedy = {"temperature": 0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    return json.dumps({"prompt": prompt, "stream": True, "max_tokens": LLAMA_TOKENS, **greedy}).encode()


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


# --- pairs and limits ------------------------------------------------------------------------------------------------


def in_pairs(pairs: int, measure: Callable[[bool], float]) -> list[tuple[float, float]]:
    """Return pairs of through and directly; every other pair begins with directly, and one before them is forgotten."""
    found = []
    for number in range(pairs + 1):
        turns = (False, True) if number % 2 else (True, False)
        taken = {directly: measure(directly) for directly in turns}
        found.append((taken[False], taken[True]))
    return found[1:]


def at_least(name: str, limit: float, pairs: Sequence[tuple[float, float]]) -> bool:
    ratios = [through / directly for through, directly in pairs]
    means = [median(side) for side in zip(*pairs, strict=True)]
    said = f"{means[0]:,.0f} tok/s, directly {means[1]:,.0f}, ratio {median(ratios):.3f}"
    return report(name, said, median(ratios) >= limit, limit, ratios)


def added(name: str, limit: float, pairs: Sequence[tuple[float, float]]) -> bool:
    differences = [through - directly for through, directly in pairs]
    said = f"{median(differences):.2f} ms added to {median(directly for _, directly in pairs):.2f}"
    return report(name, said, median(differences) < limit, limit, differences)


def report(name: str, said: str, is_right: bool, limit: float, each: Sequence[float]) -> bool:
    quarters = quantiles(each, n=4, method="inclusive") if len(each) > 1 else each
    spread = ", ".join(f"{value:.3g}" for value in (min(each), *quarters, max(each)))
    print(f"{name:9} {'' if is_right else 'BEYOND '}{said}   limit {limit:g}   (quarters: {spread})", flush=True)
    return is_right


MEASURES = {each.__name__: each for each in (paced, one, together, unpaced, memory, llama)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=MEASURES, action="append")
    parser.add_argument("--pairs", type=int, default=7, help="of runs; of short ones there are more")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=500, help="of each stream")
    parser.add_argument("--requests", type=int, default=10_000)
    given = parser.parse_args()
    are_right = [MEASURES[name](given) for name in given.only or MEASURES]
    return int(not all(are_right))


if __name__ == "__main__":
    sys.exit(main())
