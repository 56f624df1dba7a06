"""Reads `launch.yaml`: what an endpoint serves, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from engines.environment import is_version
from registry.errors import CatalogueError, SchemaError
from registry.local_model import is_path

if TYPE_CHECKING:
    from pydantic import BaseModel

    from launcher.planning import Request
    from launcher.serve_schema import ServedEntry, ServeFileEntry
    from registry.catalogue import Catalogue
    from registry.yaml_document import Document, Key

# Options whose value is a file, relative to the folder of `launch.yaml`.
_FILES = ("api_key_file", "tls_cert", "tls_key", "locked")


class ServedModel(NamedTuple):
    """A model that an endpoint serves, and how.

    `aliases` are those that it has besides the catalogue's; `request` is merged from the file's defaults and its own
    words. Without `keep_s` it stays until its memory is needed, without `max_queue` the endpoint's own holds.
    """

    name: str
    model: str
    aliases: tuple[str, ...]
    request: Request
    load: Literal["start", "demand"]
    keep_s: float | None
    is_pinned: bool
    max_queue: int | None


class ServeFile(NamedTuple):
    """What a `launch.yaml` says.

    `options` are those of `launch serve` itself, by their names in Python and as the command line takes them, so that
    they may stand in for its defaults.
    """

    path: Path
    options: Mapping[str, object]
    models: tuple[ServedModel, ...]


def read_serve_file(path: Path) -> ServeFile:
    """Return what a file says, each model with the catalogue's own name unless it has another.

    Raises SchemaError with file, line and key, CatalogueError for a file or a layer that cannot be read.
    """
    from launcher.serve_schema import EndpointOptions, ServeFileEntry, json_schema, keys_of
    from registry.yaml_file import check_own_entries

    document = _read_document(path)
    check_own_entries(document)
    entry = document.validated(ServeFileEntry.model_validate, json_schema)
    defaults = _given(entry.defaults, _folder_of(document))
    names = {name: key.replace("-", "_") for key, name in keys_of(EndpointOptions).items()}
    options = {names[name]: value for name, value in defaults.items() if name in names and value is not None}
    return ServeFile(path, options, tuple(_models(document, entry, defaults)))


def _read_document(path: Path) -> Document:
    from registry.yaml_document import read_documents

    documents = read_documents(path, _spell)
    if not documents:
        raise SchemaError(f"{path}:1 is empty: `models` is missing", file=str(path), line=1, key="models")
    if len(documents) > 1:
        raise documents[1].error("begins a second document, where everything stands in one", ())
    return documents[0]


def _folder_of(document: Document) -> Path:
    return Path(document.file).parent.absolute()


def _spell(key: Key, name: str) -> str:
    """Return an option's name with hyphens, whichever the file has."""
    is_option = key == ("defaults",) or (len(key) == 2 and key[0] == "models")
    return name.replace("_", "-") if is_option else name


def _given(options: BaseModel | None, folder: Path) -> dict[str, Any]:
    """Return the options that are said, with paths from the file's folder; None takes a default back."""
    if options is None:
        return {}
    said = [name for name in type(options).model_fields if name in options.model_fields_set]
    return {name: _placed(name, getattr(options, name), folder) for name in said}


def _placed(name: str, value: Any, folder: Path) -> Any:
    if value is None or not _is_file(name, value):
        return value
    return str(folder / Path(value).expanduser())


def _is_file(name: str, value: str) -> bool:
    match name:
        case "access_log":
            return value not in ("on", "off")
        case "model":
            return is_path(value)
        case "environment":
            return value not in ("auto", "current", "managed") and not is_version(value)
    return name in _FILES


def _models(document: Document, entry: ServeFileEntry, defaults: Mapping[str, Any]) -> Iterator[ServedModel]:
    """Yield the models; raises SchemaError for one that there is not, or that would answer to another's name."""
    from registry.catalogue import read_layers

    folder, layers = _folder_of(document), _layers(document, entry)
    catalogue = read_layers(layers)
    taken: dict[str, Key] = {}
    for index, served in enumerate(entry.models):
        key = ("models", index)
        own = _given(served, folder)
        found = _own_name(document, (*key, "model"), own["model"], catalogue)
        name = served.name or found
        _take(document, taken, name, (*key, "name" if served.name else "model"))
        for number, alias in enumerate(served.aliases):
            _take(document, taken, alias, (*key, "aliases", number))
        yield _served_model(name, served, defaults, own, layers)


def _layers(document: Document, entry: ServeFileEntry) -> tuple[Path, ...]:
    """Return the layers that the file names, and after them the file itself for its own entries."""
    folder = _folder_of(document)
    layers = []
    for index, layer in enumerate(entry.registry or ()):
        if isinstance(layer, str):
            layers.append(folder / Path(layer).expanduser())
            if not layers[-1].exists():
                raise document.error(f"names no file or folder: `{layers[-1]}`", ("registry", index))
    has_entries = any(not isinstance(layer, str) for layer in entry.registry or ())
    return (*layers, Path(document.file).absolute()) if has_entries else tuple(layers)


def _own_name(document: Document, key: Key, model: str, catalogue: Catalogue) -> str:
    """Return what the catalogue, or its file, calls a model."""
    from launcher.planning import find_model

    try:
        return find_model(model, catalogue).model.name
    except SchemaError:
        raise
    except CatalogueError as error:
        cause = error.message[0].lower() + error.message[1:]
        raise document.error(f"cannot be served: {cause}", key, hint=error.hint) from error


def _take(document: Document, taken: dict[str, Key], name: str, key: Key) -> None:
    """Note that a name is taken; raises SchemaError where another model has it."""
    first = taken.setdefault(name.lower(), key)
    if first[:2] != key[:2]:
        line = document.line_of(first)
        hint = "give one of them another `name`"
        raise document.error(f"would answer to `{name}`, as does that of line {line}", key, hint=hint)


def _served_model(
    name: str, served: ServedEntry, defaults: Mapping[str, Any], own: Mapping[str, Any], layers: tuple[Path, ...]
) -> ServedModel:
    from launcher.quantities import parse_time_s

    merged = {name: value for name, value in {**defaults, **own}.items() if value is not None}
    return ServedModel(
        name=name,
        model=merged["model"],
        aliases=tuple(served.aliases),
        request=_request(merged, layers),
        load=merged.get("load", "demand"),
        keep_s=parse_time_s(merged["keep"]) if "keep" in merged else None,
        is_pinned=merged.get("pinned", False),
        max_queue=served.max_queue,
    )


def _request(merged: Mapping[str, Any], layers: tuple[Path, ...]) -> Request:
    """Return the words of a plan's request among the options."""
    from launcher.planning import Request
    from launcher.quantities import parse_context

    words = {name: value for name, value in merged.items() if name in Request.__annotations__}
    if "context_length" in words:
        words["context_length"] = parse_context(words["context_length"])
    if "no_install" in merged:
        words["install"] = not merged["no_install"]
    if layers:
        words["registry"] = layers
    return cast("Request", words)
