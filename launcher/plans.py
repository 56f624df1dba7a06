"""A plan: everything that a launch will do, decided and shown before anything is done."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from engines.base import Requirements, Settings
from registry.spec import Model, Rejection, Resolution, Source, Spec
from registry.store import FileSet

if TYPE_CHECKING:
    from launcher.lockfile import LockedFile
    from launcher.planning import Request
    from registry.facts import SourceKey, WeightFacts

JSON_SCHEMA = 1


class Asked(NamedTuple):
    """What a plan answers: the model as it was named, the request, and the facts of weights that were looked up.

    Facts of None: the hub was asked, and shows them only when everything is here.
    """

    model: str
    request: Request
    facts: Mapping[SourceKey, WeightFacts | None] = {}


class File(NamedTuple):
    """A file that the launch needs, named by its path in the repo; size and hash are None where nobody vouches."""

    path: str
    size_bytes: int | None
    sha256: str | None
    cached: bool


class EnvironmentPlan(NamedTuple):
    """Where the engine will run: `origin` is `launcher`, `current`, `managed` or a path.

    `install_bytes` are fetched first: 0 where it is all here, None where nobody knows.
    """

    origin: str
    python: str
    version: str
    is_installed: bool
    install_bytes: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A resolution with its files, its engine's environment, its settings and the exact command.

    `context_length` is in tokens and is promised to each of `concurrency` requests at once. `download_bytes` counts
    what is not here yet, None where only the hub can tell. `locked_files` are what a lock file holds it to.
    """

    resolution: Resolution = field(repr=False)
    settings: Settings = field(repr=False)
    requirements: Requirements | None = field(repr=False)
    found_files: FileSet = field(repr=False)
    files: tuple[File, ...]
    download_bytes: int | None
    environment: EnvironmentPlan
    command: tuple[str, ...]
    device: str
    warnings: tuple[str, ...]
    needs_weights: bool = True
    offline: bool = False
    may_install: bool = True
    locked_files: tuple[LockedFile, ...] = ()
    asked: Asked = field(default=Asked("", {}), repr=False)

    @property
    def model(self) -> Model:
        return self.resolution.model

    @property
    def spec(self) -> Spec:
        return self.resolution.spec

    @property
    def source(self) -> Source:
        return self.resolution.source

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def engine(self) -> str:
        return self.resolution.engine

    @property
    def model_format(self) -> str:
        return self.spec.model_format

    @property
    def quantization(self) -> str:
        return self.resolution.quantization

    @property
    def size_in_billions(self) -> float:
        return self.spec.size_in_billions

    @property
    def hub(self) -> str:
        return self.source.hub

    @property
    def repo_id(self) -> str:
        return self.source.repo_for(self.quantization)

    @property
    def revision(self) -> str | None:
        return self.source.revision

    @property
    def context_length(self) -> int:
        return self.settings.context_length

    @property
    def concurrency(self) -> int:
        return self.settings.slots

    @property
    def reasons(self) -> tuple[str, ...]:
        return self.resolution.reasons

    @property
    def rejected(self) -> tuple[Rejection, ...]:
        return self.resolution.rejected

    def not_chosen(self) -> Iterator[tuple[str, str]]:
        """Yield each other engine with the reason why it does not run what was chosen."""

        def distance(each: Rejection) -> tuple[bool, bool]:
            return each.model_format != self.model_format, each.quantization != self.quantization

        ranked = sorted(self.rejected, key=distance)
        reasons: dict[str, str] = {}
        for each in ranked:
            reasons.setdefault(each.engine, each.reason)
        return ((engine, reason) for engine, reason in reasons.items() if engine != self.engine)

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain data, complete for programs that run it elsewhere."""
        names = (
            *("name", "engine", "model_format", "quantization", "size_in_billions", "hub", "repo_id", "revision"),
            *("download_bytes", "context_length", "concurrency", "device"),
        )
        return {
            "schema": JSON_SCHEMA,
            **{name: getattr(self, name) for name in names},
            "license": self.model.license,
            "threads": self.settings.threads,
            "batch_threads": self.settings.batch_threads,
            "files": [_plain(file) for file in self.files],
            "environment": _plain(self.environment),
            "command": list(self.command),
            "reasons": list(self.reasons),
            "warnings": list(self.warnings),
            "rejected": [_plain(rejection) for rejection in self.rejected],
        }

    def to_json(self) -> str:
        """Return `as_dict` as JSON text."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False)


def _plain(value: File | EnvironmentPlan | Rejection) -> Mapping[str, Any]:
    return value._asdict()
