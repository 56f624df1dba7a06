"""What a caller sees of an endpoint under load, and what its engine takes of the memory."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import aiohttp

LIMIT_S = 300.0


class Streamed(NamedTuple):
    """One streamed answer: its text and tokens, and when it was asked for, began and ended, on one clock."""

    text: str
    tokens: int
    asked_s: float
    first_s: float
    last_s: float

    @property
    def first_token_s(self) -> float:
        return self.first_s - self.asked_s


class Speed(NamedTuple):
    """Tokens a second after the first token, over all streams; the first token of the slowest."""

    tokens_per_s: float
    first_token_s: float
    answers: tuple[Streamed, ...]


def measure(url: str, model: str, prompts: Iterable[str], max_tokens: int) -> Speed:
    """Ask all `prompts` at once, through the model's template, greedily."""
    answers = tuple(asyncio.run(_ask_all(url, model, tuple(prompts), max_tokens)))
    counted = sum(answer.tokens - 1 for answer in answers)
    took_s = max(answer.last_s for answer in answers) - min(answer.first_s for answer in answers)
    return Speed(counted / took_s, max(answer.first_token_s for answer in answers), answers)


async def _ask_all(url: str, model: str, prompts: tuple[str, ...], max_tokens: int) -> list[Streamed]:
    limit = aiohttp.ClientTimeout(total=LIMIT_S)
    async with aiohttp.ClientSession(timeout=limit, connector=aiohttp.TCPConnector(limit=0)) as client:
        return await asyncio.gather(*(_ask(client, url, model, prompt, max_tokens) for prompt in prompts))


async def _ask(client: aiohttp.ClientSession, url: str, model: str, prompt: str, max_tokens: int) -> Streamed:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    pieces: list[str] = []
    tokens, asked_s, first_s, last_s = 0, time.perf_counter(), 0.0, 0.0
    async with client.post(f"{url}/chat/completions", json=body) as response:
        if response.status != 200:
            raise RuntimeError(f"status {response.status}: {await response.text()}")
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line.removeprefix(b"data: "))
            if "error" in chunk:
                raise RuntimeError(str(chunk["error"]))
            tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
            if text := "".join(choice["delta"].get("content") or "" for choice in chunk["choices"]):
                pieces.append(text)
                last_s = time.perf_counter()
                first_s = first_s or last_s
    if not pieces or tokens < 2:
        raise RuntimeError(f"{tokens} tokens came, with the text {''.join(pieces)!r}")
    return Streamed("".join(pieces), tokens, asked_s, first_s, last_s)


class MemoryWatch:
    """The most memory that processes took together: the sum of their proportional shares (PSS), seen once a second."""

    def __init__(self, processes: Callable[[], Iterable[int]]) -> None:
        self.peak_bytes = 0
        self._processes = processes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(1.0):
            self.peak_bytes = max(self.peak_bytes, sum(map(_proportional_bytes, self._processes())))


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
