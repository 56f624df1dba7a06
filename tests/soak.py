"""Many models at one endpoint for minutes, with everything against them; every request is accounted for.

    python -m tests.soak [--minutes 1] [--seed 4]

Clients ask and leave, engines are killed and stand still, models are stopped, the file is changed and broken. Each
request must end with its whole answer or with an error that has a cause, unless its client left; the access log and
the metrics must agree with what clients saw; the endpoint's memory must not grow; and nothing may be left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.scripted_engine import wait_until_gone
from tests.launcher.commands import command, processes_with

ENDS_WITHIN_S = 60.0
GONE_WITHIN_S = 10.0
GROWTH_BYTES = 8_000_000
CLIENTS = 12
ROUTE = "/v1/completions"
WORDS = ("once", "upon", "a", "time", "there", "was", "a", "model", "that", "knew", "no", "end")
# Two echo engines with their guards take less than this, three more; a fourth model is paced.
CAP = "80MB"
TOKENS_PER_S = {"one": 0, "two": 0, "three": 0, "paced": 40}


class Ended(NamedTuple):
    """How a request ended: `whole`, `error`, `left`, or `lost` with what is wrong about it."""

    id: str
    how: str
    status: int
    words: str = ""


class Tally:
    """What was done and seen."""

    def __init__(self) -> None:
        self.ended: list[Ended] = []
        self.done: Counter[str] = Counter()
        self.memory_bytes: list[float] = []

    def wrong(self) -> list[str]:
        return [f"{each.id}: {each.words}" for each in self.ended if each.how == "lost"]


# --- the endpoint ----------------------------------------------------------------------------------------------------


class Place:
    """A folder with the file that is served and all that a user has; `environ` is for every `launch`."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.file = folder / "launch.yaml"
        self.log = folder / "access.jsonl"
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LAUNCH_")},
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "LAUNCH_CACHE": str(folder / "cache"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        self._chance = chance
        self._rates = dict(TOKENS_PER_S)
        self.write()

    def write(self) -> None:
        """Write the file; the first model is loaded at the start, the others on demand."""
        models = [
            {
                "model": "smollm2-instruct",
                "name": name,
                "load": "start" if name == "one" else "demand",
                "keep": "5s" if name == "three" else None,
                "engine-args": ["--tokens-per-second", rate] if rate else [],
            }
            for name, rate in self._rates.items()
        ]
        defaults = {"engine": "echo", "concurrency": 4, "context-length": 2048, "max-memory": CAP, "hang-after": "3s"}
        self.file.write_text(yaml.safe_dump({"defaults": defaults, "models": models}), "utf-8")

    def change(self) -> None:
        """Let one model be launched otherwise."""
        name = self._chance.choice(list(self._rates))
        self._rates[name] = self._chance.choice([20, 40, 80]) if name == "paced" else self._chance.choice([0, 500])
        self.write()

    def damage(self) -> None:
        """Leave a file that no endpoint can be served from."""
        self.file.write_text(self.file.read_text("utf-8").replace("models:", "modles:"), "utf-8")

    def engines(self) -> list[int]:
        """Return the engines' own processes."""
        lines = {pid: _line_of(pid) for pid in self.processes()}
        return [pid for pid, line in lines.items() if "runners/echo.py" in line and "guard.py" not in line]

    def processes(self) -> list[int]:
        return processes_with("XDG_RUNTIME_DIR", self.environ["XDG_RUNTIME_DIR"])


def _line_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


@contextmanager
def serving(place: Place) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve the file; yield the process and the address."""
    words = ("serve", "-c", str(place.file), "--port", "0", "--json", "--access-log", str(place.log))
    with (
        open(place.file.with_suffix(".events"), "w+") as events,
        subprocess.Popen(command(*words), env=place.environ, stdout=events, text=True) as server,
    ):
        try:
            while (ready := _ready_event(Path(events.name))) is None:
                if server.poll() is not None:
                    raise SystemExit(f"the endpoint ended with {server.returncode}")
                time.sleep(0.05)
            yield server, ready["url"]
        finally:
            server.kill()


def _ready_event(path: Path) -> dict[str, Any] | None:
    lines = (json.loads(line) for line in path.read_text().splitlines() if line.endswith("}"))
    return next((event for event in lines if event["event"] == "ready"), None)


# --- clients ---------------------------------------------------------------------------------------------------------


async def ask_on(url: str, tally: Tally, chance: random.Random, ends_at: float, number: int) -> None:
    """Ask one thing after the other until it is time."""
    count = 0
    connector = aiohttp.TCPConnector(force_close=chance.random() < 0.5)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(ENDS_WITHIN_S)) as client:
        while time.monotonic() < ends_at:
            count += 1
            ended = await _ask(client, url, chance, f"soak-{number}-{count}")
            tally.ended.append(ended)
            await asyncio.sleep(chance.uniform(0.2, 1.0) if ended.how == "error" else chance.uniform(0, 0.1))


async def _ask(client: aiohttp.ClientSession, url: str, chance: random.Random, request_id: str) -> Ended:
    prompt = " ".join(chance.choices(WORDS, k=chance.randrange(1, 60)))
    body = {"model": chance.choice(list(TOKENS_PER_S)), "prompt": prompt, "stream": chance.random() < 0.7}
    patience_s = chance.uniform(0, 1.5) if chance.random() < 0.2 else None
    sending = asyncio.ensure_future(_heard(client, url, body, request_id))
    try:
        return await asyncio.wait_for(sending, patience_s)
    except TimeoutError:
        is_left = patience_s is not None and sending.cancelled()
        return Ended(request_id, "left" if is_left else "lost", 0, f"no end within {ENDS_WITHIN_S:.0f} s")
    except (aiohttp.ClientError, OSError) as error:
        return Ended(request_id, "lost", 0, f"the connection broke: {error!r}")


async def _heard(client: aiohttp.ClientSession, url: str, body: Mapping[str, Any], request_id: str) -> Ended:
    """Return how the answer ended."""
    async with client.post(f"{url}/completions", json=body, headers={"X-Request-Id": request_id}) as response:
        text = await response.text()
        if response.status != 200:
            return _error(request_id, response.status, json.loads(text).get("error"))
    if not body["stream"]:
        return _compared(request_id, json.loads(text)["choices"][0]["text"], body["prompt"])
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    objects = [json.loads(event) for event in events if event != "[DONE]"]
    if (error := next((each["error"] for each in objects if "error" in each), None)) is not None:
        return _error(request_id, 200, error)
    if "[DONE]" not in events:
        return Ended(request_id, "lost", 200, f"a stream that ends without a word: {text[-200:]!r}")
    said = "".join(choice["text"] for each in objects for choice in each["choices"])
    return _compared(request_id, said, body["prompt"])


def _error(request_id: str, status: int, error: Mapping[str, Any] | None) -> Ended:
    has_cause = error is not None and bool(error.get("message")) and bool(error.get("type"))
    return Ended(request_id, "error" if has_cause else "lost", status, str(error))


def _compared(request_id: str, said: str, wanted: str) -> Ended:
    return Ended(request_id, "whole" if said == wanted else "lost", 200, "" if said == wanted else f"{said!r}")


# --- what goes against them ------------------------------------------------------------------------------------------


async def disturb(place: Place, tally: Tally, chance: random.Random, ends_at: float) -> None:
    """Do one bad thing after the other until it is time."""
    deeds = [_kill, _kill, _stop_still, _stop_model, _stop_model, _reload_changed, _reload_broken]
    while time.monotonic() < ends_at:
        await asyncio.sleep(chance.uniform(1.0, 4.0))
        tally.done[await chance.choice(deeds)(place, chance)] += 1


async def _kill(place: Place, chance: random.Random) -> str:
    return _signal(place, chance, signal.SIGKILL, "engine killed")


async def _stop_still(place: Place, chance: random.Random) -> str:
    return _signal(place, chance, signal.SIGSTOP, "engine stood still")


def _signal(place: Place, chance: random.Random, number: signal.Signals, words: str) -> str:
    engines = place.engines()
    if not engines:
        return "no engine to harm"
    with suppress(ProcessLookupError):
        os.kill(chance.choice(engines), number)
    return words


async def _stop_model(place: Place, chance: random.Random) -> str:
    code = await _launch(place, "stop", chance.choice(list(TOKENS_PER_S)))
    return "model stopped" if code == 0 else f"`launch stop` ended with {code}"


async def _reload_changed(place: Place, chance: random.Random) -> str:
    place.change()
    code = await _launch(place, "reload")
    return "changed file" if code == 0 else f"`launch reload` ended with {code}"


async def _reload_broken(place: Place, chance: random.Random) -> str:
    place.damage()
    code = await _launch(place, "reload")
    place.write()
    return "broken file refused" if code else "a broken file was taken"


async def _launch(place: Place, *arguments: str) -> int:
    process = await asyncio.create_subprocess_exec(
        *command(*arguments), env=place.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return await process.wait()


# --- what is to hold -------------------------------------------------------------------------------------------------


async def watch(url: str, tally: Tally, ends_at: float) -> None:
    """Note the endpoint's memory twice a second."""
    while time.monotonic() < ends_at:
        samples = await _metrics(url)
        tally.memory_bytes += [value for (name, labels), value in samples.items() if _is_own_memory(name, dict(labels))]
        await asyncio.sleep(0.5)


def _is_own_memory(name: str, labels: Mapping[str, str]) -> bool:
    return name == "launch_resident_memory_bytes" and labels["part"] == "endpoint"


async def _metrics(url: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    async with aiohttp.ClientSession() as client, client.get(f"{url.removesuffix('/v1')}/metrics") as response:
        text = await response.text()
    families = text_string_to_metric_families(text)
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value for family in families for each in family.samples
    }


def differences(place: Place, tally: Tally, counted: Mapping[Any, float]) -> Iterator[str]:
    """Yield what clients, the access log and the metrics do not agree about."""
    lines = [json.loads(line) for line in place.log.read_text().splitlines()]
    noted = [line for line in lines if line["route"] == ROUTE]
    times = Counter(line["request_id"] for line in noted)
    by_id = {line["request_id"]: line for line in noted}
    for each in tally.ended:
        if times[each.id] != 1 and not (each.how == "left" and times[each.id] == 0):
            yield f"{each.id}: {times[each.id]} lines in the access log"
        elif each.how in ("whole", "error") and by_id[each.id]["status"] != each.status:
            yield f"{each.id}: status {each.status}, in the log {by_id[each.id]['status']}"
        elif (each.how == "error") != ("error" in by_id.get(each.id, {})) and each.how != "left":
            yield f"{each.id}: {each.how}, in the log {by_id[each.id].get('error')}"
    by_status: Counter[str] = Counter(str(line["status"]) for line in noted)
    for (name, labels), value in counted.items():
        if name == "launch_requests_total" and dict(labels)["route"] == ROUTE:
            by_status[dict(labels)["status"]] -= int(value)
    yield from (f"status {status}: {count} more lines than counted" for status, count in by_status.items() if count)


def growth_bytes(seen: list[float]) -> float:
    """Return by how much memory grew from the second quarter to the last."""
    quarter = max(1, len(seen) // 4)
    return statistics.median(seen[-quarter:]) - statistics.median(seen[quarter : 2 * quarter] or seen)


async def soak(place: Place, url: str, tally: Tally, seed: int, seconds: float) -> dict[Any, float]:
    """Let all of it go on for so long; return the metrics at the end, when every request has ended."""
    ends_at = time.monotonic() + seconds
    clients = (ask_on(url, tally, random.Random(f"{seed}-{n}"), ends_at, n) for n in range(CLIENTS))
    await asyncio.gather(
        *clients,
        disturb(place, tally, random.Random(seed), ends_at),
        watch(url, tally, ends_at),
        return_exceptions=False,
    )
    await asyncio.sleep(1)  # what clients left is noted when the endpoint has heard of it
    return await _metrics(url)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=4)
    given = parser.parse_args()
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="soak-", dir="/tmp") as folder:
        place = Place(Path(folder), random.Random(given.seed))
        with serving(place) as (server, url):
            counted = asyncio.run(soak(place, url, tally, given.seed, given.minutes * 60))
            server.terminate()
            code = server.wait(ENDS_WITHIN_S)
        wrong = [*tally.wrong(), *differences(place, tally, counted)]
        wrong += [
            f"process {pid} is left: {_line_of(pid)}" for pid in wait_until_gone(place.processes(), GONE_WITHIN_S)
        ]
        wrong += [f"{path} is left" for path in (*place.file.parent.rglob("*.sock"),)]
    wrong += [words for words in tally.done if words.startswith(("`launch", "a broken"))]
    if code:
        wrong.append(f"the endpoint ended with {code}")
    if (grown := growth_bytes(tally.memory_bytes)) > GROWTH_BYTES:
        wrong.append(f"the endpoint's memory grew by {grown / 1e6:.1f} MB")
    _report(tally, counted, grown, wrong)
    return 1 if wrong else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _report(tally: Tally, counted: Mapping[Any, float], grown_bytes: float, wrong: list[str]) -> None:
    how = Counter(each.how for each in tally.ended)
    _say(f"{len(tally.ended):,} requests: {', '.join(f'{count:,} {name}' for name, count in sorted(how.items()))}")
    _say(f"done: {', '.join(f'{count} × {what}' for what, count in sorted(tally.done.items()))}")
    for name in ("loads", "unloads"):
        found = {
            dict(labels).get("reason", "all"): 0.0 for (each, labels) in counted if each == f"launch_model_{name}_total"
        }
        for (each, labels), value in counted.items():
            if each == f"launch_model_{name}_total":
                found[dict(labels).get("reason", "all")] += value
        _say(f"{name}: {', '.join(f'{value:.0f} {reason}' for reason, value in sorted(found.items()))}")
    memory = statistics.median(tally.memory_bytes) / 1e6
    _say(f"the endpoint's memory: {memory:.0f} MB, grown by {grown_bytes / 1e6:.1f} MB")
    for words in wrong[:40]:
        _say(f"wrong: {words}")


if __name__ == "__main__":
    sys.exit(main())
