"""Which files are taken of a listing, and which names are never written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry.errors import NotOnHubError, UnsafeFileError
from registry.selection import check_path, select_files
from registry.spec import Source, Spec

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
MISTRAL = (
    ".gitattributes",
    "README.md",
    "config.json",
    "consolidated.safetensors",
    "generation_config.json",
    *SHARDS,
    "model.safetensors.index.json",
    "modeling_mistral.py",
    "params.json",
    "pytorch_model-00001-of-00003.bin",
    "pytorch_model.bin.index.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "original/consolidated.00.pth",
    "onnx/model.safetensors",
)


def select(
    paths: tuple[str, ...],
    *,
    model_format: str = "pytorch",
    quantization: str = "none",
    file: str | None = None,
    exclude: tuple[str, ...] = (),
) -> tuple[str, ...]:
    source = Source("huggingface", "org/name", file=file, exclude=exclude)
    spec = Spec(model_format, 7, (quantization,), (source,))
    return select_files(spec, source, quantization, paths)


def test_takes_sharded_safetensors_and_what_engines_read_beside_them() -> None:
    assert select(MISTRAL) == (
        *SHARDS,
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    )


def test_takes_the_consolidated_file_where_there_is_no_other() -> None:
    paths = ("consolidated.safetensors", "params.json", "tokenizer.model.v3")
    assert select(paths) == paths


def test_honours_what_the_source_excludes() -> None:
    assert "tokenizer.model" not in select(MISTRAL, exclude=("*.model",))


def test_takes_templates_and_processors() -> None:
    extra = ("chat_template.jinja", "model.safetensors", "preprocessor_config.json", "vocab.json", "merges.txt")
    assert set(select(extra)) == set(extra)


def test_refuses_pickled_weights() -> None:
    with pytest.raises(UnsafeFileError, match="pickled weights only"):
        select(("config.json", "pytorch_model.bin"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "run.py"])
def test_refuses_a_named_file_that_runs_code(name: str) -> None:
    with pytest.raises(UnsafeFileError, match="can run code"):
        select(("config.json", name), file=name)


def test_says_when_there_are_no_weights() -> None:
    with pytest.raises(NotOnHubError, match="no safetensors"):
        select(("config.json",))


def test_takes_the_named_file_only() -> None:
    paths = ("a.Q4_K_M.gguf", "a.Q8_0.gguf", "config.json")
    taken = select(paths, model_format="gguf", quantization="Q8_0", file="a.{quantization}.gguf")
    assert taken == ("a.Q8_0.gguf",)


def test_a_missing_file_names_what_is_near() -> None:
    with pytest.raises(NotOnHubError) as caught:
        select(("a.Q4_K_S.gguf", "b.txt"), model_format="gguf", quantization="Q4_K_M", file="a.{quantization}.gguf")
    assert caught.value.details == ("it has `a.Q4_K_S.gguf`",)


def test_finds_a_quantization_without_a_template() -> None:
    paths = ("m-Q4_K_M-00002-of-00002.gguf", "m-Q4_K_M-00001-of-00002.gguf", "m-Q4_K.gguf", "mmproj-Q4_K_M.gguf")
    parts = select(paths, model_format="gguf", quantization="q4_k_m")
    assert parts == ("m-Q4_K_M-00001-of-00002.gguf", "m-Q4_K_M-00002-of-00002.gguf")
    assert select(paths, model_format="gguf", quantization="Q4_K") == ("m-Q4_K.gguf",)
    with pytest.raises(NotOnHubError, match="no GGUF file for `Q8_0`"):
        select(paths, model_format="gguf", quantization="Q8_0")
    assert select(("only.gguf",), model_format="gguf", quantization="Q8_0") == ("only.gguf",)


def gguf_files(*paths: str) -> tuple[str, ...]:
    return select(paths, model_format="gguf", quantization="Q4_K_M")


def test_one_set_of_several_that_hold_the_same() -> None:
    parts = ("m-Q4_K_M-00001-of-00002.gguf", "m-Q4_K_M-00002-of-00002.gguf")
    assert gguf_files(*parts, "m-Q4_K_M.gguf", "m-Q4_K_M-imatrix.gguf") == ("m-Q4_K_M.gguf",)
    assert gguf_files("Q4_K_M/m-Q4_K_M.gguf", *parts) == parts
    assert gguf_files(*(f"Q4_K_M/{part}" for part in parts)) == tuple(f"Q4_K_M/{part}" for part in parts)
    assert select((*SHARDS, "model.safetensors", "model.fp16.safetensors", "model.safetensors.index.json")) == (
        "model.safetensors",
    )
    assert select(("model.fp16-00001-of-00001.safetensors", *SHARDS, "adapter_model.safetensors")) == SHARDS


def test_files_that_an_index_may_hold_together_come_together() -> None:
    paths = ("embeddings.safetensors", "layers.safetensors", "model.safetensors.index.json")
    assert select(paths) == paths


def test_a_missing_part_is_named_before_anything_is_fetched() -> None:
    with pytest.raises(NotOnHubError, match=r"has 2 of the 3 parts of `m-Q4_K_M\.gguf`") as caught:
        gguf_files("m-Q4_K_M-00001-of-00003.gguf", "m-Q4_K_M-00003-of-00003.gguf")
    assert caught.value.details == ("`m-Q4_K_M-00002-of-00003.gguf` is missing",)
    with pytest.raises(NotOnHubError, match="has 1 of the 2 parts"):
        select(SHARDS[:1])


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "C:\\x",
        "C:x",
        "a\\b",
        "a\0b",
        "a\nb",
        "",
        ".",
        "a//b",
        "a/",
        "x" * 201,
        "/".join(["abc"] * 400),
        "\ud800",
    ],
)
def test_hostile_names_are_refused(path: str) -> None:
    with pytest.raises(UnsafeFileError):
        check_path(path)
    with pytest.raises(UnsafeFileError):
        select((*MISTRAL, path))


@given(
    st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "", "a", "C:", "\\", "\0"]), max_size=6).map("/".join)
)
@example("..\\x")
def test_a_name_that_passes_stays_inside(path: str) -> None:
    try:
        check_path(path)
    except UnsafeFileError:
        return
    root = Path("/root/folder")
    assert (root / path).is_relative_to(root)
    assert ".." not in Path(path).parts
    assert "\0" not in path
