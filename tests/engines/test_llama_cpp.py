"""llama.cpp: its command, its runner's options, its last words; and, with the real engine, what it does."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.base import Address, Settings
from engines.llama_cpp import RUNNER, LlamaCpp, default_threads
from engines.process import EngineProcess
from registry.errors import LoadError, OutOfMemoryError
from registry.spec import Chat, Machine
from tests.engines.starting import Start, children_of, memory_limit, of_another_architecture, starting
from tests.fakes.smollm2 import install_smollm2

SOCKET = Address("http://localhost", Path("/run/e.sock"))


def test_its_context_is_the_total_of_all_slots() -> None:
    settings = Settings("m", Path("/m.gguf"), 4096, 3, 7, 8, ("--flash-attn", "on"))
    command = LlamaCpp().command("/env/bin/python", settings, SOCKET)
    assert command[:3] == ("/env/bin/python", "-P", str(RUNNER))
    options = dict(zip(command[3::2], command[4::2], strict=True))
    assert options == {
        "--model": "/m.gguf",
        "--alias": "m",
        "--host": "/run/e.sock",
        "--ctx-size": "12288",
        "--parallel": "3",
        "--threads": "7",
        "--threads-batch": "8",
        "--flash-attn": "on",
    }


def test_the_catalogues_template_goes_before_the_files() -> None:
    settings = Settings("m", Path("/m.gguf"), 1, 1, 1, 1, ("--verbosity", "2"), chat=Chat(template="{{ messages }}"))
    command = LlamaCpp().command("python", settings, SOCKET)
    assert command[-4:] == ("--chat-template", "{{ messages }}", "--verbosity", "2")


def test_on_gpus_all_layers_are_there_and_only_those_gpus_are_seen() -> None:
    settings = Settings("m", Path("/m.gguf"), 1024, 1, 1, 1, accelerator="cuda", gpus=(1, 3))
    command = LlamaCpp().command("python", settings, SOCKET)
    assert command[command.index("--gpu-layers") + 1] == "all"
    assert LlamaCpp().variables(settings)["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert "CUDA_VISIBLE_DEVICES" not in LlamaCpp().variables(settings._replace(accelerator="metal", gpus=()))


def test_a_model_of_vectors_is_started_for_them() -> None:
    settings = Settings("m", Path("/m.gguf"), 1024, 1, 1, 1, embeds=True)
    assert "--embedding" in LlamaCpp().command("python", settings, SOCKET)


def test_without_a_socket_it_listens_on_a_port() -> None:
    command = LlamaCpp().command("python", Settings("m", Path("m"), 1, 1, 1, 1), Address("http://127.0.0.1:8123"))
    where = command.index("--host")
    assert command[where : where + 4] == ("--host", "127.0.0.1", "--port", "8123")


@pytest.mark.parametrize(("cores", "threads"), [(1, (1, 1)), (2, (1, 2)), (16, (15, 16))])
def test_one_core_is_left_free_while_decoding(cores: int, threads: tuple[int, int]) -> None:
    assert default_threads(Machine("Linux", "x86_64", cores, 1 << 30)) == threads


# Lines of real logs, of xllamacpp 2026.10.11549.
WORDS = [
    ("gguf_init_from_reader: invalid magic characters: '<???', expected 'GGUF'", "the model file is not a GGUF"),
    ("gguf_init_from_reader: failed to read magic", "the model file is not a GGUF"),
    (
        "gguf_init_from_reader: this GGUF file is version 99 but this software only supports up to version 3\n"
        "gguf_init_from_reader: failed to read header",
        "the GGUF is of version 99, which this llama.cpp does not know",
    ),
    (
        "gguf_init_from_reader: GGUFv1 is no longer supported, please use a more up-to-date version\n"
        "gguf_init_from_reader: failed to read header",
        "the GGUF is of version 1, which llama.cpp no longer reads",
    ),
    (
        "gguf_init_from_reader: tensor 'token_embd.weight' has invalid ggml type 99. should be in [0, 43)\n"
        "gguf_init_from_reader: failed to read tensor info",
        "llama.cpp does not know the quantization of tensor `token_embd.weight` (type 99)",
    ),
    (
        "llama_model_load: error loading model: unknown model architecture: 'nosuc'",
        "llama.cpp does not know the architecture `nosuc`",
    ),
    (
        "gguf_init_from_reader: failed to read key-value pairs",
        "the GGUF is cut short or damaged: failed to read key-value pairs",
    ),
    (
        "llama_model_load: error loading model: check_tensor_dims: tensor 'token_embd.weight' not found",
        "the GGUF lacks the tensor `token_embd.weight`",
    ),
    (
        "srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18999",
        "llama.cpp cannot listen at `127.0.0.1`, port 18999: it is in use or not allowed",
    ),
    (
        "llama_init_from_model: quantized V cache requires flash_attn to be enabled",
        "a quantized V cache needs flash attention",
    ),
    (
        "llama_adapter_lora_init: failed to open 'a.gguf': No such file or directory\n"
        "common_init_: failed to load lora adapter 'a.gguf'",
        "llama.cpp could not load the adapter `a.gguf`",
    ),
    (
        "common_chat_templates_init: error: parser: Parser Error: Expected }} (Got )",
        "llama.cpp cannot read the chat template: parser: Parser Error: Expected }} (Got )",
    ),
    (
        "ModuleNotFoundError: No module named 'xllamacpp'",
        "`xllamacpp` is not installed where the engine runs",
    ),
    (
        "llama_model_load: error loading model: something new",
        "llama.cpp could not load the model: something new",
    ),
]


@pytest.mark.parametrize(("log", "message"), WORDS)
def test_its_last_words_are_understood(log: str, message: str) -> None:
    cause = LlamaCpp().cause_of(f"0.00.001 I srv init: initializing ...\n0.00.034 E {log}\n0.00.035 I done")
    assert cause is not None
    assert cause.message == message
    assert not cause.is_out_of_memory


@pytest.mark.parametrize(
    "log",
    [
        "E ggml_aligned_malloc: insufficient memory (attempted to allocate 4398.75 MB)",
        "E llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache",
        "ggml_cuda_alloc: allocating 9000.00 MiB on device 0: cudaMalloc failed: out of memory",
        "terminate called after throwing an instance of 'std::bad_alloc'",
    ],
)
def test_out_of_memory_is_recognised(log: str) -> None:
    cause = LlamaCpp().cause_of(log)
    assert cause is not None
    assert cause.is_out_of_memory


def test_a_log_without_an_error_has_no_cause() -> None:
    assert LlamaCpp().cause_of("0.00.000 I srv init: initializing ...\n0.00.340 I srv: loading model '/m.gguf'") is None


def run_runner(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run((sys.executable, "-P", str(RUNNER), *arguments), capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "m", "--no-such-option", "1"), "unrecognized arguments: --no-such-option 1"),
        (("--model", "m", "--ctx", "1"), "unrecognized arguments: --ctx 1"),
        (("--model", "m", "--parallel", "0"), "0 is less than 1"),
        (("--model", "m", "--flash-attn", "maybe"), "invalid choice: 'maybe'"),
        ((), "the following arguments are required: -m/--model"),
    ],
)
def test_the_runner_refuses_options_that_it_does_not_know(arguments: tuple[str, ...], words: str) -> None:
    result = run_runner(*arguments)
    assert result.returncode == 2
    assert words in result.stderr
    cause = LlamaCpp().cause_of(result.stderr)
    assert cause is not None
    assert words in cause.message


def test_the_runner_names_a_missing_file(tmp_path: Path) -> None:
    result = run_runner("--model", str(tmp_path / "gone.gguf"))
    assert result.returncode == 1
    cause = LlamaCpp().cause_of(result.stderr)
    assert cause is not None
    assert cause.message == f"the model file `{tmp_path}/gone.gguf` is missing"


# --- the real engine -------------------------------------------------------------------------------------------------

CHAT = {"messages": [{"role": "user", "content": "Name three colours."}], "stream": True, "temperature": 0}


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=120)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def ask(process: EngineProcess, path: str, body: object = None) -> http.client.HTTPResponse:
    assert process.address.socket is not None
    connection = UnixConnection(process.address.socket)
    connection.request("GET" if body is None else "POST", path, json.dumps(body), {"Connection": "close"})
    return connection.getresponse()


def read_json(process: EngineProcess, path: str, body: object = None) -> Any:
    with ask(process, path, body) as response:
        assert response.status == 200, response.read()
        return json.loads(response.read())


def chunks(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in response:
        if line.startswith(b"data: ") and b"[DONE]" not in line:
            yield json.loads(line.removeprefix(b"data: "))


def requests_under_way(process: EngineProcess) -> int:
    with ask(process, "/metrics") as response:
        lines = response.read().decode().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("llamacpp:requests_processing "))


@pytest.fixture
def weights(engine_cache: Path) -> Path:
    return install_smollm2(engine_cache / "smollm2")


def settings_of(model: Path, *options: str, context_length: int = 1024) -> Settings:
    return Settings("smollm2", model, context_length, 1, 1, 2, options)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts llama.cpp on a file, with options; `limit` goes before the command."""
    with starting(LlamaCpp(), tmp_path, settings_of) as start:
        yield start


@pytest.mark.engine
def test_it_streams_a_chat_and_counts_tokens(start: Start, weights: Path) -> None:
    process = start(weights)
    process.wait_ready(60)
    assert read_json(process, "/v1/models")["data"][0]["id"] == "smollm2"

    with ask(process, "/v1/chat/completions", {**CHAT, "max_tokens": 16}) as response:
        received = list(chunks(response))
    text = "".join(choice["delta"].get("content") or "" for chunk in received for choice in chunk["choices"])
    assert len(received) > 5
    assert text.strip()
    assert received[-1]["choices"][0]["finish_reason"] == "length"

    prompt = read_json(process, "/apply-template", {"messages": CHAT["messages"]})["prompt"]
    tokens = read_json(process, "/tokenize", {"content": prompt, "add_special": True, "parse_special": True})["tokens"]
    answer = read_json(process, "/v1/chat/completions", {**CHAT, "stream": False, "max_tokens": 1})
    assert len(tokens) == answer["usage"]["prompt_tokens"]


@pytest.mark.engine
def test_a_stream_that_is_left_frees_its_slot(start: Start, weights: Path) -> None:
    process = start(weights)
    process.wait_ready(60)
    endless = {**CHAT, "max_tokens": 900, "ignore_eos": True}
    with ask(process, "/v1/chat/completions", endless) as response:
        next(chunks(response))
        assert requests_under_way(process) == 1
    deadline = time.monotonic() + 5
    while requests_under_way(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert requests_under_way(process) == 0


@pytest.mark.engine
def test_other_slots_and_pages_are_not_shown(start: Start, weights: Path) -> None:
    process = start(weights)
    process.wait_ready(60)
    for path, status in {"/slots": 501, "/": 404}.items():
        with ask(process, path) as response:
            assert response.status == status
            assert not response.headers["Access-Control-Allow-Origin"]


@pytest.mark.engine
def test_llama_servers_options_reach_it(start: Start, weights: Path) -> None:
    options = (
        "-fa",
        "on",
        "-ctk",
        "q8_0",
        "-ctv",
        "q8_0",
        "-b",
        "256",
        "-ub",
        "128",
        "-s",
        "5",
        "--no-mmap",
        "-ngl",
        "0",
    )
    process = start(weights, *options, "--cache-ram", "0", "--rope-scaling", "linear", "--warmup", "-sm", "none")
    process.wait_ready(60)
    assert read_json(process, "/props")["default_generation_settings"]["n_ctx"] == 1024


@pytest.mark.engine
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the engine in /proc")
def test_it_is_killed_while_loading(start: Start, weights: Path) -> None:
    process = start(weights)
    engines: list[int] = []

    def kill(line: str) -> None:
        if not engines and "loading model" in line:
            engines.extend(children_of(process.pid))
            os.kill(engines[0], signal.SIGKILL)

    with pytest.raises(LoadError, match=r"`llama\.cpp` ended by SIGKILL") as caught:
        process.wait_ready(60, kill)
    assert caught.value.exit_code == 137
    assert caught.value.hint is not None
    assert not process.is_alive()


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
    with weights.open("rb") as whole:
        short.write_bytes(whole.read(kept_bytes))
    with pytest.raises(LoadError) as caught:
        start(short).wait_ready(60)
    assert caught.value.message == message


@pytest.mark.engine
def test_a_file_that_is_no_gguf(start: Start, tmp_path: Path) -> None:
    other = tmp_path / "model.gguf"
    other.write_text("a text that somebody renamed")
    with pytest.raises(LoadError, match="the model file is not a GGUF") as caught:
        start(other).wait_ready(60)
    assert any("invalid magic characters" in detail for detail in caught.value.details)


@pytest.mark.engine
def test_an_architecture_that_it_does_not_know(start: Start, weights: Path, tmp_path: Path) -> None:
    other = of_another_architecture(weights, tmp_path / "other.gguf")
    with pytest.raises(LoadError, match="does not know the architecture `xlama`"):
        start(other).wait_ready(60)


@pytest.mark.engine
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process so")
def test_a_context_that_the_memory_cannot_hold(start: Start, weights: Path) -> None:
    limit = memory_limit(2_000_000)
    with pytest.raises(OutOfMemoryError, match="not enough memory"):
        start(weights, context_length=400_000, limit=limit).wait_ready(60)


@pytest.mark.engine
def test_an_address_that_is_taken(start: Start, weights: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(LoadError, match=f"cannot listen at `127.0.0.1`, port {port}"):
            start(weights, "--host", "127.0.0.1", "--port", str(port)).wait_ready(60)
