"""What the endpoint counts, in Prometheus' text form, with the engines' own numbers beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from launcher.gateway.records import Record
from launcher.memory import bytes_below, own_bytes

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DURATION = "From a request's arrival to the end of its answer."
FIRST_TOKEN = "From a request's arrival to the first token of its answer."
# From a cached prompt's first token on a GPU to an answer of many minutes on a CPU.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class EngineState(NamedTuple):
    """One engine at the moment of asking; `text` are its own metrics, "" where it has none or is not there."""

    model: str
    is_up: bool
    running: int
    waiting: int
    pid: int | None
    text: str


class Metrics:
    """Counts requests as they end; `render` adds what is true at the moment."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("launch_requests", "Requests that ended.", "route", "model", "status")
        self._duration = self._seconds("launch_request_duration_seconds", DURATION, "route", "model")
        self._first_token = self._seconds("launch_time_to_first_token_seconds", FIRST_TOKEN, "model")
        self._queued = self._seconds("launch_queue_time_seconds", "How long requests waited for a slot.", "model")
        self._prompt_tokens = self._counter("launch_prompt_tokens", "Tokens that went in.", "model")
        self._completion_tokens = self._counter("launch_completion_tokens", "Tokens that came out.", "model")
        self._loads = self._counter("launch_model_loads", "Engines that became ready.", "model")
        self._load_seconds = self._seconds("launch_model_load_seconds", "How long engines took to be ready.", "model")
        self._unloads = self._counter("launch_model_unloads", "Engines that were ended in order.", "model", "reason")
        self._restarts = self._counter("launch_engine_restarts", "Engines started again after a crash.", "model")

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self._registry)

    def _seconds(self, name: str, meaning: str, *labels: str) -> Histogram:
        return Histogram(name, meaning, labels, registry=self._registry, buckets=SECONDS)

    def count(self, record: Record) -> None:
        """Count a request that has ended."""
        model = record.model or ""
        self._requests.labels(record.route, model, str(record.status)).inc()
        if record.model is None:
            return
        self._duration.labels(record.route, model).observe(record.total_s)
        if record.queued_s is not None:
            self._queued.labels(model).observe(record.queued_s)
        if record.first_token_s is not None:
            self._first_token.labels(model).observe(record.first_token_s)
        self._prompt_tokens.labels(model).inc(record.prompt_tokens or 0)
        self._completion_tokens.labels(model).inc(record.completion_tokens or 0)

    def count_load(self, model: str, seconds: float) -> None:
        """Count an engine that is ready after so long."""
        self._loads.labels(model).inc()
        self._load_seconds.labels(model).observe(seconds)

    def count_unload(self, model: str, reason: str) -> None:
        """Count an engine that was ended in order."""
        self._unloads.labels(model, reason).inc()

    def count_restart(self, model: str) -> None:
        """Count an engine that crashed and is started again."""
        self._restarts.labels(model).inc()

    def render(self, engines: Sequence[EngineState]) -> bytes:
        """Return the text; it takes milliseconds for engines that say much."""
        momentary = CollectorRegistry()
        momentary.register(_Momentary([*_gauges(engines), *_relabelled(engines)]))
        return generate_latest(self._registry) + generate_latest(momentary)


class _Momentary:
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _gauges(engines: Sequence[EngineState]) -> Iterator[Metric]:
    up = GaugeMetricFamily("launch_engine_up", "1 if the engine answers.", labels=["model"])
    running = GaugeMetricFamily("launch_requests_running", "Requests at the engine.", labels=["model"])
    waiting = GaugeMetricFamily("launch_requests_waiting", "Requests that wait for a slot.", labels=["model"])
    memory = GaugeMetricFamily(
        "launch_resident_memory_bytes", "Resident memory of the endpoint and of each engine.", labels=["part", "model"]
    )
    memory.add_metric(["endpoint", ""], own_bytes())
    for engine in engines:
        up.add_metric([engine.model], engine.is_up)
        running.add_metric([engine.model], engine.running)
        waiting.add_metric([engine.model], engine.waiting)
        if engine.pid is not None:
            memory.add_metric(["engine", engine.model], bytes_below(engine.pid))
    yield from (up, running, waiting, memory)


def _relabelled(engines: Sequence[EngineState]) -> Iterable[Metric]:
    """Return what engines say of themselves, each sample with its model; families that they share are one."""
    families: dict[str, Metric] = {}
    for engine in engines:
        for family in text_string_to_metric_families(engine.text):
            known = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            known.samples += [_with_model(sample, engine.model) for sample in family.samples]
    return families.values()


def _with_model(sample: Sample, model: str) -> Sample:
    labels: Mapping[str, str] = {**sample.labels, "model": model}
    return sample._replace(labels=dict(labels), timestamp=None, exemplar=None)
