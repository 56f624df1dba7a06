"""What a model computes with: as asked, by the weights, or by what this machine lacks, with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from engines.index import CAPABILITIES
from launcher.precision import Dtype, choose_dtype
from registry.errors import ResolutionError
from registry.facts import WeightFacts
from registry.resolution import resolve
from registry.spec import Capability, Gpu, Machine, Request, Resolution
from tests.launcher.commands import Run
from tests.registry.entries import model, spec

GB = 1_000_000_000
OLD_CPU = Machine("Linux", "x86_64", cores=8, memory_bytes=16 * GB)
T4 = OLD_CPU._replace(gpus=(Gpu(0, "Tesla T4", 16 * GB, "580.95", compute=(7, 5), cuda=(13, 0)),))
FLOAT32 = "this CPU has no bfloat16, and is twice as fast with float32"


def _dtype(
    machine: Machine,
    engine: str = "transformers",
    *,
    asked: str | None = None,
    model_format: str = "pytorch",
    quantization: str = "none",
    size: float = 1,
    facts: WeightFacts | None = None,
    **resources: Any,
) -> Dtype:
    entry = spec(model_format, size, (quantization,)) | ({"resources": resources} if resources else {})
    found = model(specs=[entry])
    choice: Resolution = resolve(
        Request("small", engine=engine), found, capabilities=CAPABILITIES, machine=machine, installed=frozenset()
    )
    return choose_dtype(asked, choice, _capability(engine), machine, facts)


def _capability(engine: str) -> Capability:
    return next(each for each in CAPABILITIES if each.engine == engine)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("bfloat16", "bfloat16"),
        ("BF16", "bfloat16"),
        ("half", "float16"),
        ("torch.float32", "float32"),
        ("fp16", "float16"),
    ],
)
def test_what_is_asked_for_is_taken(asked: str, meant: str) -> None:
    assert _dtype(OLD_CPU, asked=asked) == Dtype(meant)


def test_a_dtype_that_there_is_not() -> None:
    with pytest.raises(ResolutionError, match="There is no dtype `int4`") as caught:
        _dtype(OLD_CPU, asked="int4")
    assert caught.value.hint == "--dtype auto, bfloat16, float16 or float32"


def test_gguf_has_its_own_numbers() -> None:
    assert _dtype(OLD_CPU, "llama.cpp", model_format="gguf", quantization="Q4_0") == Dtype("auto")
    with pytest.raises(ResolutionError, match="means nothing for gguf") as caught:
        _dtype(OLD_CPU, "llama.cpp", model_format="gguf", quantization="Q4_0", asked="float16")
    assert "-- --cache-type-k f16" in str(caught.value.hint)


def test_a_machine_with_bfloat16_takes_what_the_weights_have() -> None:
    assert _dtype(OLD_CPU._replace(has_bfloat16=True)) == Dtype("auto")
    assert _dtype(T4._replace(has_bfloat16=True)) == Dtype("auto")


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_a_gpu_without_bfloat16_takes_float16(engine: str) -> None:
    assert _dtype(T4, engine) == Dtype("float16", "this GPU has no bfloat16")
    assert _dtype(T4, engine, facts=WeightFacts(dtype="bfloat16")).name == "float16"
    assert _dtype(T4, engine, facts=WeightFacts(dtype="float16")) == Dtype("auto")
    assert _dtype(T4, engine, precision="float32") == Dtype("auto")


def test_an_old_cpu_is_faster_with_float32() -> None:
    assert _dtype(OLD_CPU) == _dtype(OLD_CPU, "vllm") == Dtype("float32", FLOAT32)
    assert _dtype(OLD_CPU, model_format="gptq", quantization="Int4", size=7).name == "float32"


def test_vllm_computes_with_packed_weights_in_halves_only() -> None:
    assert _dtype(OLD_CPU, "vllm", model_format="gptq", quantization="Int4") == Dtype("auto")


def test_float32_that_does_not_fit_is_not_taken() -> None:
    found = _dtype(OLD_CPU, size=7)
    assert found.name == "bfloat16"
    assert "leave too little of the memory" in str(found.reason)


def test_the_reason_is_a_line_of_the_plan(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.planning.read_machine", lambda: OLD_CPU)
    line = ("mistral-instruct-v0.2", "-f", "gptq", "--dry-run")
    assert f"  why       dtype `float32`: {FLOAT32}\n" in run(*line).out
    assert "dtype `" not in run(*line, "--dtype", "float32").out
    monkeypatch.setenv("LAUNCH_DTYPE", "float8")
    assert "error: There is no dtype `float8`\n" in run(*line).err
