"""Launch mistral-instruct-v0.2 in every format, quantization and engine that there is for it, and measure each.

    python -m tests.engines.matrix [--weights smollm2|mistral] [--only TEXT] [--record FILE]

Each launch is the command line's own, from a hub on this machine that has the weights under their real repo ids, in
environments that `launch engines install` makes. What is measured is what a caller of the endpoint sees. Fails if one
of them fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from engines.machine import read_machine
from tests.engines.loading import MemoryWatch, measure
from tests.fakes.hub import HubServer
from tests.fakes.mistral import NAME, Kind, publish_mistral, write_layer
from tests.launcher.commands import command, processes_with
from tests.weights.build import KEPT
from tests.weights.built import BuiltWeights

STREAMS = 8
TOKENS = 64
CONTEXT_LENGTH = 1024
READY_WITHIN_S = 300.0
# A first launch downloads and compiles what the engine needs.
SET_UP_WITHIN_S = 2400.0
TOPICS = ("rivers", "bridges", "bees", "clocks", "maps", "glass", "salt", "paper", "trains")
GGUF = ("Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_0", "Q4_K_S", "Q4_K_M", "Q5_0", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0")
HEADINGS = ("engine", "format", "quantization", "ready s", "first token ms", "1 stream tok/s", "8 streams", "peak MB")
WIDTHS = (16, 8, 12, 8, 14, 14, 10, 8)


class Combination(NamedTuple):
    """What is launched, and the line that launches it."""

    engine: str
    model_format: str
    quantization: str
    line: tuple[str, ...]


class Measured(NamedTuple):
    """One row: seconds from the command to a ready endpoint, and what callers of it see."""

    engine: str
    model_format: str
    quantization: str
    ready_s: float
    first_token_s: float
    one_stream_tokens_per_s: float
    eight_streams_tokens_per_s: float
    peak_bytes: int
    answer: str


class FailedError(Exception):
    """A launch did not do what it must; the message is what it said."""


def combination(engine: str, model_format: str, quantization: str) -> Combination:
    options = ("--model-format", model_format, "--quantization", quantization, "--engine", engine)
    return Combination(engine, model_format, quantization, (NAME, *options))


# The line that the project is for names no engine.
USERS_OWN = ("--model-name", NAME, "--model-format", "gguf", "--quantization", "Q4_K_M")
COMBINATIONS = (
    *(Combination("llama.cpp", "gguf", q, USERS_OWN) for q in GGUF if q == "Q4_K_M"),
    *(combination("llama.cpp", "gguf", q) for q in GGUF if q != "Q4_K_M"),
    combination("llama-cpp-python", "gguf", "Q4_K_M"),
    *(combination("transformers", "pytorch", q) for q in ("none", "8-bit", "4-bit")),
    combination("transformers", "gptq", "Int4"),
    combination("transformers", "awq", "Int4"),
    combination("vllm", "pytorch", "none"),
    combination("vllm", "gptq", "Int4"),
    combination("vllm", "awq", "Int4"),
)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", choices=("smollm2", "mistral"), default="smollm2")
    parser.add_argument("--only", default="", help="those whose engine, format and quantization contain this text")
    parser.add_argument("--record", type=Path, help="write the rows to this JSON file")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what runs is ended
    wanted = [each for each in COMBINATIONS if given.only in f"{each.engine} {each.model_format} {each.quantization}"]
    rows: list[Measured] = []
    with _workplace(given.weights) as (hub, environ):
        for engine in dict.fromkeys(each.engine for each in wanted):
            _set_up(engine, environ)
        _say(_line(HEADINGS))
        for each in wanted:
            try:
                rows.append(_launched(each, hub, environ))
            except (FailedError, RuntimeError, OSError) as error:
                _say(f"{each.engine} {each.model_format} {each.quantization} FAILED: {error}")
                continue
            _say(_line(_cells(rows[-1])))
    _say(f"{len(rows)} of {len(wanted)} combinations were launched; weights: {given.weights}; {machine()}")
    if given.record:
        _record(given.record, rows, given.weights)
    return int(len(rows) < len(wanted))


@contextmanager
def _workplace(kind: Kind) -> Iterator[tuple[HubServer, dict[str, str]]]:
    """Yield a hub with the weights, and the variables of a user who reaches only that and has engines but no models."""
    # Unix sockets want a short path.
    home = Path(tempfile.mkdtemp(prefix="matrix-", dir="/tmp"))
    try:
        with HubServer() as hub:
            publish_mistral(hub, BuiltWeights(), kind)
            write_layer(hub, home / "layer.yaml", kind)
            variables = {
                "HOME": home,
                "XDG_RUNTIME_DIR": home,
                "XDG_CONFIG_HOME": home / "config",
                "HF_HOME": home / "huggingface",
                "HF_ENDPOINT": hub.huggingface_url,
                "LAUNCH_CACHE": KEPT / "launch",
                "LAUNCH_REGISTRY": home / "layer.yaml",
                "LAUNCH_JSON": "1",
                "LAUNCH_PORT": "0",
                "LAUNCH_CONCURRENCY": STREAMS,
                "LAUNCH_CONTEXT_LENGTH": CONTEXT_LENGTH,
            }
            # uv keeps what it downloaded and compiled where it always does.
            uv = {"UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR") or str(KEPT.parent / "uv")}
            yield hub, {**os.environ, **uv, **{name: str(value) for name, value in variables.items()}}
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _set_up(engine: str, environ: Mapping[str, str]) -> None:
    start = time.monotonic()
    _run(("engines", "install", engine), environ, SET_UP_WITHIN_S)
    _say(f"{engine}: set up in {time.monotonic() - start:.0f} s")


def _run(line: Sequence[str], environ: Mapping[str, str], limit_s: float) -> list[dict[str, Any]]:
    """Return the events of a command that must succeed."""
    done = subprocess.run(
        command(*line), capture_output=True, text=True, env=environ, timeout=limit_s, stdin=subprocess.DEVNULL
    )
    events = [json.loads(row) for row in done.stdout.splitlines()]
    if done.returncode:
        raise FailedError(_said(events, done.stderr))
    return events


def _said(events: Sequence[Mapping[str, Any]], stderr: str) -> str:
    last = events[-1] if events else {}
    return "\n".join((str(last.get("message", last)), *map(str, last.get("details", ())), stderr[-2000:])).rstrip()


def _launched(each: Combination, hub: HubServer, environ: Mapping[str, str]) -> Measured:
    """Fetch the files of one combination, launch it, and ask it."""
    hub.requests.clear()
    _run(("pull", *each.line), environ, READY_WITHIN_S)
    _check_fetched(each, hub)
    with tempfile.TemporaryFile("w+") as log:
        start = time.monotonic()
        with subprocess.Popen(
            command(*each.line), stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True, env=environ
        ) as process:
            try:
                with MemoryWatch(lambda: _engine_processes(environ, process.pid)) as memory:
                    url = _wait_ready(process, each)
                    ready_s = time.monotonic() - start
                    return _asked(each, url, ready_s, memory)
            finally:
                process.terminate()
                process.wait(60)


def _check_fetched(each: Combination, hub: HubServer) -> None:
    """Raise FailedError unless exactly one file with weights came, and no pickle."""
    names = {request.path.partition("?")[0].rpartition("/")[2] for request in hub.requests if request.origin == "cdn"}
    is_gguf = each.model_format == "gguf"
    expected = {f"mistral-7b-instruct-v0.2.{each.quantization}.gguf" if is_gguf else "model.safetensors"}
    # What another combination has fetched is here.
    if not names <= expected:
        raise FailedError(f"{sorted(names)} came, and not only {sorted(expected)}")


def _engine_processes(environ: Mapping[str, str], launcher: int) -> Iterator[int]:
    """Yield the processes below the launcher: the guard, the engine and what it started."""
    return (pid for pid in processes_with("XDG_RUNTIME_DIR", environ["XDG_RUNTIME_DIR"]) if pid != launcher)


def _wait_ready(process: subprocess.Popen[str], each: Combination) -> str:
    """Return the endpoint's address; the engine must be the one that was meant."""
    events: list[dict[str, Any]] = []
    for line in process.stdout or ():
        events.append(json.loads(line))
        if events[-1]["event"] == "ready":
            return str(events[-1]["url"])
    raise FailedError(_said(events, ""))


def _asked(each: Combination, url: str, ready_s: float, memory: MemoryWatch) -> Measured:
    measure(url, NAME, ["Hello"], 8)  # the first request of an engine may still compile something
    one = measure(url, NAME, [f"Write a long story about {TOPICS[-1]}."], TOKENS)
    eight = measure(url, NAME, [f"Write a long story about {topic}." for topic in TOPICS[:STREAMS]], TOKENS)
    return Measured(
        each.engine,
        each.model_format,
        each.quantization,
        ready_s,
        one.first_token_s,
        one.tokens_per_s,
        eight.tokens_per_s,
        memory.peak_bytes,
        one.answers[0].text,
    )


def _cells(row: Measured) -> tuple[str, ...]:
    return (
        *row[:3],
        f"{row.ready_s:.1f}",
        f"{row.first_token_s * 1000:.0f}",
        f"{row.one_stream_tokens_per_s:.0f}",
        f"{row.eight_streams_tokens_per_s:.0f}",
        f"{row.peak_bytes / 1e6:.0f}",
    )


def _line(cells: Sequence[str]) -> str:
    names = [cell.ljust(width) for cell, width in zip(cells[:3], WIDTHS, strict=False)]
    numbers = [cell.rjust(width) for cell, width in zip(cells[3:], WIDTHS[3:], strict=True)]
    return " ".join((*names, *numbers))


def machine() -> str:
    """Return what the figures were taken on."""
    found = read_machine()
    models = [line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")]
    gpus = ", ".join(gpu.name for gpu in found.gpus) or "no GPU"
    return f"{found.cores} cores of {(models or [found.architecture])[0]}, {found.memory_bytes / 1e9:.0f} GB, {gpus}"


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _record(file: Path, rows: Sequence[Measured], kind: Kind) -> None:
    content = {
        "machine": machine(),
        "python": platform.python_version(),
        "version": version("model-launcher"),
        "weights": kind,
        "tokens": TOKENS,
        "context_length": CONTEXT_LENGTH,
        "rows": [{name: value for name, value in row._asdict().items() if name != "answer"} for row in rows],
    }
    file.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
