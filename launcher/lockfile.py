"""`launch.lock`: what was chosen, file by file, written so that people can read it and Git can compare it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from registry.cache import write_atomically
from registry.digest import Digest
from registry.errors import LaunchError, LockError
from registry.selection import check_path
from registry.spec import PinnedFile

T = TypeVar("T")

DEFAULT_PATH = Path("launch.lock")
SCHEMA = 1
_HEADER = """\
# What `launch --locked` runs: these files, this engine, these options, or nothing.
# Written by `launch lock`; commit it, and let `launch lock` change it.
"""
_DIGESTS = {"sha256": "sha256", "git_sha1": "git-sha1", "md5": "md5"}
_HEX_DIGITS = {"sha256": 64, "git-sha1": 40, "md5": 32}


class LockedFile(NamedTuple):
    """A file by its path in the repo; without a digest where that of the archive it comes in is the revision."""

    path: str
    size_bytes: int
    digest: Digest | None

    def pin(self) -> PinnedFile:
        """Return what the catalogue would say of it."""
        values = {} if self.digest is None else {str(self.digest.kind): self.digest.value}
        return PinnedFile(self.size_bytes, sha256=values.get("sha256"), md5=values.get("md5"))


class LockedEngine(NamedTuple):
    """An engine, and the lock of its environment with the version that it gives; None where it needs none."""

    name: str
    environment: str | None = None
    environment_sha256: str | None = None
    version: str | None = None


class LockedOptions(NamedTuple):
    """How the engine runs; `threads` and `dtype` of None are the machine's own choice."""

    context_length: int
    concurrency: int
    threads: int | None = None
    engine_args: tuple[str, ...] = ()
    dtype: str | None = None


class Locked(NamedTuple):
    """One model of the file. `revision` is a commit or version, None where each file has a checksum and no more.

    `reference` is the branch or tag that was asked for, where one was.
    """

    model: str
    model_format: str
    size_in_billions: float
    quantization: str
    hub: str
    repo_id: str
    revision: str | None
    files: tuple[LockedFile, ...]
    engine: LockedEngine
    options: LockedOptions
    reference: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as YAML and JSON have it: what is None is left out."""
        return {
            "model": self.model,
            "format": self.model_format,
            "size_in_billions": self.size_in_billions,
            "quantization": self.quantization,
            "hub": self.hub,
            "repo_id": self.repo_id,
            **_without_none({"revision": self.revision, "reference": self.reference}),
            "files": [_file_as_dict(file) for file in self.files],
            "engine": _without_none(self.engine._asdict()),
            "options": {**_without_none(self.options._asdict()), "engine_args": list(self.options.engine_args)},
        }


def read_lock(path: Path) -> tuple[Locked, ...]:
    """Return the entries of a lock file; raises LockError for one that cannot be read, or says what makes no sense."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LockError(f"There is no `{path}`", hint="launch lock NAME") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LockError(f"`{path}` cannot be read", details=str(error).splitlines()) from error
    try:
        return _entries_of(content)
    except (LookupError, TypeError, ValueError, AttributeError, LaunchError) as error:
        raise _senseless(path, error) from error


def write_lock(path: Path, entries: Sequence[Locked]) -> None:
    """Write a lock file, its entries by name; the same entries give the same bytes."""
    import yaml

    ordered = sorted(entries, key=lambda entry: entry.model)
    content = {"schema": SCHEMA, "models": [entry.as_dict() for entry in ordered]}
    text = yaml.safe_dump(content, sort_keys=False, width=1000)
    try:
        write_atomically(path.absolute(), (_HEADER + text).encode())
    except OSError as error:
        raise LockError(f"`{path}` cannot be written: {error.strerror}") from error


def _senseless(path: Path, error: Exception) -> LockError:
    missing = isinstance(error, KeyError)
    what = f"it has no `{error.args[0]}` where one belongs" if missing else str(error)
    return LockError(f"`{path}` makes no sense", details=[what], hint="let `launch lock NAME` write it anew")


def _entries_of(content: Any) -> tuple[Locked, ...]:
    if content["schema"] != SCHEMA:
        raise ValueError(f"it is of schema {content['schema']}, this version reads {SCHEMA}")
    entries = tuple(_entry(data) for data in content["models"])
    names = [entry.model for entry in entries]
    if len(set(names)) < len(names):
        raise ValueError("it has a model twice")
    return entries


def _entry(data: Mapping[str, Any]) -> Locked:
    return Locked(
        model=_text(data["model"]),
        model_format=_text(data["format"]),
        size_in_billions=float(data["size_in_billions"]),
        quantization=_text(data["quantization"]),
        hub=_text(data["hub"]),
        repo_id=_text(data["repo_id"]),
        revision=_optional(_text, data.get("revision")),
        files=tuple(_file(file) for file in data["files"]),
        engine=_engine(data["engine"]),
        options=_options(data["options"]),
        reference=_optional(_text, data.get("reference")),
    )


def _engine(data: Mapping[str, Any]) -> LockedEngine:
    others = (_optional(_text, data.get(name)) for name in LockedEngine._fields[1:])
    return LockedEngine(_text(data["name"]), *others)


def _options(data: Mapping[str, Any]) -> LockedOptions:
    return LockedOptions(
        context_length=_count(data["context_length"]),
        concurrency=_count(data["concurrency"]),
        threads=_optional(_count, data.get("threads")),
        engine_args=tuple(_text(argument) for argument in data.get("engine_args", ())),
        dtype=_optional(_text, data.get("dtype")),
    )


def _file(data: Mapping[str, Any]) -> LockedFile:
    path = _text(data["path"])
    check_path(path)
    digests = [_digest(kind, data[name]) for name, kind in _DIGESTS.items() if name in data]
    return LockedFile(path, _count(data["size_bytes"], least=0), digests[0] if digests else None)


def _digest(kind: Any, value: Any) -> Digest:
    if not re.fullmatch(rf"[0-9a-f]{{{_HEX_DIGITS[kind]}}}", _text(value)):
        raise ValueError(f"`{value}` is not a {kind}")
    return Digest(kind, value)


def _file_as_dict(file: LockedFile) -> dict[str, Any]:
    names = {kind: name for name, kind in _DIGESTS.items()}
    digest = {} if file.digest is None else {names[file.digest.kind]: file.digest.value}
    return {"path": file.path, "size_bytes": file.size_bytes, **digest}


def _without_none(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}


def _optional(read: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else read(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"`{value}` is not text: put it in quotes")
    return value


def _count(value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"`{value}` is not a whole number of at least {least}")
    return value
