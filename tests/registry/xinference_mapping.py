"""Maps a family of Xinference's registry into our schema, naming every key that has no place there."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_FAMILIES = Path(__file__).parent / "data" / "xinference_families.json.gz"

# Their keys that have no place in ours, and why.
DROPPED_KEYS = {
    "version": "the version of their schema, 2 everywhere",
    "featured": "a flag of their web page",
    "is_built_in": "stray; the layer that an entry is read from says it",
    "prompt_style": "stray; left from their first schema, where chat templates were named",
    "virtualenv.extra_index_url": "the user's own index settings hold",
    "virtualenv.index_strategy": "the user's own index settings hold",
}

# Their packages that are no packages: each engine's environment is made from its own lock file.
DROPPED_PACKAGES = re.compile(r"#?(system_\w+|\w+_dependencies)#?")

# Conditions on packages that PEP 508 does not know; the engine's lock file chooses builds by the machine.
DROPPED_CONDITIONS = re.compile(r'cuda_version == "[0-9.]+"')

# Repo ids that no hub can have, with what the same spec says elsewhere.
MALFORMED_REPO_IDS = {
    "mlx-community/Qwen/Qwen3-235B-A22B-{quantization}": "mlx-community/Qwen3-235B-A22B-{quantization}",
}

# Their words for patterns of files to leave out, by hub.
_IGNORED = {"huggingface": "ignore_patterns", "modelscope": "ignore_file_pattern"}
_ENGINES = {"vllm": "vllm", "Transformers": "transformers", "llama.cpp": "llama.cpp", "sglang": "sglang", "MLX": "mlx"}
_ENGINE_CONDITION = re.compile(r'#engine# == "([^"]+)"')


@dataclass
class Dropped:
    """What had no place, with how often each came."""

    keys: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)
    repo_ids: list[str] = field(default_factory=list)


def read_families() -> list[dict[str, Any]]:
    """Return their families as they write them, without descriptions and templates."""
    families: list[dict[str, Any]] = json.loads(gzip.decompress(_FAMILIES.read_bytes()))
    return families


def map_family(family: Mapping[str, Any], dropped: Dropped) -> dict[str, Any]:
    """Return our YAML's data for one family; what has no place is added to `dropped`."""
    theirs = dict(family)
    ignored = theirs.pop("cache_config", {})
    abilities = theirs.pop("model_ability")
    entry = {
        "name": theirs.pop("model_name"),
        "description": theirs.pop("model_description"),
        "context_length": theirs.pop("context_length"),
        "languages": theirs.pop("model_lang"),
        "abilities": [ability for ability in abilities if ability != "hybrid"],
        "updated": datetime.fromtimestamp(theirs.pop("updated_at"), UTC).date().isoformat(),
        "architecture": _architecture(theirs),
        "chat": _chat(theirs, is_hybrid="hybrid" in abilities),
        "engine_packages": _packages(theirs.pop("virtualenv"), dropped),
        "specs": [_spec(spec, ignored, dropped) for spec in theirs.pop("model_specs")],
    }
    dropped.keys += theirs
    return entry


def _architecture(theirs: dict[str, Any]) -> dict[str, Any]:
    return {"class_names": theirs.pop("architectures"), "model_type": theirs.pop("model_type", None)}


def _chat(theirs: dict[str, Any], *, is_hybrid: bool) -> dict[str, Any]:
    reasoning = {
        "start": theirs.pop("reasoning_start_tag", None),
        "end": theirs.pop("reasoning_end_tag", None),
        "hybrid": is_hybrid,
    }
    return {
        "template": theirs.pop("chat_template", "") or None,
        "stop": theirs.pop("stop", []),
        "stop_token_ids": theirs.pop("stop_token_ids", []),
        "tool_calls": theirs.pop("tool_parser", None),
        "reasoning": reasoning if any(reasoning.values()) else None,
    }


def _spec(spec: Mapping[str, Any], ignored: Mapping[str, list[str]], dropped: Dropped) -> dict[str, Any]:
    theirs = dict(spec)
    ours = {
        "format": theirs.pop("model_format"),
        "size_in_billions": theirs.pop("model_size_in_billions"),
        "activated_size_in_billions": theirs.pop("activated_size_in_billions", None),
        "quantizations": theirs.pop("quantizations", []),
        "sources": {
            hub: _source(source, ignored.get(_IGNORED.get(hub, ""), []), dropped)
            for hub, source in theirs.pop("model_src").items()
        },
    }
    dropped.keys += [f"model_specs.{key}" for key in theirs]
    return ours


def _source(source: Mapping[str, Any], ignored: list[str], dropped: Dropped) -> dict[str, Any]:
    theirs = dict(source)
    repo_id = theirs.pop("model_id")
    if repo_id in MALFORMED_REPO_IDS:
        dropped.repo_ids.append(repo_id)
    ours = {
        "repo_id": MALFORMED_REPO_IDS.get(repo_id, repo_id),
        "revision": theirs.pop("model_revision", None),
        "quantizations": theirs.pop("quantizations"),
        "file": theirs.pop("model_file_name_template", "") or None,
        "part_file": theirs.pop("model_file_name_split_template", None),
        "parts": theirs.pop("quantization_parts", {}),
        "projectors": theirs.pop("multimodal_projectors", []),
        "exclude": ignored,
        "draft": _draft(theirs),
    }
    dropped.keys += [f"model_src.{key}" for key in theirs]
    return ours


def _draft(theirs: dict[str, Any]) -> dict[str, Any] | None:
    repo_id = theirs.pop("draft_model_id", None)
    if repo_id is None:
        return None
    return {
        "repo_id": repo_id,
        "file": theirs.pop("draft_model_file_name_template", None),
        "quantizations": theirs.pop("draft_quantizations", []),
    }


def _packages(virtualenv: Mapping[str, Any], dropped: Dropped) -> dict[str, list[str]]:
    """Return packages by engine: theirs are requirements with conditions in a small language of their own."""
    theirs = dict(virtualenv)
    ours: dict[str, list[str]] = {}
    for line in theirs.pop("packages"):
        requirement, _, conditions = (part.strip() for part in line.partition(" ; "))
        if DROPPED_PACKAGES.fullmatch(requirement):
            dropped.packages.append(requirement.strip("#"))
            continue
        engine, kept = _conditions(conditions, dropped)
        ours.setdefault(engine, []).append(" ; ".join([_named(requirement), *kept]))
    dropped.keys += [f"virtualenv.{key}" for key in theirs]
    return ours


def _conditions(text: str, dropped: Dropped) -> tuple[str, list[str]]:
    """Return the engine, `any` where none is named, and the PEP 508 marker in a list, empty where there is none."""
    engine, kept = "any", []
    for condition in filter(None, text.split(" and ")):
        if found := _ENGINE_CONDITION.fullmatch(condition):
            engine = _ENGINES[found.group(1)]
        elif DROPPED_CONDITIONS.fullmatch(condition):
            dropped.conditions.append(condition)
        else:
            kept.append(condition)
    return engine, [" and ".join(kept)] if kept else []


def _named(requirement: str) -> str:
    """Return a requirement with a name: of a wheel's bare address, PEP 508 wants `name @ address`."""
    if not requirement.startswith("https://"):
        return requirement
    wheel = requirement.rpartition("/")[2]
    return f"{wheel.partition('-')[0]} @ {requirement}"


# --- combinations, by their words and by ours ------------------------------------------------------------------------


@dataclass(frozen=True)
class Combination:
    """All that it takes to fetch one quantization of one spec from one hub."""

    name: str
    model_format: str
    size_in_billions: float
    activated_size_in_billions: float | None
    quantization: str
    hub: str
    repo_id: str
    revision: str | None
    files: tuple[str, ...]
    projectors: tuple[str, ...]
    draft: tuple[str, str | None, tuple[str, ...]] | None


def their_combinations(family: Mapping[str, Any]) -> Iterator[Combination]:
    """Yield every combination as their own loader flattens it: each quantization put into each template."""
    for spec in family["model_specs"]:
        for hub, source in spec["model_src"].items():
            for quantization in source["quantizations"]:
                yield Combination(
                    name=family["model_name"],
                    model_format={"ggufv2": "gguf"}.get(spec["model_format"], spec["model_format"]),
                    size_in_billions=_billions(spec["model_size_in_billions"]),
                    activated_size_in_billions=_optional_billions(spec.get("activated_size_in_billions")),
                    quantization=quantization,
                    hub=hub,
                    repo_id=source["model_id"].format(quantization=quantization),
                    revision=source.get("model_revision"),
                    files=_their_files(source, quantization),
                    projectors=tuple(source.get("multimodal_projectors", ())),
                    draft=_their_draft(source),
                )


def _their_files(source: Mapping[str, Any], quantization: str) -> tuple[str, ...]:
    if parts := source.get("quantization_parts", {}).get(quantization):
        template = source["model_file_name_split_template"]
        return tuple(template.format(quantization=quantization, part=part) for part in parts)
    template = source.get("model_file_name_template")
    return (template.format(quantization=quantization),) if template else ()


def _their_draft(source: Mapping[str, Any]) -> tuple[str, str | None, tuple[str, ...]] | None:
    if "draft_model_id" not in source:
        return None
    quantizations = tuple(source.get("draft_quantizations", ()))
    return source["draft_model_id"], source.get("draft_model_file_name_template"), quantizations


def _billions(size: int | str) -> float:
    return float(str(size).replace("_", "."))


def _optional_billions(size: int | str | None) -> float | None:
    return None if size is None else _billions(size)
