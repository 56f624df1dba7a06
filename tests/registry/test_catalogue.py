"""How the catalogue is found, merged, indexed and searched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from registry.catalogue import Catalogue, read_catalogue
from registry.errors import CatalogueError, SchemaError, UnknownModelError
from tests.registry.entries import write_yaml, yaml_entry

DRIVER = """
import json, sys
from pathlib import Path
from registry.catalogue import read_catalogue
catalogue = read_catalogue([Path(layer) for layer in sys.argv[1:]])
license = catalogue.find("small").model.license
print(json.dumps([license, sorted(set(sys.modules) & {"yaml", "pydantic"})]))
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"LAUNCH_CACHE": str(tmp_path / "cache"), "XDG_CONFIG_HOME": str(tmp_path / "config")}


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    return write_yaml(tmp_path / "layer" / "small.yaml", yaml_entry("small", more="license: MIT\n"))


def _index_files(environ: Mapping[str, str]) -> list[Path]:
    return sorted((Path(environ["LAUNCH_CACHE"]) / "index").iterdir())


def _license(catalogue: Catalogue, name: str = "small") -> str | None:
    return catalogue.find(name).model.license


# --- layers ----------------------------------------------------------------------------------------------------------


def test_the_built_in_entries_are_always_there(environ: dict[str, str]) -> None:
    names = [model.name for model in read_catalogue(environ=environ).models]
    assert {"mistral-instruct-v0.2", "smollm2-instruct"} <= set(names)
    assert names == sorted(names)


def test_a_later_layer_replaces_the_entries_of_an_earlier_one(tmp_path: Path, environ: dict[str, str]) -> None:
    for folder, license_name in (("config/model-launcher/registry", "user"), ("named", "named"), ("asked", "asked")):
        write_yaml(tmp_path / folder / "small.yaml", yaml_entry("small", more=f"license: {license_name}\n"))
    assert _license(read_catalogue(environ=environ)) == "user"
    environ["LAUNCH_REGISTRY"] = str(tmp_path / "named")
    assert _license(read_catalogue(environ=environ)) == "named"
    assert _license(read_catalogue([tmp_path / "asked"], environ=environ)) == "asked"


def test_a_layer_replaces_a_built_in_entry_in_any_case(tmp_path: Path, environ: dict[str, str]) -> None:
    layer = write_yaml(tmp_path / "own.yaml", yaml_entry("SmolLM2-Instruct", more="license: MIT\n"))
    catalogue = read_catalogue([layer], environ=environ)
    assert _license(catalogue, "smollm2-instruct") == "MIT"
    assert [model.name for model in catalogue.models if model.name.lower() == "smollm2-instruct"] == [
        "SmolLM2-Instruct"
    ]


def test_a_layer_is_a_file_or_a_folder_with_all_below_it(tmp_path: Path, environ: dict[str, str]) -> None:
    write_yaml(tmp_path / "layer" / "a.yaml", yaml_entry("a"))
    write_yaml(tmp_path / "layer" / "deep" / "b.yml", yaml_entry("b"))
    write_yaml(tmp_path / "layer" / "notes.txt", "no: catalogue")
    file = write_yaml(tmp_path / "c.catalogue", yaml_entry("c"))
    environ["LAUNCH_REGISTRY"] = os.pathsep.join([str(tmp_path / "layer"), "", str(file)])
    assert {"a", "b", "c"} <= {model.name for model in read_catalogue(environ=environ).models}


@pytest.mark.parametrize("given", ["LAUNCH_REGISTRY", "--registry"])
def test_a_layer_that_is_missing_is_an_error(tmp_path: Path, environ: dict[str, str], given: str) -> None:
    missing = tmp_path / "missing"
    if given == "LAUNCH_REGISTRY":
        environ["LAUNCH_REGISTRY"] = str(missing)
    with pytest.raises(CatalogueError, match=f"There is no registry at `{missing}`"):
        read_catalogue([missing] if given == "--registry" else [], environ=environ)


def test_the_system_s_and_the_user_s_layer_may_be_missing(environ: dict[str, str]) -> None:
    assert read_catalogue(environ=environ).models


def test_the_process_s_own_environment_is_the_default(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], layer: Path
) -> None:
    for name, value in (environ | {"LAUNCH_REGISTRY": str(layer)}).items():
        monkeypatch.setenv(name, value)
    assert _license(read_catalogue()) == "MIT"
    assert _index_files(environ)


def test_a_wrong_file_is_an_error_that_names_it(layer: Path, environ: dict[str, str]) -> None:
    wrong = write_yaml(layer.with_name("wrong.yaml"), yaml_entry("wrong", more="licence: MIT\n"))
    with pytest.raises(SchemaError) as raised:
        read_catalogue([layer.parent], environ=environ)
    assert (raised.value.file, raised.value.line, raised.value.hint) == (str(wrong), 2, "did you mean `license`?")


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "found", "model_format", "hub", "quantization"),
    [
        ("mistral-instruct-v0.2", "mistral-instruct-v0.2", None, None, None),
        ("Mistral-Instruct-V0.2", "mistral-instruct-v0.2", None, None, None),
        (" mistral-instruct-v0.2 ", "mistral-instruct-v0.2", None, None, None),
        ("mistral-7b-instruct-v0.2", "mistral-instruct-v0.2", None, None, None),
        ("mistral-instruct-v0.2:Q4_K_M", "mistral-instruct-v0.2", None, None, "Q4_K_M"),
        ("SmolLM2", "smollm2-instruct", None, None, None),
        ("mistralai/Mistral-7B-Instruct-v0.2", "mistral-instruct-v0.2", "pytorch", "huggingface", None),
        ("AI-ModelScope/Mistral-7B-Instruct-v0.2", "mistral-instruct-v0.2", "pytorch", "modelscope", None),
        ("TheBloke/Mistral-7B-Instruct-v0.2-GPTQ", "mistral-instruct-v0.2", "gptq", "huggingface", None),
        ("TheBloke/Mistral-7B-Instruct-v0.2-AWQ", "mistral-instruct-v0.2", "awq", "huggingface", None),
        ("TheBloke/Mistral-7B-Instruct-v0.2-GGUF", "mistral-instruct-v0.2", "gguf", "huggingface", None),
        ("thebloke/mistral-7b-instruct-v0.2-gguf:Q5_K_M", "mistral-instruct-v0.2", "gguf", "huggingface", "Q5_K_M"),
        ("Xorbits/Mistral-7B-Instruct-v0.2-GGUF", "mistral-instruct-v0.2", "gguf", "modelscope", None),
    ],
)
def test_names_aliases_and_repo_ids(
    environ: dict[str, str],
    name: str,
    found: str,
    model_format: str | None,
    hub: str | None,
    quantization: str | None,
) -> None:
    result = read_catalogue(environ=environ).find(name)
    assert result.model.name == found
    assert (result.model_format, result.hub, result.quantization) == (model_format, hub, quantization)


def test_a_repo_of_one_quantization_implies_it(tmp_path: Path, environ: dict[str, str]) -> None:
    text = yaml_entry("small", repo_id='"org/small-{quantization}"', quantization="Q4_0, Q8_0")
    catalogue = read_catalogue([write_yaml(tmp_path / "small.yaml", text)], environ=environ)
    found = catalogue.find("org/Small-Q8_0")
    assert (found.model_format, found.hub, found.quantization) == ("gguf", "huggingface", "Q8_0")


def test_a_model_s_name_comes_before_another_s_alias(tmp_path: Path, environ: dict[str, str]) -> None:
    text = f"{yaml_entry('a', more='aliases: [b]' + chr(10))}---\n{yaml_entry('b')}"
    catalogue = read_catalogue([write_yaml(tmp_path / "two.yaml", text)], environ=environ)
    assert catalogue.find("b").model.name == "b"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("mistral-instruct-v02", "mistral-instruct-v0.2"),
        ("Mistral-Instruct", "mistral-instruct-v0.2"),
        ("smolm2", "smollm2-instruct"),
        ("smollm2-instruct:", "smollm2-instruct"),
        ("TheBloke/Mistral-7B-Instruct-v0.2-GGFU", "mistral-instruct-v0.2"),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones(environ: dict[str, str], name: str, nearest: str) -> None:
    with pytest.raises(UnknownModelError) as raised:
        read_catalogue(environ=environ).find(name)
    assert raised.value.message == f"No model is called `{name}`"
    assert raised.value.suggestions[0] == nearest
    assert raised.value.hint == f"did you mean `{nearest}`?"


@pytest.mark.parametrize("name", ["", ":", "zzzzzzzz", "../../etc/passwd", "--help", "x\0y"])
def test_a_name_like_no_other_is_answered_with_the_list(environ: dict[str, str], name: str) -> None:
    with pytest.raises(UnknownModelError) as raised:
        read_catalogue(environ=environ).find(name)
    assert (raised.value.suggestions, raised.value.hint) == ((), "launch list")


def test_siblings_are_of_the_same_family(tmp_path: Path, environ: dict[str, str]) -> None:
    family = "family: smollm2\n"
    text = f"{yaml_entry('other', more=family)}---\n{yaml_entry('alone')}---\n{yaml_entry('lonely')}"
    catalogue = read_catalogue([write_yaml(tmp_path / "own.yaml", text)], environ=environ)
    assert catalogue.siblings(catalogue.find("smollm2-instruct").model) == ("other",)
    assert catalogue.siblings(catalogue.find("alone").model) == ()


# --- the index -------------------------------------------------------------------------------------------------------


def test_the_summary_says_what_lists_need(environ: dict[str, str]) -> None:
    for _ in ("compiled", "read from the index"):
        catalogue = read_catalogue(environ=environ)
        (summary,) = (model for model in catalogue.models if model.name == "mistral-instruct-v0.2")
        assert summary.formats == ("pytorch", "gptq", "awq", "gguf", "mistral")
        assert (summary.family, summary.license, summary.context_length) == ("mistral-7b", "Apache-2.0", 32768)
        assert summary.abilities == ("chat",)
        assert [len(spec.quantizations) for spec in summary.specs] == [3, 1, 1, 12, 1]
        assert catalogue.read(summary) == catalogue.find("mistral-instruct-v0.2").model


def _run(environ: Mapping[str, str], layer: Path) -> tuple[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(layer)],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    license_name, modules = json.loads(done.stdout)
    return license_name, modules


def test_only_the_first_reading_imports_yaml_and_pydantic(environ: dict[str, str], layer: Path) -> None:
    assert _run(environ, layer) == ("MIT", ["pydantic", "yaml"])
    assert _run(environ, layer) == ("MIT", [])


def test_a_changed_file_is_read_anew(environ: dict[str, str], layer: Path) -> None:
    assert _license(read_catalogue([layer], environ=environ)) == "MIT"
    write_yaml(layer, yaml_entry("small", more="license: BSD\n"))
    os.utime(layer, ns=(1, 1))
    assert _license(read_catalogue([layer], environ=environ)) == "BSD"


def test_a_file_that_came_or_went_is_noticed(environ: dict[str, str], layer: Path) -> None:
    read_catalogue([layer.parent], environ=environ)
    write_yaml(layer.with_name("tiny.yaml"), yaml_entry("tiny"))
    assert read_catalogue([layer.parent], environ=environ).find("tiny").model.name == "tiny"
    layer.unlink()
    with pytest.raises(UnknownModelError):
        read_catalogue([layer.parent], environ=environ).find("small")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _remove(path: Path) -> None:
    path.unlink()


def _other_json(path: Path) -> None:
    path.write_text("[1, 2]")


def _no_keys(path: Path) -> None:
    path.write_text("{}")


def _no_names(path: Path) -> None:
    path.write_text(json.dumps({"details_bytes": path.with_suffix(".jsonl").stat().st_size}))


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("damage", [_empty, _cut, _zero, _remove, _other_json, _no_keys, _no_names])
def test_a_damaged_index_is_made_anew(
    environ: dict[str, str], layer: Path, suffix: str, damage: Callable[[Path], None]
) -> None:
    read_catalogue([layer], environ=environ)
    sound = {path: path.read_bytes() for path in _index_files(environ)}
    (damaged,) = (path for path in sound if path.suffix == suffix)
    if damage is not _no_names or suffix == ".json":
        damage(damaged)
    assert _license(read_catalogue([layer], environ=environ)) == "MIT"
    assert {path: path.read_bytes() for path in _index_files(environ)} == sound


def test_an_index_that_is_cleaned_away_while_it_is_used_is_made_anew(environ: dict[str, str], layer: Path) -> None:
    read_catalogue([layer], environ=environ)
    catalogue = read_catalogue([layer], environ=environ)
    for path in _index_files(environ):
        path.unlink()
    assert _license(catalogue) == "MIT"


def test_few_indexes_are_kept(environ: dict[str, str], layer: Path) -> None:
    for time in range(1, 13):
        os.utime(layer, ns=(time, time))
        read_catalogue([layer], environ=environ)
    assert len(_index_files(environ)) == 2 * 8


@pytest.mark.parametrize("obstacle", ["a file", "a folder without rights"])
def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, environ: dict[str, str], layer: Path, obstacle: str
) -> None:
    cache = tmp_path / "cache"
    if obstacle == "a file":
        cache.write_text("")
    else:
        cache.mkdir(mode=0o500)
    assert _license(read_catalogue([layer], environ=environ)) == "MIT"
    assert _license(read_catalogue([layer], environ=environ)) == "MIT"


def test_two_processes_at_once_both_succeed(environ: dict[str, str], layer: Path) -> None:
    command = [sys.executable, "-c", DRIVER, str(layer)]
    processes = [
        subprocess.Popen(command, env={**os.environ, **environ}, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    answers = [json.loads(process.communicate()[0])[0] for process in processes]
    assert answers == ["MIT"] * 3
    assert len(_index_files(environ)) == 2
    assert _run(environ, layer) == ("MIT", [])


def test_what_is_not_ascii_is_found_at_its_place(tmp_path: Path, environ: dict[str, str]) -> None:
    text = "---\n".join(yaml_entry(name, more=f"description: 模型 {name} é\n") for name in ("a", "b", "c"))
    layer = write_yaml(tmp_path / "own.yaml", text)
    for _ in ("compiled", "read from the index"):
        catalogue = read_catalogue([layer], environ=environ)
        assert [catalogue.find(name).model.description for name in "abc"] == ["模型 a é", "模型 b é", "模型 c é"]
