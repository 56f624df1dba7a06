"""How catalogue files are read: YAML's traps, and errors that say where."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.errors import CatalogueError, SchemaError
from registry.schema import validate_entry
from registry.yaml_file import read_entries
from tests.registry.entries import yaml_entry

GOOD = yaml_entry("good")


def _error(path: Path, text: str | bytes) -> SchemaError:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(SchemaError) as raised:
        read_entries(path)
    assert raised.value.file == str(path)
    assert raised.value.message.startswith(str(path))
    return raised.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models.yaml"


@pytest.mark.parametrize(
    ("text", "line", "key", "message", "hint"),
    [
        (GOOD + "relesed: 2024\n", 10, "relesed", "is not a key", "did you mean `released`?"),
        (GOOD + "chat:\n  tool_call: x\n", 11, "chat.tool_call", "is not a key", "did you mean `tool_calls`?"),
        (GOOD.replace("repo_id", "repoid"), 8, "specs.0.sources.huggingface.repoid", "is not a key", "`repo_id`"),
        (
            GOOD.replace("quantizations:", "quantisations:"),
            5,
            "specs.0.quantisations",
            "is not a key",
            "`quantizations`",
        ),
        (GOOD + "architecture: {layerz: 3}\n", 10, "architecture.layerz", "is not a key", "did you mean `layers`?"),
        (GOOD + "zzz: 1\n", 10, "zzz", "is not a key", None),
        (GOOD.replace("gguf\n", "gguff\n"), 3, "specs.0.format", "but `gguff` was given", "did you mean `gguf`?"),
        (
            GOOD + "abilities: [chat, tool]\n",
            10,
            "abilities.1",
            "must be one of `generate`, `chat`",
            "did you mean `tools`?",
        ),
        (
            GOOD + "architecture:\n  kind: Dense\n",
            11,
            "architecture.kind",
            "must be one of `dense`",
            "did you mean `dense`?",
        ),
        (GOOD.replace("name: good", "nmae: good"), 1, "nmae", "is not a key", "did you mean `name`?"),
        ("name: x\n", 1, "specs", "is missing", None),
        ("name: x\nspecs: []\n", 2, "specs", "is empty", None),
        (
            GOOD.replace("        repo_id: org/small\n", ""),
            7,
            "specs.0.sources.huggingface.repo_id",
            "is missing",
            None,
        ),
        (GOOD + "license: 3\n", 10, "license", "is not text, but `3` was given", "put it in quotes"),
        (GOOD + "license: true\n", 10, "license", "is not text, but `true` was given", "put it in quotes"),
        (
            GOOD + "        revision: 1.0\n",
            10,
            "specs.0.sources.huggingface.revision",
            "but `1.0` was",
            "put it in quotes",
        ),
        (GOOD + "context_length: 8k\n", 10, "context_length", "is not a whole number, but `8k` was given", None),
        (GOOD + "context_length: 0\n", 10, "context_length", "should be greater than 0, but `0` was given", None),
        (GOOD + "context_length: 1.5\n", 10, "context_length", "is not a whole number", None),
        (GOOD + "languages: en\n", 10, "languages", "is not a list, but `en` was given", None),
        (GOOD + "chat: none\n", 10, "chat", "is not a mapping of keys, but `none` was given", None),
        (
            GOOD + "chat:\n  reasoning:\n    hybrid: maybe\n",
            12,
            "chat.reasoning.hybrid",
            "is neither true nor false",
            None,
        ),
        (GOOD + "generation: {temperature: hot}\n", 10, "generation.temperature", "is not a number, but `hot`", None),
        (GOOD + "released: 2024-13\n", 10, "released", "is not a date such as 2024, 2024-01 or 2024-01-15", None),
        (GOOD.replace("name: good", "name: --help"), 1, "name", "is not a plain name such as `qwen2.5", None),
        (
            GOOD.replace("file: small", "file: ../small"),
            9,
            "specs.0.sources.huggingface.file",
            "is not a plain relative",
            None,
        ),
        (GOOD.replace("billions: 1", "billions: big"), 4, "specs.0.size_in_billions", "`big` is not a size in", None),
    ],
)
def test_an_error_names_file_line_key_and_what_would_be_right(
    path: Path, text: str, line: int, key: str, message: str, hint: str | None
) -> None:
    error = _error(path, text)
    assert (error.line, error.key) == (line, key)
    assert error.message.startswith(f"{path}:{line}: `{key}` ")
    assert message in error.message
    assert (error.hint or "") == (hint or "") or (hint is not None and hint in (error.hint or ""))
    assert not error.message.endswith(".")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: &x 1\nb: *x\n", 2, "uses the alias `*x`; write the value out"),
        ("a: b: c\n", 1, "is not YAML: mapping values are not allowed"),
        ("name: x\n\tspecs: 1\n", 2, "is not YAML"),
        ("name: [x\n", 2, "is not YAML"),
        ("name: 'x\n", 2, "is not YAML"),
        ("# é\nname: \0\n", 2, "characters are not allowed"),
        ("? [a, b]\n: c\n", 1, "has a key that is not text"),
        ("- name: x\n", 1, "is not a mapping of keys"),
        ("just text\n", 1, "is not a mapping of keys, but `just text` was given"),
        (
            "!!python/object/apply:os.system [true]\n",
            1,
            "has the tag `tag:yaml.org,2002:python/object/apply:os.system`",
        ),
        ("!custom {name: x}\n", 1, "has the tag `!custom`"),
        ("{" * 40, 1, "is nested too deep"),
        ("[" * 200_000, 1, "is nested too deep"),
        ("- " * 200_000, 1, "is nested too deep"),
    ],
)
def test_what_is_no_catalogue_file_names_the_line(path: Path, text: str, line: int, message: str) -> None:
    error = _error(path, text)
    assert error.line == line
    assert message in error.message


def test_the_billion_laughs_are_refused_at_the_first_alias(path: Path) -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    error = _error(path, "\n".join(["a0: &a0 [lol]", *levels]))
    assert error.line == 2
    assert "alias `*a0`" in error.message


def test_an_anchor_alone_is_harmless(path: Path) -> None:
    path.write_text(GOOD.replace("name: good", "name: &x good"))
    assert read_entries(path)[0]["name"] == "good"


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        (GOOD + "name: again\n", 10, "name"),
        (GOOD + "chat:\n  stop: []\n  stop: []\n", 12, "chat.stop"),
        (GOOD + "        repo_id: org/other\n", 10, "specs.0.sources.huggingface.repo_id"),
    ],
)
def test_a_key_is_given_once(path: Path, text: str, line: int, key: str) -> None:
    error = _error(path, text)
    assert (error.line, error.key) == (line, key)
    assert error.message.endswith("is given twice")


def test_merge_keys_are_not_a_back_door_to_aliases(path: Path) -> None:
    assert _error(path, GOOD + "<<: {license: MIT}\n").key == "<<"


@pytest.mark.parametrize("text", ["!!int abc", "!!float x", "!!int 0x1F", "9" * 5000])
def test_a_number_that_is_none_is_named(path: Path, text: str) -> None:
    error = _error(path, GOOD + f"context_length: {text}\n")
    assert (error.line, error.key) == (10, "context_length")
    assert "is not a number" in error.message
    assert len(error.message) < len(str(path)) + 200


@pytest.mark.parametrize("text", ["1e999", "-1e999", "9" * 400])
def test_numbers_are_finite(path: Path, text: str) -> None:
    assert "number" in _error(path, GOOD + f"architecture:\n  position_base: {text}\n").message


def test_values_are_shown_short_and_without_control_characters(path: Path) -> None:
    error = _error(path, GOOD.replace("name: good", 'name: "\\e[2J' + "x" * 1000 + '"'))
    assert error.message.isprintable()
    assert len(error.message) < len(str(path)) + 200


def test_text_stays_text(path: Path) -> None:
    path.write_text(
        yaml_entry(
            "norwegian",
            more="languages: [no, en]\nreleased: 2024-01-15\nknowledge_cutoff: 2023-12\n"
            "license: 'null'\nnotes: [yes, 0_5, 0x1F]\n",
        )
        .replace("billions: 1", "billions: 0_5")
        .replace("[Q4_K_M]", "[none, off, 4-bit, 1e]")
    )
    (entry,) = read_entries(path)
    assert entry["languages"] == ["no", "en"]
    assert (entry["released"], entry["knowledge_cutoff"]) == ("2024-01-15", "2023-12")
    assert entry["license"] == "null"
    assert entry["notes"] == ["yes", "0_5", "0x1F"]
    assert entry["specs"][0]["size_in_billions"] == 0.5
    assert entry["specs"][0]["quantizations"] == ["none", "off", "4-bit", "1e"]


def test_numbers_booleans_and_nothing_are_what_they_look_like(path: Path) -> None:
    more = (
        "license: null\nhomepage:\ncontext_length: 8192\n"
        "architecture: {position_base: 1e6}\nchat: {reasoning: {hybrid: true}}\n"
    )
    path.write_text(yaml_entry("x", more=more))
    (entry,) = read_entries(path)
    assert "license" not in entry
    assert "homepage" not in entry
    assert entry["context_length"] == 8192
    assert entry["architecture"]["position_base"] == 1_000_000
    assert entry["chat"]["reasoning"]["hybrid"] is True


def test_a_file_may_hold_several_documents(path: Path) -> None:
    path.write_text(f"# a comment\n---\n{GOOD}---\n---\n{yaml_entry('second')}...\n")
    assert [entry["name"] for entry in read_entries(path)] == ["good", "second"]


def test_lines_are_counted_over_all_documents(path: Path) -> None:
    error = _error(path, f"{GOOD}---\n{yaml_entry('second')}famly: x\n")
    assert (error.line, error.key, error.hint) == (20, "famly", "did you mean `family`?")


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n", "---\n---\n"])
def test_a_file_may_hold_none(path: Path, text: str) -> None:
    path.write_text(text)
    assert read_entries(path) == []


def test_of_a_launch_yaml_the_own_entries_are_read(path: Path) -> None:
    own = "\n".join(f"    {line}" for line in GOOD.splitlines()[1:])
    path.write_text(f"defaults: {{port: 1}}\nmodels: [good]\nregistry:\n  - a/layer\n  - name: good\n{own}\n")
    assert [entry["name"] for entry in read_entries(path)] == ["good"]


@pytest.mark.parametrize("text", ["models: [x]\n", "defaults:\n", "registry:\n", "registry: [a/layer]\n"])
def test_a_launch_yaml_may_hold_none(path: Path, text: str) -> None:
    path.write_text(text)
    assert read_entries(path) == []


def test_an_entry_with_a_section_s_name_is_an_entry_still(path: Path) -> None:
    assert _error(path, GOOD + "models: [x]\n").message.endswith("`models` is not a key")


def test_windows_line_ends_and_byte_order_marks_are_read(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert read_entries(path)[0]["name"] == "good"


@pytest.mark.parametrize("content", [b"name: \xff\xfe", "name: x".encode("utf-16"), b"\x80"])
def test_a_file_that_is_no_text_is_named(path: Path, content: bytes) -> None:
    assert "is not UTF-8 text" in _error(path, content).message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="cannot be read: No such file or directory"):
        read_entries(tmp_path / "missing.yaml")
    with pytest.raises(CatalogueError, match="cannot be read: Is a directory"):
        read_entries(tmp_path)


_ANY = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=80, deadline=None
)
_FRAGMENTS = st.sampled_from(
    [
        GOOD,
        *GOOD.splitlines(keepends=True),
        "- ",
        "{",
        "}",
        "[",
        "]",
        ": ",
        "\n",
        "  ",
        "&a ",
        "*a",
        "!!int ",
        "|\n",
        "---\n",
        "'",
        '"',
    ]
)


def _read_or_refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        entries = read_entries(path)
    except SchemaError as error:
        _check_place(error, path)
    else:
        assert all(validate_entry(entry) == entry for entry in entries)


def _check_place(error: SchemaError, path: Path) -> None:
    assert error.line >= 1
    assert str(path) in error.message


@_ANY
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_are_entries_or_a_schema_error(path: Path, content: bytes) -> None:
    _read_or_refuse(path, content)


@_ANY
@given(st.lists(_FRAGMENTS, max_size=12).map("".join))
def test_any_mixture_of_yaml_is_entries_or_a_schema_error(path: Path, text: str) -> None:
    _read_or_refuse(path, text.encode())


@_ANY
@given(st.integers(0, len(GOOD) - 1), st.characters(codec="utf-8"))
def test_any_damage_to_a_good_file_is_an_entry_or_a_schema_error(path: Path, at: int, character: str) -> None:
    _read_or_refuse(path, (GOOD[:at] + character + GOOD[at + 1 :]).encode())


@_ANY
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=9), x, max_size=3),
    )
)
def test_any_value_of_any_type_is_an_entry_or_a_schema_error(path: Path, value: object) -> None:
    data = yaml.safe_load(GOOD) | {"chat": value}
    _read_or_refuse(path, yaml.safe_dump(data, allow_unicode=True).encode())
