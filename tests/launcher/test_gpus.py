"""Which GPUs a launch uses: a count, numbers, none; and how many a model can be split over."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import ResolutionError, plan
from launcher.gpus import GpusAsked, gpu_count, gpus_to_use, with_gpus
from launcher.settling import settle
from registry.spec import Gpu, Machine
from tests.fakes.configured import LLAMA, publish_folder, weights_asked_for, write_layer
from tests.fakes.hub import HubServer
from tests.launcher.commands import Run

GIB = 1 << 30


def _gpu(number: int) -> Gpu:
    return Gpu(number, "NVIDIA A10G", 24 * GIB, "580.95", compute=(8, 6), cuda=(13, 0))


MACHINE = Machine("Linux", "x86_64", 16, 64 * GIB, gpus=tuple(_gpu(number) for number in (0, 1, 3)))
NO_GPU = MACHINE._replace(gpus=())


def _numbers(asked: GpusAsked | None) -> list[int]:
    return [gpu.number for gpu in gpus_to_use(with_gpus(MACHINE, asked), asked)]


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        (None, [0]),
        ("auto", [0]),
        (2, [0, 1]),
        ("2", [0, 1]),
        ("0,3", [0, 3]),
        ("3,1", [3, 1]),
        ("1,", [1]),
        ((3,), [3]),
        ([0, 1, 1], [0, 1]),
        ("none", []),
        (0, []),
    ],
)
def test_a_count_or_numbers(asked: GpusAsked | None, numbers: list[int]) -> None:
    assert _numbers(asked) == numbers
    expected = None if asked in (None, "auto") else len(numbers)
    assert gpu_count(with_gpus(MACHINE, asked), asked) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (4, "4 GPUs were asked for; there are 3 here"),
        ("0,2", "GPU 2 was asked for; there are 3 here"),
    ],
)
def test_more_than_there_are(asked: GpusAsked, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,3")
    with pytest.raises(ResolutionError) as caught:
        with_gpus(MACHINE, asked)
    assert caught.value.message == message
    assert caught.value.details[0] == "GPU 0: NVIDIA A10G"
    assert caught.value.details[-1] == "`CUDA_VISIBLE_DEVICES` is `0,1,3`"
    assert caught.value.hint == "--gpus 3"


def test_where_there_is_none() -> None:
    with pytest.raises(ResolutionError, match="1 GPU was asked for; there is none here") as caught:
        with_gpus(NO_GPU, 1)
    assert caught.value.hint == "--gpus none"


@pytest.mark.parametrize("asked", ["two", "0;1", "-1", -1, (), True])
def test_what_makes_no_sense(asked: GpusAsked) -> None:
    with pytest.raises(ResolutionError, match="which GPUs to use"):
        with_gpus(MACHINE, asked)


@pytest.fixture
def layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where a test writes its catalogue entry, on a machine with three GPUs."""
    path = tmp_path / "weighed.yaml"
    monkeypatch.setenv("LAUNCH_REGISTRY", str(path))
    monkeypatch.setattr("launcher.planning.read_machine", lambda: MACHINE)
    return path


def test_heads_that_cannot_be_split_are_refused_before_the_download(run: Run, hub: HubServer, layer: Path) -> None:
    publish_folder(hub, "org/weighed", LLAMA)  # 12 heads, 3 KV heads
    write_layer(layer, {"pytorch": ("none", "org/weighed")})
    assert settle(plan("weighed", engine="vllm", gpus=3)).settings.gpus == (0, 1, 3)
    done = run("weighed", "--engine", "vllm", "--gpus", "2", "-p", "hello")
    assert done.code == 1
    assert "`vllm` cannot split 12 attention heads and 3 KV heads over 2 GPUs: 1, 3, 6 or 12 would do" in done.err
    assert weights_asked_for(hub) == []


def test_layers_are_split_over_any_number(hub: HubServer, layer: Path) -> None:
    publish_folder(hub, "org/weighed", LLAMA)
    write_layer(layer, {"pytorch": ("none", "org/weighed")})
    assert settle(plan("weighed", engine="transformers", gpus="0,1")).settings.gpus == (0, 1)


def test_what_is_not_distributed_runs_on_one_gpu(layer: Path) -> None:
    """KAITO states it of this model."""
    layer.write_text("[]")
    line = {"model_format": "pytorch", "quantization": "none", "engine": "vllm"}
    with pytest.raises(ResolutionError) as caught:
        plan("mistral-instruct-v0.2", gpus=2, **line)  # type: ignore[arg-type]
    assert any("the catalogue says that it is not distributed" in detail for detail in caught.value.details)
    assert plan("mistral-instruct-v0.2", gpus=1, **line).settings.gpus == (0,)  # type: ignore[arg-type]


@pytest.mark.parametrize("words", [("--gpus", "none"), ("--n-gpu", "none")])
def test_without_gpus_it_is_the_build_for_the_cpu(run: Run, layer: Path, words: tuple[str, ...]) -> None:
    layer.write_text("[]")
    shown = run("mistral-instruct-v0.2", "-f", "awq", "--engine", "vllm", *words, "--dry-run", "--json").json
    assert shown["device"].startswith("CPU, ")


def test_xinferences_words(run: Run, layer: Path) -> None:
    layer.write_text("[]")
    line = ("mistral-instruct-v0.2", "-f", "awq", "--engine", "vllm", "--dry-run")
    assert run(*line, "--gpu-idx", "3", "--n-gpu", "1").code == 2
    assert run(*line, "--gpu-idx", "3").code == 0
    assert "error: GPU 7 was asked for" in run(*line, "--gpu-idx", "7").err
