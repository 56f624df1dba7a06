"""That the largest registry there is has a natural place in our schema: every family, spec and combination of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from packaging.requirements import Requirement

from engines.index import CAPABILITIES
from registry.errors import ResolutionError
from registry.resolution import resolve
from registry.schema import validate_entry
from registry.spec import Machine, Model, Rejection, Request, quantization_bits
from tests.registry.xinference_mapping import (
    DROPPED_KEYS,
    MALFORMED_REPO_IDS,
    Combination,
    Dropped,
    map_family,
    read_families,
    their_combinations,
)

Families = list[dict[str, Any]]


@pytest.fixture(scope="module")
def families() -> Families:
    return read_families()


@pytest.fixture(scope="module")
def dropped() -> Dropped:
    return Dropped()


@pytest.fixture(scope="module")
def models(families: Families, dropped: Dropped) -> list[Model]:
    """Return all of theirs as ours: through the schema, its canonical JSON, and the types that are read from it."""
    return [Model.from_json(validate_entry(map_family(family, dropped))) for family in families]


def test_all_families_specs_and_combinations_have_a_place(models: list[Model]) -> None:
    assert len(models) == 162
    assert sum(len(model.specs) for model in models) == 965
    assert sum(1 for model in models for _ in _our_combinations(model)) == 5468


def test_every_combination_is_found_again(families: Families, models: list[Model]) -> None:
    theirs = Counter(_corrected(each) for family in families for each in their_combinations(family))
    ours = Counter(each for model in models for each in _our_combinations(model))
    assert theirs - ours == Counter()
    assert ours - theirs == Counter()


def test_every_fact_of_a_family_is_found_again(families: Families, models: list[Model]) -> None:
    for family, model in zip(families, models, strict=True):
        assert _our_facts(model) == _their_facts(family)


def test_parts_are_kept_also_for_quantizations_that_their_list_forgets(families: Families, models: list[Model]) -> None:
    forgotten = 0
    for theirs, source in zip(
        _their_sources(families), (s for m in models for p in m.specs for s in p.sources), strict=True
    ):
        parts = theirs.get("quantization_parts", {})
        assert {name: list(values) for name, values in source.parts.items()} == parts
        assert source.part_file == theirs.get("model_file_name_split_template")
        forgotten += bool(set(parts) - set(theirs["quantizations"]))
    assert forgotten == 24


def test_what_has_no_place_is_named(models: list[Model], dropped: Dropped) -> None:
    assert models
    assert Counter(dropped.keys) == {
        "version": 162,
        "featured": 161,
        "is_built_in": 1,
        "prompt_style": 1,
        "virtualenv.extra_index_url": 5,
        "virtualenv.index_strategy": 5,
    }
    assert set(dropped.keys) == set(DROPPED_KEYS)
    assert dropped.repo_ids == list(MALFORMED_REPO_IDS)
    assert Counter(dropped.conditions) == {'cuda_version == "13.0"': 4}


def test_packages_that_are_none_are_counted_and_the_others_are_kept(
    families: Families, models: list[Model], dropped: Dropped
) -> None:
    kept = [package for model in models for packages in model.engine_packages.values() for package in packages]
    assert len(kept) + len(dropped.packages) == sum(len(family["virtualenv"]["packages"]) for family in families)
    assert set(dropped.packages) == {
        *("system_numpy", "system_torch"),
        *(f"{engine}_dependencies" for engine in ("vllm", "transformers", "llama_cpp", "sglang", "mlx")),
    }


def test_packages_are_requirements_of_an_engine(models: list[Model]) -> None:
    engines = {engine for model in models for engine in model.engine_packages}
    assert engines == {"any", "vllm", "transformers", "llama.cpp", "sglang", "mlx"}
    for model in models:
        for packages in model.engine_packages.values():
            for package in packages:
                Requirement(package)


def test_conditions_on_the_machine_stay_with_their_package(models: list[Model]) -> None:
    kept = {package for model in models for package in model.engine_packages.get("transformers", ())}
    assert 'eva-decord ; sys_platform == "linux" and platform_machine == "x86_64"' in kept


def test_patterns_of_files_that_are_not_needed_are_kept_by_hub(families: Families, models: list[Model]) -> None:
    name = next(family["model_name"] for family in families if "cache_config" in family)
    sources = [source for model in models if model.name == name for spec in model.specs for source in spec.sources]
    assert {(source.hub, source.exclude) for source in sources} == {
        ("huggingface", ("metal/**", "original/**")),
        ("modelscope", ("metal/*", "original/*")),
    }
    assert not any(s.exclude for model in models if model.name != name for spec in model.specs for s in spec.sources)


def test_the_bits_of_most_quantizations_are_in_their_names(models: list[Model]) -> None:
    names = {quantization for model in models for spec in model.specs for quantization in spec.quantizations}
    silent = {name for name in names if quantization_bits(name) is None}
    assert silent == {"AWQ", "AWQ-Lite"}


def test_every_model_resolves_or_says_why_not(models: list[Model]) -> None:
    machine = Machine("Linux", "x86_64", cores=8, memory_bytes=64_000_000_000)
    for model in models:
        combinations = sum(len(spec.quantizations) for spec in model.specs) * len(CAPABILITIES)
        assert len(_rejected(model, machine)) in (combinations, combinations - 1)


def _rejected(model: Model, machine: Machine) -> tuple[Rejection, ...]:
    try:
        return resolve(Request(model.name), model, capabilities=CAPABILITIES, machine=machine).rejected
    except ResolutionError as error:
        return error.rejected


def _corrected(combination: Combination) -> Combination:
    for theirs, ours in MALFORMED_REPO_IDS.items():
        if combination.repo_id == theirs.format(quantization=combination.quantization):
            return replace(combination, repo_id=ours.format(quantization=combination.quantization))
    return combination


def _our_combinations(model: Model) -> Iterator[Combination]:
    for spec in model.specs:
        for source in spec.sources:
            for quantization in source.quantizations:
                draft = source.draft
                yield Combination(
                    name=model.name,
                    model_format=spec.model_format,
                    size_in_billions=spec.size_in_billions,
                    activated_size_in_billions=spec.activated_size_in_billions,
                    quantization=quantization,
                    hub=source.hub,
                    repo_id=source.repo_for(quantization),
                    revision=source.revision,
                    files=source.file_names(quantization),
                    projectors=source.projectors,
                    draft=None if draft is None else (draft.repo_id, draft.file, draft.quantizations),
                )


def _their_sources(families: Families) -> Iterator[Mapping[str, Any]]:
    for family in families:
        for spec in family["model_specs"]:
            yield from spec["model_src"].values()


def _their_facts(family: Mapping[str, Any]) -> dict[str, Any]:
    day = datetime.fromtimestamp(family["updated_at"], UTC)
    return {
        "name": family["model_name"],
        "description": family["model_description"],
        "context_length": family["context_length"],
        "languages": tuple(family["model_lang"]),
        "abilities": set(family["model_ability"]),
        "updated": f"{day:%Y-%m-%d}",
        "class_names": tuple(family["architectures"]),
        "model_type": family.get("model_type"),
        "template": family.get("chat_template") or None,
        "stop": tuple(family.get("stop", ())),
        "stop_token_ids": tuple(family.get("stop_token_ids", ())),
        "tool_calls": family.get("tool_parser"),
        "reasoning": (family.get("reasoning_start_tag"), family.get("reasoning_end_tag")),
    }


def _our_facts(model: Model) -> dict[str, Any]:
    reasoning = model.chat.reasoning
    is_hybrid = reasoning is not None and reasoning.hybrid
    return {
        "name": model.name,
        "description": model.description,
        "context_length": model.context_length,
        "languages": model.languages,
        "abilities": {*model.abilities, *(["hybrid"] if is_hybrid else [])},
        "updated": model.updated,
        "class_names": model.architecture.class_names,
        "model_type": model.architecture.model_type,
        "template": model.chat.template,
        "stop": model.chat.stop,
        "stop_token_ids": model.chat.stop_token_ids,
        "tool_calls": model.chat.tool_calls,
        "reasoning": (None, None) if reasoning is None else (reasoning.start, reasoning.end),
    }
