"""llama-cpp-python: its command, its options, its last words; and, with the real engine, the whole contract."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.base import Address, Settings
from engines.conformance import Checkpoint
from engines.generation import Target
from engines.llama_cpp_python import RUNNER, LlamaCppPython
from engines.process import EngineProcess
from engines.session import Session
from registry.errors import GenerationError, LoadError, OutOfMemoryError
from registry.spec import Chat, Reasoning
from tests.engines.starting import (
    RealEngineConformance,
    Start,
    children_of,
    memory_limit,
    of_another_architecture,
    starting,
)
from tests.fakes.smollm2 import install_smollm2

ENGINE = LlamaCppPython()
SOCKET = Address("http://localhost", Path("/run/e.sock"))
CONTEXT_LENGTH = 1024


def command_of(settings: Settings, address: Address = SOCKET) -> dict[str, str]:
    command = ENGINE.command("/env/bin/python", settings, address)
    assert command[:3] == ("/env/bin/python", "-P", str(RUNNER))
    return dict(zip(command[3::2], command[4::2], strict=True))


def test_each_request_has_the_whole_context() -> None:
    settings = Settings("m", Path("/m.gguf"), 4096, 3, 7, 8, ("--flash-attn", "--use-mlock"))
    assert command_of(settings) == {
        "--model": "/m.gguf",
        "--alias": "m",
        "--socket": "/run/e.sock",
        "--ctx-size": "4096",
        "--parallel": "3",
        "--n-threads": "7",
        "--n-threads-batch": "8",
        "--n-batch": "128",
        "--flash-attn": "--use-mlock",
    }


def test_gpus_get_all_layers_and_others_are_not_seen() -> None:
    settings = Settings("m", Path("/m.gguf"), 4096, 1, 7, 8, accelerator="cuda", gpus=(0, 2))
    command = command_of(settings)
    assert command["--n-gpu-layers"] == "-1"
    assert "--n-batch" not in command
    assert ENGINE.variables(settings)["CUDA_VISIBLE_DEVICES"] == "0,2"
    assert "CUDA_VISIBLE_DEVICES" not in ENGINE.variables(settings._replace(accelerator="cpu", gpus=()))


def test_how_the_model_talks_and_thinks_is_handed_over() -> None:
    chat = Chat(template="{{ messages }}", reasoning=Reasoning("<think>", "</think>"), tool_calls="hermes")
    command = command_of(Settings("m", Path("/m.gguf"), 4096, 1, 7, 8, chat=chat))
    assert command["--chat-template"] == "{{ messages }}"
    assert (command["--reasoning-start"], command["--reasoning-end"]) == ("<think>", "</think>")
    assert command["--tool-calls"] == "hermes"
    unknown = Settings("m", Path("/m.gguf"), 4096, 1, 7, 8, chat=Chat(tool_calls="smoke signals"))
    assert "--tool-calls" not in command_of(unknown)


def test_without_a_socket_it_listens_on_a_port() -> None:
    command = command_of(Settings("m", Path("m"), 1, 1, 1, 1), Address("http://127.0.0.1:8123"))
    assert (command["--host"], command["--port"]) == ("127.0.0.1", "8123")


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (
            "gguf_init_from_reader: failed to read magic\nllama-cpp-python: error: Failed to load model from file: m",
            "the model file is not a GGUF",
        ),
        (
            "llama_init_from_model: quantized V cache requires flash_attn to be enabled\n"
            "llama-cpp-python: error: Failed to create llama_context",
            "a quantized V cache needs flash attention",
        ),
        ("ModuleNotFoundError: No module named 'llama_cpp'", "`llama_cpp` is not installed where the engine runs"),
        (
            "llama-cpp-python: error: [Errno 2] No such file or directory: 'chat.jinja'",
            "llama-cpp-python could not start: [Errno 2] No such file or directory: 'chat.jinja'",
        ),
    ],
)
def test_its_last_words_are_understood(log: str, message: str) -> None:
    cause = ENGINE.cause_of(f"llama_model_loader: loading\n{log}\n")
    assert cause is not None
    assert cause.message == message


def test_a_log_without_an_error_has_no_cause() -> None:
    assert ENGINE.cause_of("llama_model_loader: loaded meta data\nllama-cpp-python: ready at /e.sock") is None


def run_runner(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-P", str(RUNNER), "--alias", "m", "--ctx-size", "512", *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "m", "--no-such-option", "1"), "unrecognized arguments: --no-such-option 1"),
        (("--model", "m", "--n-gpu", "1"), "unrecognized arguments: --n-gpu 1"),
        (("--model", "m", "--type-k", "q1_0"), "invalid choice: 'q1_0'"),
        (("--model", "m", "--tensor-split", "much"), "invalid _proportions value: 'much'"),
        ((), "the following arguments are required: --model"),
    ],
)
def test_the_runner_refuses_options_that_it_does_not_know(arguments: tuple[str, ...], words: str) -> None:
    result = run_runner(*arguments)
    assert result.returncode == 2
    cause = ENGINE.cause_of(result.stderr)
    assert cause is not None
    assert words in cause.message


def test_the_runner_names_a_missing_file(tmp_path: Path) -> None:
    result = run_runner("--model", str(tmp_path / "gone.gguf"))
    assert result.returncode == 1
    cause = ENGINE.cause_of(result.stderr)
    assert cause is not None
    assert cause.message == f"the model file `{tmp_path}/gone.gguf` is missing"


# --- the real engine -------------------------------------------------------------------------------------------------

# Two threads wait for each other at every step of the network, for seconds where something else has their cores.
ONE_THREAD = ("--n-threads", "1", "--n-threads-batch", "1")
MEMORY_LIMIT = memory_limit(2_000_000)


@pytest.mark.engine
class TestConformance(RealEngineConformance):
    engine = ENGINE

    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, engine_cache: Path) -> Checkpoint:
        weights = install_smollm2(engine_cache / "smollm2")
        return Checkpoint(weights, quantization="Q4_1", arguments=ONE_THREAD)


@pytest.fixture
def weights(engine_cache: Path) -> Path:
    return install_smollm2(engine_cache / "smollm2")


def settings_of(model: Path, *options: str, context_length: int = CONTEXT_LENGTH) -> Settings:
    return Settings("smollm2", model, context_length, 1, 1, 1, options)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts the engine on a file, with options; `limit` goes before the command."""
    with starting(ENGINE, tmp_path, settings_of) as start:
        yield start


def session_of(process: EngineProcess) -> Session:
    process.wait_ready(120)
    return Session(process.address, Target("smollm2", ENGINE.name, ENGINE.wire, CONTEXT_LENGTH))


@pytest.mark.engine
def test_a_running_answer_is_never_interrupted_by_another(start: Start, weights: Path) -> None:
    session = session_of(start(weights))
    alone = session.generate("Once upon a time", temperature=0, max_tokens=64)
    with session.generate_stream("Once upon a time", temperature=0, max_tokens=64) as stream:
        next(stream)
        other: list[str] = []
        asking = threading.Thread(target=lambda: other.append(session.generate("Hello", max_tokens=4).text))
        asking.start()
        assert stream.read().text == alone.text
    asking.join()
    assert len(other) == 1


@pytest.mark.engine
def test_waiting_for_ones_turn_is_told_apart_from_reading_the_prompt(start: Start, weights: Path) -> None:
    session = session_of(start(weights))
    with session.generate_stream("Once upon a time", temperature=0, max_tokens=64) as stream:
        next(stream)
        waited: list[float] = []
        asking = threading.Thread(target=lambda: waited.append(session.generate("Hello", max_tokens=4).timings.queue_s))
        asking.start()
        time.sleep(0.3)
        stream.read()
    asking.join()
    assert waited[0] > 0.2


@pytest.mark.engine
def test_what_is_kept_of_a_conversation_changes_no_answer(start: Start, weights: Path) -> None:
    first = [{"role": "user", "content": "Tell me about boats, rivers, lakes and the sea. " * 20}]
    session = session_of(start(weights))
    reply = session.chat(first, temperature=0, max_tokens=24)
    talk = [*first, reply.message, {"role": "user", "content": "And about ships?"}]
    kept = session.chat(talk, temperature=0, max_tokens=24)
    session.generate("Something else altogether", max_tokens=1)
    anew = session.chat(talk, temperature=0, max_tokens=24)
    assert kept.text == anew.text
    assert kept.timings.first_token_s < anew.timings.first_token_s


@pytest.mark.engine
def test_a_client_that_leaves_while_its_prompt_is_read_frees_the_slot(start: Start, weights: Path) -> None:
    session = session_of(start(weights))
    prompt = " word" * (CONTEXT_LENGTH - 100)
    began = time.monotonic()
    session.generate(prompt, max_tokens=1)
    reading_s = time.monotonic() - began
    stream = session.generate_stream(prompt.replace("word", "other"), max_tokens=1)
    reading = threading.Thread(target=lambda: list(stream))
    reading.start()
    time.sleep(reading_s / 10)
    stream.close()
    reading.join()
    began = time.monotonic()
    session.generate("Hello", max_tokens=1)
    assert time.monotonic() - began < reading_s / 2


@pytest.mark.engine
def test_its_options_are_those_of_llama_cpp_python(start: Start, weights: Path) -> None:
    options = ("--flash-attn", "--type-k", "q8_0", "--type-v", "q8_0", "--n_batch", "64", "--n-ubatch", "32")
    more = ("--no-use-mmap", "--n-gpu-layers", "0", "--split-mode", "none", "--rope-scaling-type", "linear")
    assert session_of(start(weights, *options, *more)).generate("Hello", max_tokens=2).usage.completion_tokens >= 1


@pytest.mark.engine
def test_another_template_may_be_given(start: Start, weights: Path, tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    session = session_of(start(weights, "--chat-template", str(template)))
    assert session.chat("Hello", max_tokens=1).usage.prompt_tokens == 1


@pytest.mark.engine
def test_a_template_that_cannot_be_read(start: Start, weights: Path) -> None:
    with pytest.raises(LoadError, match=r"could not start: .*end of"):
        start(weights, "--chat-template", "{% for").wait_ready(120)


@pytest.mark.engine
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the engine in /proc")
def test_it_is_killed_while_loading(start: Start, weights: Path) -> None:
    process = start(weights)
    engines: list[int] = []

    def kill(line: str) -> None:
        if not engines and "llama_model_loader" in line:
            engines.extend(children_of(process.pid))
            os.kill(engines[0], signal.SIGKILL)

    with pytest.raises(LoadError, match="`llama-cpp-python` ended by SIGKILL") as caught:
        process.wait_ready(120, kill)
    assert caught.value.exit_code == 137


@pytest.mark.engine
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the engine in /proc")
def test_it_is_killed_while_it_answers(start: Start, weights: Path) -> None:
    process = start(weights)
    with session_of(process).generate_stream("Once upon a time", temperature=0) as stream:
        next(stream)
        os.kill(children_of(process.pid)[0], signal.SIGKILL)
        with pytest.raises(GenerationError, match=r"ended while it answered|broke off its answer"):
            stream.read()
    assert process.wait_ended(10)
    assert str(process.failure()).startswith("`llama-cpp-python` ended by SIGKILL")


@pytest.mark.engine
@pytest.mark.parametrize(
    ("kept_bytes", "message"),
    [
        (0, "the model file is not a GGUF"),
        (2_000, "the GGUF is cut short or damaged: failed to read key-value pairs"),
        (50_000_000, "the GGUF is cut short or damaged: data is not within the file bounds"),
    ],
)
def test_a_file_that_is_cut_short(start: Start, weights: Path, tmp_path: Path, kept_bytes: int, message: str) -> None:
    short = tmp_path / "short.gguf"
    shutil.copy(weights, short)
    os.truncate(short, kept_bytes)
    with pytest.raises(LoadError) as caught:
        start(short).wait_ready(120)
    assert caught.value.message == message


@pytest.mark.engine
def test_an_architecture_that_it_does_not_know(start: Start, weights: Path, tmp_path: Path) -> None:
    other = of_another_architecture(weights, tmp_path / "other.gguf")
    with pytest.raises(LoadError, match="does not know the architecture `xlama`"):
        start(other).wait_ready(120)


@pytest.mark.engine
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process so")
def test_a_context_that_the_memory_cannot_hold(start: Start, weights: Path) -> None:
    with pytest.raises(OutOfMemoryError, match="not enough memory"):
        start(weights, context_length=400_000, limit=MEMORY_LIMIT).wait_ready(120)
