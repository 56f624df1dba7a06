"""What a user reads first when an engine fails: the real cause, for each engine, whatever it printed itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.engines.starting import memory_limit
from tests.launcher.commands import PROGRAM, Done, processes_with, started, wait_for_event
from tests.weights.built import BuiltWeights

pytestmark = [
    pytest.mark.engine,
    pytest.mark.index,
    pytest.mark.skipif(sys.platform != "linux", reason="engines are found by /proc, and limited as only Linux does"),
]

READY_WITHIN_S = 400.0
# What is in the command of the engine's own process, and not in its guard's.
COMMANDS = {
    "llama.cpp": "runners/llama_cpp.py",
    "llama-cpp-python": "runners/llama_cpp_python.py",
    "transformers": "runners/transformers.py",
    "vllm": "runners/vllm_server.py",
}
ENGINES = tuple(COMMANDS)
OF_FOLDERS = ("transformers", "vllm")


def weights_for(engine: str, built: BuiltWeights) -> Path:
    return built["mistral"] / "pytorch" if engine in OF_FOLDERS else built["mistral-gguf"] / "Q4_K_M.gguf"


def failed(*arguments: str, limit_kib: int | None = None) -> Done:
    """Run a launch that must fail, with at most so much memory for each of its processes."""
    limit = memory_limit(limit_kib) if limit_kib else ()
    done = subprocess.run(
        (*limit, sys.executable, "-P", "-c", PROGRAM, *arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=READY_WITHIN_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, ""), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def cause_of(done: Done) -> str:
    """Return the line that says why: the first that is no progress."""
    return next(line for line in done.err.splitlines() if line.startswith("error: "))


def engine_of(launch: subprocess.Popen[str], engine: str) -> int:
    """Return the engine's own process as soon as there is one."""
    while launch.poll() is None:
        for pid in processes_with("XDG_RUNTIME_DIR", os.environ["XDG_RUNTIME_DIR"]):
            line = Path(f"/proc/{pid}/cmdline").read_text()
            if COMMANDS[engine] in line and "guard.py" not in line:
                return pid
        time.sleep(0.001)
    raise AssertionError("there was no engine")


def error_after(launch: subprocess.Popen[str]) -> dict[str, object]:
    """Return the error with which a launch ends that prints events."""
    assert launch.wait(60) == 1
    assert launch.stdout is not None
    error: dict[str, object] = json.loads(launch.stdout.read().splitlines()[-1])
    return error


@pytest.mark.parametrize("engine", ENGINES)
def test_it_is_killed_while_it_loads(engine: str, built_weights: BuiltWeights) -> None:
    with started(str(weights_for(engine, built_weights)), "--engine", engine, "--port", "0", "--json") as launch:
        os.kill(engine_of(launch, engine), signal.SIGKILL)
        error = error_after(launch)
    assert (error["event"], error["kind"]) == ("error", "load")
    assert f"`{engine}` ended by SIGKILL" in str(error["message"])


@pytest.mark.parametrize("engine", ENGINES)
def test_it_is_killed_while_it_streams(engine: str, built_weights: BuiltWeights) -> None:
    """The client's stream ends with the cause, and with the same the launch, if it may not start its engine again."""
    options = ("--engine", engine, "--port", "0", "--json", "--max-restarts", "0")
    with started(str(weights_for(engine, built_weights)), *options) as launch:
        ready = wait_for_event(launch, "ready")
        url = urlsplit(ready["url"])
        body = {"model": ready["name"], "prompt": "A long story:", "stream": True, "max_tokens": 4000}
        with contextlib.closing(http.client.HTTPConnection(str(url.hostname), url.port, timeout=60)) as client:
            client.request("POST", f"{url.path}/completions", json.dumps(body), {"Content-Type": "application/json"})
            answer = client.getresponse()
            assert answer.readline().startswith(b"data: ")
            os.kill(engine_of(launch, engine), signal.SIGKILL)
            rest = answer.read().decode()
        error = error_after(launch)
    assert "[DONE]" not in rest
    assert f"`{engine}` ended by SIGKILL while it answered" in rest
    assert f"`{engine}` ended by SIGKILL" in str(error["message"])


@pytest.mark.parametrize("engine", OF_FOLDERS)
def test_an_architecture_that_it_does_not_know(engine: str, built_weights: BuiltWeights, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(weights_for(engine, built_weights), tmp_path / "nosuch"))
    change(folder / "config.json", architectures=["NoSuchForCausalLM"], model_type="nosuch")
    assert "`NoSuchForCausalLM`" in cause_of(failed(str(folder), "--engine", engine, "-p", "x"))


@pytest.mark.parametrize("engine", ["llama.cpp", "llama-cpp-python"])
def test_a_gguf_of_an_architecture_that_it_does_not_know(
    engine: str, built_weights: BuiltWeights, tmp_path: Path
) -> None:
    data = bytearray(weights_for(engine, built_weights).read_bytes())
    where = data.index(b"llama", data.index(b"general.architecture"))
    data[where : where + 5] = b"xlama"
    (tmp_path / "x.Q4_K_M.gguf").write_bytes(data)
    assert "`xlama`" in cause_of(failed(str(tmp_path / "x.Q4_K_M.gguf"), "--engine", engine, "-p", "x"))


@pytest.mark.parametrize(
    ("engine", "weights", "concurrency", "limit_kib"),
    [("llama.cpp", "wheel", "16", 2_000_000), ("transformers", "smollm2-pytorch", "32", 6_000_000)],
)
def test_a_context_that_the_memory_cannot_hold(
    engine: str, weights: str, concurrency: str, limit_kib: int, built_weights: BuiltWeights
) -> None:
    """The whole context of the model, for so many requests at once."""
    asked = (str(built_weights[weights]), "--engine", engine, "--context-length", "max", "--concurrency", concurrency)
    assert "not enough memory" in cause_of(failed(*asked, "-p", "x", limit_kib=limit_kib))


def test_a_memory_limit_that_vllm_cannot_work_in(built_weights: BuiltWeights) -> None:
    model = str(built_weights["smollm2-pytorch"])
    assert "not enough memory" in cause_of(failed(model, "--engine", "vllm", "-p", "x", limit_kib=2_400_000))


@pytest.mark.parametrize(
    ("engine", "cause"),
    [
        ("transformers", "the model's config contradicts its weights"),
        ("vllm", "vLLM has no code here for weights quantized to 8 bits"),
    ],
)
def test_a_quantization_config_that_contradicts_the_weights(
    engine: str, cause: str, built_weights: BuiltWeights, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(built_weights["mistral-gptq"], tmp_path / "wrong"))
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    change(folder / "config.json", quantization_config={**config, "bits": 8})
    change(folder / "quantize_config.json", bits=8)
    assert cause in cause_of(failed(str(folder), "--engine", engine, "-p", "x"))


def change(file: Path, **values: object) -> None:
    """Give a JSON file other values."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
