"""Finds the catalogue's YAML files in layers, and reads them through a compiled index.

Layers, each replacing the entries of the same name before it: built-in < system < user < those asked for.
The index is JSON in the user's cache, named by the path, time and size of every file it was made from, and of those
that say what it holds: as long as none changes, neither YAML nor pydantic is imported. Its summary lists all models;
one line of its details is one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from registry.cache import cache_folder, write_atomically
from registry.errors import CatalogueError, UnknownModelError
from registry.spec import Model

if TYPE_CHECKING:
    from difflib import SequenceMatcher

_INDEXES_KEPT = 8
_NEAR_ENOUGH = 0.7
_MEANING = tuple(
    Path(__file__).with_name(f"{name}.py") for name in ("catalogue", "schema", "spec", "yaml_document", "yaml_file")
)
_BUILT_IN = Path(__file__).parent / "models"
_SYSTEM = Path("/etc/model-launcher/registry")


class Summary(NamedTuple):
    """What lists need of a model; `offset` and `length` find its details."""

    name: str
    family: str
    aliases: tuple[str, ...]
    abilities: tuple[str, ...]
    license: str | None
    context_length: int | None
    specs: tuple[SpecSummary, ...]
    offset: int
    length: int

    @property
    def formats(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(spec.model_format for spec in self.specs))


class SpecSummary(NamedTuple):
    """A spec in one line of a list."""

    model_format: str
    size_in_billions: float
    quantizations: tuple[str, ...]


class Found(NamedTuple):
    """A model, and what the name that found it says besides: a repo id implies its format and hub."""

    model: Model
    model_format: str | None = None
    hub: str | None = None
    quantization: str | None = None


class Catalogue:
    """All models known; details are read one by one."""

    def __init__(
        self, summary: Mapping[str, Any], details: bytes | Path, recompile: Callable[[], Catalogue] | None = None
    ) -> None:
        self._details = details
        self._recompile = recompile
        self._names: Mapping[str, Mapping[str, Any]] = summary["names"]
        self.models = tuple(_summary_from_json(model) for model in summary["models"])

    def find(self, name: str) -> Found:
        """Return the model that `name` means: its name, an alias, or a repo id, the last also with `:QUANTIZATION`.

        Case does not matter. Raises UnknownModelError with the nearest names.
        """
        bare, _, quantization = name.partition(":")
        entry = self._names.get(bare.strip().lower())
        if entry is None or name.endswith(":"):
            raise self._unknown(name)
        return Found(
            model=self.read(self.models[entry["model"]]),
            model_format=entry.get("format"),
            hub=entry.get("hub"),
            quantization=quantization or entry.get("quantization"),
        )

    def read(self, summary: Summary) -> Model:
        """Return the details of one model; an index that was damaged or cleaned away is made anew."""
        try:
            return Model.from_json(json.loads(self._line_of(summary)))
        except (OSError, ValueError):
            if self._recompile is None:
                raise
        fresh = self._recompile()
        return fresh.find(summary.name).model

    def _line_of(self, summary: Summary) -> bytes:
        if isinstance(self._details, bytes):
            return self._details[summary.offset : summary.offset + summary.length]
        with self._details.open("rb") as file:
            file.seek(summary.offset)
            return file.read(summary.length)

    def siblings(self, model: Model) -> tuple[str, ...]:
        """Return the names of the other models of the same family."""
        return tuple(m.name for m in self.models if m.family == model.family and m.family and m.name != model.name)

    def _unknown(self, name: str) -> UnknownModelError:
        suggestions = self._near(name.lower()) if name else []
        hint = f"did you mean `{suggestions[0]}`?" if suggestions else "launch list"
        return UnknownModelError(f"No model is called `{name}`", name=name, suggestions=suggestions, hint=hint)

    def _near(self, name: str) -> list[str]:
        """Return up to three models whose name, or its beginning, is nearly what was typed."""
        from difflib import SequenceMatcher

        def likeness(known: str) -> float:
            matcher = SequenceMatcher(b=name)
            return max(_ratio(matcher, known), _ratio(matcher, known[: len(name)]))

        names = {
            key: self.models[entry["model"]].name for key, entry in self._names.items() if ("/" in key) == ("/" in name)
        }
        ranked = sorted(((likeness(key), own) for key, own in names.items()), reverse=True)
        return list(dict.fromkeys(own for score, own in ranked if score >= _NEAR_ENOUGH))[:3]


def _ratio(matcher: SequenceMatcher[str], text: str) -> float:
    matcher.set_seq1(text)
    return matcher.ratio()


def read_layers(registry: Path | Sequence[Path]) -> Catalogue:
    """Return the catalogue with one layer, or several, over those that are always there."""
    return read_catalogue((Path(registry),) if isinstance(registry, str | Path) else registry)


def read_catalogue(extra_layers: Sequence[Path] = (), *, environ: Mapping[str, str] = os.environ) -> Catalogue:
    """Return the merged catalogue; raises SchemaError for a wrong file, CatalogueError for a missing layer."""
    files = [file for layer in _layers(extra_layers, environ) for file in _layer_files(layer)]
    folder = cache_folder(environ) / "index"
    key = _digest([*_MEANING, *files])

    def compile_anew() -> Catalogue:
        return _compile(files, folder, key)

    return _read_index(folder, key, compile_anew) or compile_anew()


def _read_index(folder: Path, key: str, recompile: Callable[[], Catalogue]) -> Catalogue | None:
    """Return the catalogue of an index, or None where there is no sound one."""
    details = folder / f"{key}.jsonl"
    try:
        summary = json.loads((folder / f"{key}.json").read_bytes())
        if details.stat().st_size == summary["details_bytes"]:
            return Catalogue(summary, details, recompile)
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return None


def _digest(files: Sequence[Path]) -> str:
    from hashlib import sha256

    stamps = [(str(file.absolute()), (stat := file.stat()).st_mtime_ns, stat.st_size) for file in files]
    return sha256(json.dumps(stamps).encode()).hexdigest()[:16]


def _layers(extra: Sequence[Path], environ: Mapping[str, str]) -> list[Path]:
    configuration = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    optional = [_SYSTEM, configuration / "model-launcher" / "registry"]
    named = [Path(part).expanduser() for part in environ.get("LAUNCH_REGISTRY", "").split(os.pathsep) if part]
    for layer in (*named, *extra):
        if not layer.exists():
            raise CatalogueError(f"There is no registry at `{layer}`", hint="give --registry a YAML file or a folder")
    return [_BUILT_IN, *(layer for layer in optional if layer.exists()), *named, *extra]


def _layer_files(layer: Path) -> list[Path]:
    if layer.is_file():
        return [layer]
    return sorted(path for path in layer.rglob("*") if path.suffix in (".yaml", ".yml") and path.is_file())


def _compile(files: Sequence[Path], folder: Path, key: str) -> Catalogue:
    from registry.yaml_file import read_entries

    entries = {entry["name"].lower(): entry for file in files for entry in read_entries(file)}
    lines = [json.dumps(entry, ensure_ascii=False).encode() + b"\n" for _, entry in sorted(entries.items())]
    details = b"".join(lines)
    summary = {"details_bytes": len(details), **_summarise([json.loads(line) for line in lines], lines)}
    with suppress(OSError):  # a cache that cannot be written costs time, not the answer
        _write_index(folder, key, summary, details)
    return Catalogue(json.loads(json.dumps(summary)), details)


def _write_index(folder: Path, key: str, summary: Mapping[str, Any], details: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{key}.jsonl", details)
    write_atomically(folder / f"{key}.json", json.dumps(summary, separators=(",", ":")).encode())
    for old in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)[:-_INDEXES_KEPT]:
        old.with_suffix(".jsonl").unlink(missing_ok=True)
        old.unlink(missing_ok=True)


def _summarise(entries: Sequence[Mapping[str, Any]], lines: Sequence[bytes]) -> dict[str, Any]:
    models, offset = [], 0
    for entry, line in zip(entries, lines, strict=True):
        models.append({**_summary_of(entry), "offset": offset, "length": len(line)})
        offset += len(line)
    names: dict[str, dict[str, Any]] = {}
    for index, entry in enumerate(entries):
        for name, implied in _names_of(entry):
            names.setdefault(name.lower(), {"model": index, **implied})
    names.update({entry["name"].lower(): {"model": index} for index, entry in enumerate(entries)})
    return {"models": models, "names": names}


def _summary_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("name", "family", "aliases", "abilities", "license", "context_length")
    specs = [[spec["format"], spec["size_in_billions"], spec["quantizations"]] for spec in entry["specs"]]
    return {**{key: entry[key] for key in kept if key in entry}, "specs": specs}


def _names_of(entry: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every name of an entry, and what it implies: a repo id one format and hub, maybe one quantization."""
    yield from ((alias, {}) for alias in entry.get("aliases", ()))
    for spec in entry["specs"]:
        for hub, source in spec.get("sources", {}).items():
            if hub == "url":  # an address is nobody's name
                continue
            implied = {"format": spec["format"], "hub": hub}
            if "{quantization}" not in source["repo_id"]:
                yield source["repo_id"], implied
                continue
            for quantization in source.get("quantizations") or spec["quantizations"]:
                yield (
                    source["repo_id"].replace("{quantization}", quantization),
                    implied | {"quantization": quantization},
                )


def _summary_from_json(data: Mapping[str, Any]) -> Summary:
    return Summary(
        name=data["name"],
        family=data.get("family", ""),
        aliases=tuple(data.get("aliases", ())),
        abilities=tuple(data.get("abilities", ())),
        license=data.get("license"),
        context_length=data.get("context_length"),
        specs=tuple(SpecSummary(f, size, tuple(quantizations)) for f, size, quantizations in data["specs"]),
        offset=data["offset"],
        length=data["length"],
    )
