"""Which files of a repo a spec needs, and which names must never be written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from registry.errors import NotOnHubError, UnsafeFileError
from registry.parts import is_part, one_set
from registry.spec import Source, Spec

MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 200  # of the 255 that file systems allow: a download in progress has a longer name

# What engines read beside the weights. Never *.bin, *.pt, *.pth, *.pkl (pickles run code), nor *.py, *.h5, *.msgpack.
_COMPANIONS = (
    "config.json",
    "*_config.json",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer.model.v*",
    "tekken.json",
    "spiece.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "*.jinja",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.tiktoken",
    "params.json",
)
# Mistral AI's own layout: mistral-inference reads it, and vLLM.
_MISTRAL_COMPANIONS = (
    "params.json",
    "tokenizer.model",
    "tokenizer.model.v*",
    "tekken.json",
    "consolidated.safetensors.index.json",
)
_CODE = ("*.py",)  # only where the user trusts it
_SAFE = "choose a source with safetensors or GGUF files"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


def select_files(spec: Spec, source: Source, quantization: str, paths: Sequence[str]) -> tuple[str, ...]:
    """Return which of a repo's `paths` an engine needs, weights in loading order first.

    Raises UnsafeFileError for a hostile name or a repo with pickled weights only, NotOnHubError for what is missing.
    """
    for path in paths:
        check_path(path)
    repo_id = source.repo_for(quantization)
    named = source.file_names(quantization)
    if named:
        return _require(named, paths, repo_id)
    if spec.model_format == "gguf":
        return _gguf_files(quantization, paths, repo_id)
    if spec.model_format == "mistral":
        return _mistral_files(paths, repo_id)
    return _folder_files(source, paths, repo_id)


def check_path(path: str) -> None:
    """Raise UnsafeFileError unless `path` stays inside the folder that it is written to, on every system."""
    parts = path.split("/")
    safe = (
        path.isprintable()
        and "\\" not in path
        and not re.match(r"[A-Za-z]:", path)
        and not any(part in ("", ".", "..") for part in parts)
        and all(len(part.encode(errors="replace")) <= MAX_NAME_BYTES for part in parts)
        and len(path.encode(errors="replace")) <= MAX_PATH_BYTES
    )
    if not safe:
        raise UnsafeFileError(
            f"A file named `{path[:80]!a}` in a listing would be written outside its folder, or cannot be written",
            hint="the hub, or something between it and this machine, is not to be trusted",
        )


def _require(named: Sequence[str], paths: Sequence[str], repo_id: str) -> tuple[str, ...]:
    for name in named:
        check_path(name)
        if is_unsafe(name):
            raise UnsafeFileError(f"`{name}` of `{repo_id}` can run code when it is loaded", hint=_SAFE)
        if name not in paths:
            import difflib

            near = difflib.get_close_matches(name, paths, n=3, cutoff=0.5)
            raise NotOnHubError(
                f"`{repo_id}` has no file `{name}`",
                details=[f"it has `{path}`" for path in near],
                hint="launch list shows the quantizations that are known",
            )
    return tuple(named)


def _gguf_files(quantization: str, paths: Iterable[str], repo_id: str) -> tuple[str, ...]:
    """Return the file of a quantization, or its parts, where no template names it."""
    weights = sorted(path for path in paths if path.lower().endswith(".gguf") and "mmproj" not in path.lower())
    label = re.compile(rf"(?<![a-z0-9]){re.escape(quantization.lower())}(?![a-z0-9_])")
    found = tuple(path for path in weights if label.search(path.lower()))
    if not found and len(weights) == 1:
        return (weights[0],)
    if not found:
        raise NotOnHubError(f"`{repo_id}` has no GGUF file for `{quantization}`", details=weights[:12])
    return one_set(found, repo_id)


def _folder_files(source: Source, paths: Sequence[str], repo_id: str) -> tuple[str, ...]:
    kept = [path for path in paths if not any(fnmatchcase(path, pattern) for pattern in source.exclude)]
    # Weights in sub-folders are the same ones for other programs: `original/`, `onnx/`, `metal/`.
    top = sorted(path for path in kept if "/" not in path)
    weights = [path for path in top if path.endswith(".safetensors")]
    loaded = [path for path in weights if not path.startswith("consolidated")]
    if not weights:
        raise _no_weights(kept, repo_id)
    wanted = (*_COMPANIONS, *_CODE) if source.with_code else _COMPANIONS
    companions = [path for path in top if any(fnmatchcase(path, pattern) for pattern in wanted)]
    if loaded:
        companions = [path for path in companions if not path.startswith(("consolidated", "params.json"))]
    chosen = _tensor_files(loaded or weights, repo_id)
    if len(chosen) == 1:  # an index would send engines for the parts of another set
        companions = [path for path in companions if not path.endswith(".index.json")]
    return (*chosen, *companions)


def _tensor_files(weights: Sequence[str], repo_id: str) -> tuple[str, ...]:
    """Return one set of weights; files without numbers may belong together, by an index."""
    if "model.safetensors" in weights:
        return ("model.safetensors",)
    numbered = [path for path in weights if is_part(path)]
    return one_set(numbered, repo_id) if numbered else tuple(weights)


def _mistral_files(paths: Sequence[str], repo_id: str) -> tuple[str, ...]:
    weights = sorted(path for path in paths if fnmatchcase(path, "consolidated*.safetensors") and "/" not in path)
    if not weights:
        raise _no_weights([path for path in paths if not path.endswith(".safetensors")], repo_id)
    if "params.json" not in paths:
        raise NotOnHubError(f"`{repo_id}` has no `params.json`, which Mistral's own layout has beside the weights")
    companions = [path for path in paths if any(fnmatchcase(path, pattern) for pattern in _MISTRAL_COMPANIONS)]
    return (*one_set(weights, repo_id), *sorted(companions))


def is_unsafe(path: str) -> bool:
    """Return whether a file can run code when it is loaded: pickles, and Python itself."""
    return any(fnmatchcase(path.lower(), pattern) for pattern in (*_PICKLES, *_CODE))


def _no_weights(paths: Iterable[str], repo_id: str) -> UnsafeFileError | NotOnHubError:
    pickles = [path for path in paths if any(fnmatchcase(path.lower(), pattern) for pattern in _PICKLES)]
    if not pickles:
        return NotOnHubError(f"`{repo_id}` has no safetensors files")
    return UnsafeFileError(
        f"`{repo_id}` has pickled weights only, which can run code when they are loaded",
        details=pickles[:5],
        hint=_SAFE,
    )
