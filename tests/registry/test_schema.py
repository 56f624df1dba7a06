"""What an entry may say, and what the types make of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from registry.schema import json_schema, validate_entry
from registry.selection import check_path
from registry.spec import (
    Draft,
    GenerationDefaults,
    Model,
    PinnedFile,
    Reasoning,
    Source,
    format_size,
    parse_size,
    quantization_bits,
)
from tests.registry.entries import PATIENT, entry, model, spec

HOSTILE = [
    "-x",
    "--help",
    "../x",
    "/etc/passwd",
    "a/../b",
    "x\0y",
    "$(id)",
    "`id`",
    "a;b",
    "a|b",
    "a\nb",
    "C:\\x",
    "",
    " ",
]


def _place(field: str, value: str) -> dict[str, Any]:
    """Return a valid entry but for `value` in `field`."""
    places: dict[str, dict[str, Any]] = {
        "name": entry(value),
        "alias": entry(aliases=[value]),
        "quantization": entry(specs=[spec(quantizations=(value,))]),
        "repo_id": entry(specs=[spec(repo_id=value)]),
        "revision": entry(specs=[spec(revision=value)]),
        "file": entry(specs=[spec(file=value)]),
        "part_file": entry(specs=[spec(part_file=value)]),
        "projector": entry(specs=[spec(projectors=[value])]),
        "pinned_file": entry(specs=[spec(files={value: {"size_bytes": 1}})]),
        "draft_file": entry(specs=[spec(draft={"repo_id": "org/draft", "file": value})]),
        "draft_repo": entry(specs=[spec(draft={"repo_id": value})]),
        "hub": entry(specs=[spec(hubs=(value,))]),
        "part": entry(specs=[spec(part_file="x-{part}.gguf", parts={"Q4_K_M": [value]})]),
        "tool_calls": entry(chat={"tool_calls": value}),
        "package_engine": entry(engine_packages={value: ["einops"]}),
        "language": entry(languages=[value]),
        "homepage": entry(homepage=value),
        "precision": entry(specs=[spec() | {"resources": {"precision": value}}]),
        "released": entry(released=value),
    }
    return places[field]


FIELDS = [
    *("name", "alias", "quantization", "repo_id", "revision", "file", "part_file", "projector", "pinned_file"),
    *("draft_file", "draft_repo", "hub", "part", "tool_calls", "package_engine", "language", "homepage", "precision"),
    "released",
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("field", FIELDS)
def test_no_value_can_be_an_option_a_path_outside_or_a_command(field: str, value: str) -> None:
    with pytest.raises(ValidationError):
        validate_entry(_place(field, value))


@pytest.mark.parametrize("package", ["-r x", "--index-url=http://x", "", " einops", "a\nb", "a\0b"])
def test_a_package_is_never_an_option_of_pip(package: str) -> None:
    with pytest.raises(ValidationError):
        validate_entry(entry(engine_packages={"vllm": [package]}))


@pytest.mark.parametrize("field", ["description", "license", "family", "task"])
def test_no_text_can_write_to_the_terminal(field: str) -> None:
    with pytest.raises(ValidationError, match="without control characters"):
        validate_entry(entry() | {field: "\x1b[2J"})


def test_text_may_hold_anything_else() -> None:
    text = "Two lines,\n\ttabs, $(id), `id`, -x, ../x, ünï©ode 中文"
    assert model(description=text).description == text


@pytest.mark.parametrize(
    "path", ["model.{quantization}.gguf", "a/b/c.gguf", "UD-Q4/x-00001-of-00002.gguf", "with space.gguf", "a_b+c@d.bin"]
)
def test_plain_relative_paths_are_allowed(path: str) -> None:
    assert model(specs=[spec(file=path)]).specs[0].sources[0].file == path


@pytest.mark.parametrize(
    "path",
    [
        *("{part", "{name}.gguf", "{0}.gguf", "{quantization.__class__}", ".hidden", "a//b", "a/"),
        *("{part}.gguf", "{draft_quantization}.gguf"),
    ],
)
def test_only_known_placeholders_stand_in_paths(path: str) -> None:
    with pytest.raises(ValidationError, match="plain relative path"):
        validate_entry(entry(specs=[spec(file=path)]))


@pytest.mark.parametrize(
    "repo_id", ["org/name", "name", "org/name-{quantization}", "org/{quantization}", "a.b/c_d-e.f"]
)
def test_repo_ids(repo_id: str) -> None:
    assert model(specs=[spec(repo_id=repo_id)]).specs[0].sources[0].repo_id == repo_id


@pytest.mark.parametrize(
    "repo_id",
    ["a/b/c", "org/{name}", "org/", "/name", "org/name?x=1", "https://x/y", "o" * 200, "o/{draft_quantization}"],
)
def test_what_is_no_repo_id(repo_id: str) -> None:
    with pytest.raises(ValidationError):
        validate_entry(entry(specs=[spec(repo_id=repo_id)]))


@pytest.mark.parametrize("revision", ["main", "v1.0", "0.1.2", "feature/x", "a" * 40, "gptq-4bit-32g-actorder_True"])
def test_revisions(revision: str) -> None:
    assert model(specs=[spec(revision=revision)]).specs[0].sources[0].revision == revision


@pytest.mark.parametrize(
    ("written", "billions"),
    [(7, 7.0), ("7", 7.0), ("7b", 7.0), (0.5, 0.5), ("0_5", 0.5), ("0.5B", 0.5), ("1_5", 1.5), (0.135, 0.135)],
)
def test_sizes(written: float | str, billions: float) -> None:
    assert model(specs=[spec(size=written)]).specs[0].size_in_billions == billions
    assert parse_size(str(written)) == billions


@pytest.mark.parametrize("written", [True, None, 0, -7, "seven", "", "7x", float("inf"), float("nan"), "9" * 400, [7]])
def test_what_is_no_size(written: Any) -> None:
    with pytest.raises(ValidationError):
        validate_entry(entry(specs=[spec(size=written)]))


@PATIENT
@given(st.floats(0.001, 9999).map(lambda size: round(size, 3)))
def test_a_size_is_read_back_from_what_is_shown(size: float) -> None:
    assert parse_size(format_size(parse_size(str(size)))) == pytest.approx(size, rel=1e-5)


@PATIENT
@given(st.text())
def test_any_text_is_a_size_or_a_value_error(text: str) -> None:
    try:
        size = parse_size(text)
    except ValueError:
        return
    assert 0 < size < 1e9


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        *(("Q4_K_M", 4), ("q8_0", 8), ("IQ3_XXS", 3), ("UD-Q4_K_XL", 4), ("i1-IQ4_XS", 4), ("Q2_K", 2)),
        *(("none", 16), ("bf16", 16), ("F16", 16), ("fp16", 16), ("f32", 32)),
        *(("Int4", 4), ("int8", 8), ("4bit", 4), ("4-bit", 4), ("8-bit", 8), ("FP8", 8), ("mxfp4", 4), ("nvfp4", 4)),
        *(("AWQ", None), ("auto", None), ("", None)),
    ],
)
def test_bits_of_a_quantization(name: str, bits: int | None) -> None:
    assert quantization_bits(name) == bits


@pytest.mark.parametrize("date", ["2024", "2024-01", "2024-01-15", "2023-12-31"])
def test_dates_may_be_partial(date: str) -> None:
    assert model(released=date).released == date


def test_a_year_need_not_be_quoted() -> None:
    assert model(released=2024).released == "2024"


@pytest.mark.parametrize(
    "date", ["24", "2024-1", "2024-13", "2024-01-32", "15.1.2024", "2024-01-15T00:00", 24, True, 2024.5]
)
def test_what_is_no_date(date: object) -> None:
    with pytest.raises(ValidationError):
        validate_entry(entry(released=date))


@pytest.mark.parametrize(("written", "read"), [("ggufv2", "gguf"), ("GGUF", "gguf"), ("safetensors", "pytorch")])
def test_other_words_for_formats(written: str, read: str) -> None:
    assert model(specs=[spec(written)]).specs[0].model_format == read


def test_the_quantizations_of_a_spec_are_those_of_its_sources_unless_named() -> None:
    data = spec(quantizations=())
    data["sources"] = {
        "huggingface": {"repo_id": "org/a", "quantizations": ["Q4_0", "Q8_0"]},
        "modelscope": {"repo_id": "org/a", "quantizations": ["Q8_0", "Q2_K"]},
    }
    found = model(specs=[data]).specs[0]
    assert found.quantizations == ("Q4_0", "Q8_0", "Q2_K")
    assert [source.hub for source in found.sources_of("Q8_0")] == ["huggingface", "modelscope"]
    assert [source.hub for source in found.sources_of("Q2_K")] == ["modelscope"]


def test_a_spec_names_its_quantizations_somewhere() -> None:
    with pytest.raises(ValidationError, match="named neither here nor by a source"):
        validate_entry(entry(specs=[spec(quantizations=())]))


def test_a_source_publishes_none_that_the_spec_does_not_have() -> None:
    with pytest.raises(ValidationError, match="publishes `Q8_0`"):
        validate_entry(
            entry(
                specs=[
                    spec(quantizations=("Q4_0",)) | {"sources": {"pypi": {"repo_id": "a", "quantizations": ["Q8_0"]}}}
                ]
            )
        )


def test_parts_need_a_template() -> None:
    with pytest.raises(ValidationError, match="needs a `part_file`"):
        validate_entry(entry(specs=[spec(parts={"Q4_K_M": ["1", "2"]}, part_file="x.gguf")]))


def test_files_of_a_quantization() -> None:
    source = (
        model(
            specs=[
                spec(
                    quantizations=("Q4_K_M", "Q8_0"),
                    file="x.{quantization}.gguf",
                    part_file="{quantization}/x-{part}.gguf",
                    parts={"Q8_0": ["00001-of-00002", "00002-of-00002"]},
                )
            ]
        )
        .specs[0]
        .sources[0]
    )
    assert source.file_names("Q4_K_M") == ("x.Q4_K_M.gguf",)
    assert source.file_names("Q8_0") == ("Q8_0/x-00001-of-00002.gguf", "Q8_0/x-00002-of-00002.gguf")
    assert Source("huggingface", "org/x").file_names("none") == ()


_labels = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,15}", fullmatch=True)
_pieces = st.sampled_from(
    ["{quantization}", "{part}", "model", "-", ".", "..", "/", "é", " ", "_", "{", "gguf", "~", "\\"]
)
_templates = st.lists(_pieces, min_size=1, max_size=8).map("".join)


def _valid(**source: Any) -> Source | None:
    try:
        return model(specs=[spec(**source)]).specs[0].sources[0]
    except ValidationError:
        return None


@PATIENT
@given(template=_templates, repo=_templates, part_template=_templates, quantization=_labels, parts=st.lists(_labels))
def test_filled_in_templates_are_plain_and_stay_in_their_folder(
    template: str, repo: str, part_template: str, quantization: str, parts: list[str]
) -> None:
    sources = (
        _valid(quantizations=(quantization,), file=template),
        _valid(quantizations=(quantization,), part_file=part_template, parts={quantization: parts}),
        _valid(quantizations=(quantization,), repo_id=f"org/{repo}"),
    )
    for source in filter(None, sources):
        for name in source.file_names(quantization):
            check_path(name)
            assert not set(name) & set("{}")
        assert re.fullmatch(r"[\w.-]+/\w[\w.-]*", source.repo_for(quantization))


@PATIENT
@given(quantization=_labels, parts=st.lists(_labels, min_size=1, max_size=5))
def test_filling_in_says_each_name_and_part_where_the_template_does(quantization: str, parts: list[str]) -> None:
    source = _valid(
        quantizations=(quantization,),
        part_file="{quantization}/x-{part}.gguf",
        parts={quantization: parts},
        repo_id="org/x-{quantization}",
    )
    assert source is not None
    assert source.file_names(quantization) == tuple(f"{quantization}/x-{part}.gguf" for part in parts)
    assert source.repo_for(quantization) == f"org/x-{quantization}"


def test_a_source_is_pinned_by_a_commit_or_an_exact_version() -> None:
    assert Source("huggingface", "org/x", revision="a" * 40).is_pinned
    assert Source("pypi", "x", revision="0.1.2").is_pinned
    assert not Source("huggingface", "org/x", revision="main").is_pinned
    assert not Source("huggingface", "org/x").is_pinned


def test_another_revision_forgets_what_was_known_of_the_pin() -> None:
    pinned = Source("huggingface", "org/x", "a" * 40, files={"x": PinnedFile(1)}, quantization_config={"bits": 4})
    moved = pinned.at_revision("main")
    assert (moved.revision, moved.files, moved.quantization_config) == ("main", {}, {})
    assert pinned.at_revision("a" * 40) is pinned


def test_everything_that_an_entry_says_reaches_the_types() -> None:
    found = model(
        chat={
            "stop": ["</s>"],
            "stop_token_ids": [2],
            "reasoning": {"start": "<t>", "hybrid": True},
            "tool_calls": "qwen",
        },
        generation={"temperature": 0.6, "top_k": 20, "max_tokens": 100},
        architecture={
            "kind": "experts",
            "class_names": ["X"],
            "experts": 8,
            "active_experts": 2,
            "position_base": 10000,
        },
        specs=[
            spec(
                draft={"repo_id": "org/d-{draft_quantization}", "quantizations": ["Q8_0"]},
                files={"x": {"size_bytes": 3}},
            )
        ],
    )
    assert found.chat.reasoning == Reasoning(start="<t>", hybrid=True)
    assert (found.chat.stop, found.chat.stop_token_ids, found.chat.tool_calls) == (("</s>",), (2,), "qwen")
    assert found.generation == GenerationDefaults(temperature=0.6, top_k=20, max_tokens=100)
    assert (found.architecture.kind, found.architecture.class_names, found.architecture.experts) == (
        "experts",
        ("X",),
        8,
    )
    source = found.specs[0].sources[0]
    assert source.draft == Draft("org/d-{draft_quantization}", None, ("Q8_0",))
    assert source.files == {"x": PinnedFile(3)}


def test_a_spec_s_own_context_length_comes_before_the_model_s() -> None:
    found = model(context_length=4096, specs=[spec(size=1), spec(size=2) | {"context_length": 8192}])
    assert [found.context_of(each) for each in found.specs] == [4096, 8192]


@pytest.mark.parametrize(
    "generation",
    [
        {"temperature": -1},
        {"temperature": 3},
        {"top_p": 0},
        {"top_p": 2},
        {"min_p": 2},
        {"top_k": -1},
        {"max_tokens": 0},
    ],
)
def test_sampling_values_have_ranges(generation: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        validate_entry(entry(generation=generation))


def test_canonical_json_validates_to_itself() -> None:
    canonical = validate_entry(entry(released="2024-01", languages=["no"], specs=[spec("ggufv2", "0_5")]))
    assert validate_entry(canonical) == canonical
    assert Model.from_json(canonical).specs[0].size_in_billions == 0.5


def test_the_schema_for_editors_describes_every_key() -> None:
    schema = json_schema()
    assert set(schema["required"]) == {"name", "specs"}
    assert schema["additionalProperties"] is False
    assert schema["properties"]["name"]["pattern"].startswith("^")
    assert {"SpecEntry", "SourceEntry", "ArchitectureEntry", "ChatEntry"} <= set(schema["$defs"])


_plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_keys = st.sampled_from(["name", "specs", "format", "sources", "huggingface", "repo_id", "chat", "x"]) | st.text(
    max_size=5
)
_data = st.recursive(
    _plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4), max_leaves=15
)


@PATIENT
@given(_data)
def test_any_data_is_an_entry_or_a_validation_error(data: object) -> None:
    with pytest.raises(ValidationError):
        validate_entry(data)


@PATIENT
@given(st.sampled_from(sorted(json_schema()["properties"])), _data)
def test_any_value_of_any_key_is_taken_or_refused(key: str, value: object) -> None:
    try:
        canonical = validate_entry(entry() | {key: value})
    except ValidationError:
        return
    assert Model.from_json(canonical).name


@PATIENT
@given(
    st.sampled_from(["repo_id", "revision", "file", "part_file", "projectors", "files", "parts", "draft", "exclude"]),
    _data,
)
def test_any_value_of_a_source_is_taken_or_refused(key: str, value: object) -> None:
    try:
        data = spec()
        data["sources"]["huggingface"][key] = value
        canonical = validate_entry(entry(specs=[data]))
    except ValidationError:
        return
    for source in Model.from_json(canonical).specs[0].sources:
        for path in (*source.file_names("Q4_K_M"), *source.projectors, *source.files):
            assert not path.startswith(("/", "-", "."))
            assert ".." not in path.split("/")
