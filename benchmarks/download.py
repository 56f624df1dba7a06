"""Compare a pull with `huggingface_hub.snapshot_download` of the same files, in pairs that alternate who goes first.

A server in a process of its own sends files from disk. Measured in fresh processes with empty caches: three shards at
the speed of loopback, our verification included; one file where each connection is limited to 20 MB/s; the memory that
a pull takes for a small and for a large file; and a pull of what is here already. Fails beyond the limits.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
MB = 1_000_000
SHARDS = (256 * MB, 160 * MB, 96 * MB)
LIMITED_FILE = 160 * MB
LIMITED_BYTES_PER_S = 20 * MB
LOOPBACK_LIMIT = 1.0
LIMITED_LIMIT = 4.0
CACHED_LIMIT_MS = 100
GROWTH_LIMIT_MB = 16


class Server(NamedTuple):
    """Where the files are, and at which commit."""

    url: str
    commit: str


class Run(NamedTuple):
    """What one client took in one process: from the call to its return, and the most memory of the process."""

    seconds: float
    memory_mb: float


class Compared(NamedTuple):
    """The medians of what both took, and the median of the pairs' ratios: what slows both for a while cancels out."""

    ours_s: float
    theirs_s: float
    ratio: float


# --- the processes ---------------------------------------------------------------------------------------------------


def serve(folder: Path, bytes_per_s: int, sizes: Sequence[int]) -> None:
    """Serve files of these sizes until stdin ends; 0 bytes a second: as fast as it goes."""
    sys.path.insert(0, str(ROOT))
    from tests.fakes.hub import HubServer
    from tests.fakes.tensors import publish

    with HubServer(bytes_per_s=bytes_per_s or None) as hub:
        print(json.dumps({"url": hub.huggingface_url, "commit": publish(hub, folder, tuple(sizes))}), flush=True)
        sys.stdin.read()


def fetch(client: str, commit: str) -> None:
    """Fetch everything with one of the clients, into the cache that HF_HOME names, and print what it took."""
    # Both begin with these, which take longer to import on a busy machine than some files to fetch.
    from huggingface_hub import HfApi, snapshot_download  # noqa: F401

    act = fetch_ours if client == "ours" else fetch_theirs
    start = time.perf_counter()
    act(commit)
    seconds = time.perf_counter() - start
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000]))


def fetch_ours(commit: str) -> None:
    from registry.spec import Source, Spec
    from registry.store import pull

    source = Source("huggingface", "org/tensors", commit)
    pull(Spec("pytorch", 7, ("none",), (source,)), source, "none")


def fetch_theirs(commit: str) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download("org/tensors", revision=commit, allow_patterns=["*.safetensors", "*.json"])


# --- the measurements ------------------------------------------------------------------------------------------------


@contextmanager
def server(sizes: Sequence[int], bytes_per_s: int = 0) -> Iterator[Server]:
    """Start a server of these files in a process of its own."""
    pipe = subprocess.PIPE
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--serve", folder, str(bytes_per_s), *map(str, sizes)]
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:
            assert child.stdout is not None
            yield Server(**json.loads(child.stdout.readline()))
            child.communicate()


def measure(client: str, here: Server, folder: str) -> Run:
    """Return what a client takes in a process of its own, with the caches in `folder`."""
    environ = {
        **os.environ,
        "HF_ENDPOINT": here.url,
        "HF_HOME": f"{folder}/huggingface",
        "LAUNCH_CACHE": f"{folder}/launch",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, __file__, "--fetch", client, here.commit]
    done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
    return Run(*json.loads(done.stdout))


def measure_empty(client: str, here: Server) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        return measure(client, here, folder)


def compare(pairs: int, here: Server) -> Compared:
    taken = []
    for number in range(pairs):
        turns = ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours")
        seconds = {client: measure_empty(client, here).seconds for client in turns}
        taken.append((seconds["ours"], seconds["theirs"]))
    ours, theirs = zip(*taken, strict=True)
    return Compared(median(ours), median(theirs), median(their / our for our, their in taken))


def cached_ms(here: Server) -> float:
    with tempfile.TemporaryDirectory() as folder:
        measure("ours", here, folder)
        return median(measure("ours", here, folder).seconds * 1000 for _ in range(5))


def report(name: str, compared: Compared, size_bytes: int, limit: float) -> bool:
    """Print a comparison and return whether it holds the limit."""
    speeds = [size_bytes / MB / seconds for seconds in (compared.ours_s, compared.theirs_s)]
    verdict = "" if compared.ratio >= limit else ", missed"
    print(
        f"{name:34} ours {speeds[0]:6.0f} MB/s, snapshot_download {speeds[1]:6.0f} MB/s:"
        f" {compared.ratio:.2f} x (limit {limit:.1f}{verdict})"
    )
    return compared.ratio >= limit


def run(pairs: int) -> bool:
    """Measure everything, print it, and return whether all limits hold."""
    with server(SHARDS) as here:
        shards = compare(pairs, here)
        large_mb = measure_empty("ours", here).memory_mb
        cached = cached_ms(here)
    with server([8 * MB]) as here:
        small_mb = measure_empty("ours", here).memory_mb
    with server([LIMITED_FILE], LIMITED_BYTES_PER_S) as here:
        limited = compare(max(1, pairs // 2), here)
    kept = [
        report("three shards, 512 MB, loopback", shards, sum(SHARDS), LOOPBACK_LIMIT),
        report("one file, 20 MB/s a connection", limited, LIMITED_FILE, LIMITED_LIMIT),
        cached < CACHED_LIMIT_MS,
        large_mb - small_mb < GROWTH_LIMIT_MB,
    ]
    print(f"{'what is here, verified':34} {cached:.0f} ms (limit {CACHED_LIMIT_MS})")
    print(f"{'most memory, 8 MB and 512 MB':34} {small_mb:.0f} and {large_mb:.0f} MB (limit +{GROWTH_LIMIT_MB})")
    return all(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--fetch", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        folder, rate, *sizes = options.serve
        serve(Path(folder), int(rate), [int(size) for size in sizes])
    elif options.fetch:
        fetch(*options.fetch)
    else:
        sys.exit(not run(options.pairs))


if __name__ == "__main__":
    main()
