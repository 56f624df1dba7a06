"""vLLM: its command on CPUs and GPUs, what its log says, and with the real engine what it does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from engines.base import Address, Settings
from engines.generation import Target
from engines.machine import read_machine
from engines.process import EngineProcess
from engines.session import Session
from engines.vllm import REASONING_PLUGIN, RUNNER, Vllm, cache_bytes
from registry.errors import GenerationError, LoadError, OutOfMemoryError
from registry.spec import Architecture, Chat, Reasoning
from tests.engines.starting import Start, children_of, memory_limit, starting
from tests.weights.built import BuiltWeights

SOCKET = Address("http://localhost", Path("/run/e.sock"))
SMOLLM2 = Architecture(layers=30, hidden_size=576, heads=9, kv_heads=3)
SETTINGS = Settings("m", Path("/m"), 1000, 2, 3, 4, model_format="pytorch", architecture=SMOLLM2, memory_bytes=8 << 30)


def command_of(settings: Settings, address: Address = SOCKET) -> tuple[str, ...]:
    return Vllm().command("/env/bin/python", settings, address)


def value_of(option: str, settings: Settings) -> str:
    command = command_of(settings)
    return command[command.index(option) + 1]


# --- the command -----------------------------------------------------------------------------------------------------


def test_it_serves_at_the_socket_what_was_promised() -> None:
    command = command_of(SETTINGS)
    assert command[:3] == ("/env/bin/python", "-P", str(RUNNER))
    expected = {
        "--model": "/m",
        "--served-model-name": "m",
        "--uds": "/run/e.sock",
        "--max-model-len": "1000",
        "--max-num-seqs": "2",
        "--dtype": "auto",
        "--generation-config": "vllm",
        "--load-format": "safetensors",
    }
    assert {option: value_of(option, SETTINGS) for option in expected} == expected
    assert "--trust-remote-code" not in command


def test_without_a_socket_it_listens_on_a_port_of_this_machine() -> None:
    command = command_of(SETTINGS, Address("http://127.0.0.1:8123"))
    where = command.index("--host")
    assert command[where : where + 4] == ("--host", "127.0.0.1", "--port", "8123")


def test_the_cache_of_a_cpu_holds_every_slots_context_in_whole_blocks() -> None:
    blocks = 2 * 8 + 1  # 1,000 tokens are 8 blocks of 128; one more block is vLLM's own
    assert cache_bytes(SMOLLM2, context_length=1000, slots=2) == blocks * 128 * 23_040
    assert value_of("--kv-cache-memory-bytes", SETTINGS) == str(blocks * 128 * 23_040)
    assert value_of("--kv-cache-memory-bytes", SETTINGS._replace(dtype="float32")) == str(2 * blocks * 128 * 23_040)


def test_where_the_layers_are_not_known_the_cache_is_a_share_of_the_memory() -> None:
    assert cache_bytes(Architecture(), context_length=1000, slots=2) is None
    assert value_of("--kv-cache-memory-bytes", SETTINGS._replace(architecture=Architecture())) == str(2 << 30)


def test_on_a_cpu_it_needs_no_worker_process_and_takes_the_threads_it_is_given() -> None:
    variables = Vllm().variables(SETTINGS)
    assert (variables["VLLM_ENABLE_V1_MULTIPROCESSING"], variables["OMP_NUM_THREADS"]) == ("0", "3")
    assert "CUDA_VISIBLE_DEVICES" not in variables
    assert "--tensor-parallel-size" not in command_of(SETTINGS)


@pytest.mark.parametrize(("gpus", "visible"), [((0,), "0"), ((1, 3), "1,3")])
def test_it_is_split_over_the_gpus_that_it_may_see(gpus: tuple[int, ...], visible: str) -> None:
    settings = SETTINGS._replace(accelerator="cuda", gpus=gpus)
    assert value_of("--tensor-parallel-size", settings) == str(len(gpus))
    variables = Vllm().variables(settings)
    assert variables["CUDA_VISIBLE_DEVICES"] == visible
    assert variables["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert not {"VLLM_ENABLE_V1_MULTIPROCESSING", "OMP_NUM_THREADS"} & variables.keys()
    assert "--kv-cache-memory-bytes" not in command_of(settings)


def test_a_fast_start_compiles_nothing() -> None:
    assert "--enforce-eager" in command_of(SETTINGS._replace(starts_fast=True))
    assert "--enforce-eager" not in command_of(SETTINGS._replace(starts_fast=False))


def test_mistrals_own_layout_has_readers_of_its_own() -> None:
    settings = SETTINGS._replace(model_format="mistral", chat=Chat(template="{{ messages }}"))
    options = ("--load-format", "--config-format", "--tokenizer-mode")
    assert {value_of(option, settings) for option in options} == {"mistral"}
    assert "--chat-template" not in command_of(settings)


def test_the_catalogues_template_goes_before_the_weights_own() -> None:
    assert value_of("--chat-template", SETTINGS._replace(chat=Chat(template="{{ messages }}"))) == "{{ messages }}"


@pytest.mark.parametrize(("calls", "parser"), [("qwen", "hermes"), ("llama3", "llama3_json"), ("glm5", "glm47")])
def test_calls_of_tools_are_read_by_the_models_format(calls: str, parser: str) -> None:
    settings = SETTINGS._replace(chat=Chat(tool_calls=calls))
    assert value_of("--tool-call-parser", settings) == parser
    assert "--enable-auto-tool-choice" in command_of(settings)


@pytest.mark.parametrize("calls", [None, "a-format-of-tomorrow"])
def test_where_no_parser_is_known_tools_are_not_offered(calls: str | None) -> None:
    assert "--enable-auto-tool-choice" not in command_of(SETTINGS._replace(chat=Chat(tool_calls=calls)))


def test_json_has_no_white_space_to_lose_oneself_in() -> None:
    assert json.loads(value_of("--structured-outputs-config", SETTINGS))["disable_any_whitespace"] is True


def test_reasoning_is_told_by_the_catalogues_tags() -> None:
    settings = SETTINGS._replace(chat=Chat(reasoning=Reasoning("<think>", "</think>")))
    assert value_of("--reasoning-parser-plugin", settings) == str(REASONING_PLUGIN)
    variables = Vllm().variables(settings)
    assert (variables["LAUNCH_REASONING_START"], variables["LAUNCH_REASONING_END"]) == ("<think>", "</think>")
    assert "--reasoning-parser" not in command_of(SETTINGS)


def test_the_users_own_options_come_last() -> None:
    assert command_of(SETTINGS._replace(arguments=("--dtype", "half")))[-2:] == ("--dtype", "half")


def test_code_of_the_model_is_run_only_if_it_is_trusted() -> None:
    assert "--trust-remote-code" in command_of(SETTINGS._replace(trusts_remote_code=True))


def test_it_tells_nobody_and_asks_no_hub() -> None:
    variables = Vllm().variables(SETTINGS)
    for name in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE"):
        assert variables[name] == "1"


# --- its log: lines of 0.32 ------------------------------------------------------------------------------------------

STAGES = [
    (
        "(APIServer pid=4991) INFO 11-21 17:50:38 [model.py:733] Resolved architecture: LlamaForCausalLM",
        "starting the engine's process for LlamaForCausalLM",
    ),
    (
        "(EngineCore pid=6162) INFO 11-21 17:51:04 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: …",
        "preparing the device",
    ),
    ("(Worker pid=6632) INFO 11-21 17:51:35 [cpu_model_runner.py:68] Starting to load model /m...", "loading weights"),
    (
        "Loading safetensors checkpoint shards:  67% Completed | 2/3 [00:00<00:00,  3.35it/s]",
        "loading weights, 2 of 3 read",
    ),
    (
        "(Worker pid=6632) INFO 11-21 17:51:36 [default_loader.py:501] Loading weights took 0.30 seconds",
        "measuring memory",
    ),
    (
        "(EngineCore pid=6162) INFO 11-21 17:51:37 [kv_cache_utils.py:2327] CPU KV cache size: 46,592 tokens, Maximum "
        "concurrency for 2,048 tokens per request: 22.75x",
        "warming up, with room for 46,592 tokens",
    ),
    (
        "(APIServer pid=4991) INFO 11-21 17:51:45 [entry.py:140] Starting vLLM server on unix:/tmp/e.sock",
        "opening the endpoint",
    ),
    (
        "(EngineCore pid=9) INFO 11-21 18:00 [backends.py:399] Compiling a graph for compile range (1, 2048) takes 9 s",
        "compiled for up to 2048 tokens",
    ),
    (
        "Capturing CUDA graphs (decode, FULL):  50%|█████     | 3/6 [00:01<00:01,  2.10it/s]",
        "recording CUDA graphs, 3 of 6",
    ),
    ("INFO:     Waiting for application startup.", None),
]


@pytest.mark.parametrize(("line", "stage"), STAGES)
def test_its_log_says_what_it_is_doing(line: str, stage: str | None) -> None:
    assert Vllm().stage_of(line) == stage


TRACEBACK = """\
(APIServer pid=1) INFO 11-21 18:13:02 [api_utils.py:286] non-default args: …
(APIServer pid=1) WARNING 11-21 18:13:02 [system_utils.py:255] Found ulimit of 20000 and failed to automatically \
increase with error current limit exceeds maximum limit. This can cause fd limit errors like `OSError: [Errno 24] Too \
many open files`. Consider increasing with ulimit -n
Traceback (most recent call last):
  File "/env/site-packages/pydantic/_internal/_dataclasses.py", line 121, in __init__
    s.__pydantic_validator__.validate_python(ArgsKwargs(args, kwargs), self_instance=s)
{}
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
nanobind: leaked 4 instances!
"""
MODEL = "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n  Value error, "
CORE = """\
(EngineCore pid=2) ERROR 11-21 18:20:00 [core.py:1196] EngineCore failed to start.
(EngineCore pid=2) ERROR 11-21 18:20:00 [core.py:1196] Traceback (most recent call last):
(EngineCore pid=2) ERROR 11-21 18:20:00 [core.py:1196] {}
(EngineCore pid=2) Process EngineCore:
(EngineCore pid=2) Traceback (most recent call last):
(EngineCore pid=2) {}
Traceback (most recent call last):
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{}}
"""
CAUSES = [
    (
        TRACEBACK.format(
            f"{MODEL}Model architectures ['NoSuchForCausalLM'] are not supported for now. Supported architectures: "
            "dict_keys(['AfmoeForCausalLM'])"
        ),
        "vLLM does not know the architecture `NoSuchForCausalLM`",
    ),
    (
        TRACEBACK.format(
            f"{MODEL}The checkpoint you are trying to load has model type `nosuch` but Transformers does not recognize "
            "this architecture. This could be because of an issue with the checkpoint."
        ),
        "vLLM does not know the architecture `nosuch`",
    ),
    (
        TRACEBACK.format(f"{MODEL}Unknown quantization method: bitsandbytes. Must be one of ['awq', 'auto_awq']."),
        "vLLM has no quantization `bitsandbytes`",
    ),
    (
        TRACEBACK.format(
            f"{MODEL}GPTQ group activation ordering (desc_act=True) is no longer supported. [type=value_error]"
        ),
        "vLLM refuses GPTQ weights in act-order, and these are",
    ),
    (
        TRACEBACK.format(f"{MODEL}Unsupported quantization config: bits=4, sym=False [type=value_error]"),
        "vLLM refuses asymmetric GPTQ weights, and these are",
    ),
    (
        CORE.format(
            *["ValueError: Marlin does not support weight_bits = uint8b128. Only types = [ScalarType.uint4b8] are"] * 2
        ),
        "vLLM has no code here for weights quantized to 8 bits",
    ),
    (TRACEBACK.format(f"{MODEL}Something new [type=value_error]"), "vLLM could not start: Something new"),
    (
        CORE.format(*["ValueError: something else: that"] * 2),
        "vLLM could not go on: ValueError: something else: that",
    ),
    (
        "usage: entry.py [-h] [--headless]\nentry.py: error: unrecognized arguments: --no-such-option 3\n",
        "vLLM refused an option: unrecognized arguments: --no-such-option 3",
    ),
    (
        CORE.format(
            *["torch._inductor.exc.InvalidCxxCompiler: No working C++ compiler found in cpp.cxx: (None, 'g++')"] * 2
        ),
        "to compile the model takes a C++ compiler, and there is none",
    ),
    (  # its engine process was killed, after a request had been refused
        "(APIServer pid=1) ERROR 11-21 18:57:59 [serving.py:500] vllm.exceptions.VLLMValidationError: something\n"
        "(APIServer pid=1) ERROR 11-21 18:58:20 [async_llm.py:906] v1.engine.exceptions.EngineDeadError: EngineCore "
        "encountered an issue. See stack trace (above) for the root cause.\nINFO:     Shutting down\n",
        "vLLM's engine process was ended",
    ),
    ("/env/bin/python: No module named vllm", "`vllm` is not installed where the engine runs"),
]


@pytest.mark.parametrize(("log", "message"), CAUSES)
def test_its_last_words_are_understood(log: str, message: str) -> None:
    cause = Vllm().cause_of(log)
    assert cause is not None
    assert cause.message == message
    assert not cause.is_out_of_memory


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            "ValueError: To serve at least one request with the model's max seq len (100000), (2.15 GiB KV cache is "
            "needed, which is larger than the available KV cache memory (0.19 GiB). Based on the available memory, …",
            "the context needs 2.15 GiB of cache, and there are 0.19 GiB for it",
        ),
        (
            "ValueError: Available memory on node 0 (21.01/21.21 GiB) on kv cache allocation is less than requested "
            "memory for kv (83.82 GiB). Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or …",
            "the context needs 83.82 GiB of cache, and 21.01 GiB of memory are free",
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 112.00 MiB. GPU 0 has a total capacity of …",
            "there is not enough memory for the model and its context",
        ),
        ("MemoryError", "there is not enough memory for the model and its context"),
        ("memory allocation of 3145728 bytes failed", "there is not enough memory for the model and its context"),
    ],
)
def test_out_of_memory_is_recognised(error: str, message: str) -> None:
    cause = Vllm().cause_of(CORE.format(error, error))
    assert cause is not None
    assert cause.is_out_of_memory
    assert cause.message == message


def test_a_log_without_an_error_has_no_cause() -> None:
    assert Vllm().cause_of("\n".join(line for line, _ in STAGES)) is None


# --- the real engine -------------------------------------------------------------------------------------------------

MISTRAL = Architecture(layers=2, hidden_size=256, heads=4, kv_heads=2)
READY_WITHIN_S = 300.0


def settings_of(folder: Path, *options: str, **changed: Any) -> Settings:
    cores = read_machine().cores
    settings = Settings("m", folder, 256, 2, cores, cores, options, "pytorch", architecture=MISTRAL)
    return settings._replace(**changed)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts vLLM on a folder, with options; `limit` goes before the command."""
    with starting(Vllm(), tmp_path, settings_of) as start:
        yield start


def session_of(process: EngineProcess, context_length: int = 256) -> Session:
    return Session(process.address, Target("m", "vllm", Vllm().wire, context_length))


def with_config(folder: Path, copy: Path, **changes: object) -> Path:
    """Return a copy of a folder of weights, with other values in its config."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **changes}))
    return copy


@pytest.mark.engine
@pytest.mark.parametrize(
    ("weights", "changes", "message"),
    [
        (
            "mistral",
            {"architectures": ["NoSuchForCausalLM"]},
            "vLLM does not know the architecture `NoSuchForCausalLM`",
        ),
        ("mistral-gptq-act-order", {}, "vLLM refuses GPTQ weights in act-order, and these are"),
        ("mistral-gptq-asymmetric", {}, "vLLM refuses asymmetric GPTQ weights, and these are"),
        ("mistral", {"quantization_config": {"quant_method": "nosuch"}}, "vLLM has no quantization `nosuch`"),
    ],
)
def test_weights_that_it_refuses(
    start: Start, built_weights: BuiltWeights, tmp_path: Path, weights: str, changes: Mapping[str, object], message: str
) -> None:
    folder = built_weights[weights]
    folder = with_config(folder / "pytorch" if weights == "mistral" else folder, tmp_path / "changed", **changes)
    with pytest.raises(LoadError) as caught:
        start(folder).wait_ready(READY_WITHIN_S)
    assert caught.value.message == message


@pytest.mark.engine
def test_a_file_that_is_cut_short(start: Start, built_weights: BuiltWeights, tmp_path: Path) -> None:
    folder = with_config(built_weights["mistral"] / "pytorch", tmp_path / "short")
    weights = folder / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)
    with pytest.raises(LoadError, match="a file of weights is cut short or damaged"):
        start(folder).wait_ready(READY_WITHIN_S)


@pytest.mark.engine
def test_an_option_that_it_does_not_know(start: Start, built_weights: BuiltWeights) -> None:
    with pytest.raises(LoadError, match=r"vLLM refused an option: .*--no-such-option"):
        start(built_weights["mistral"] / "pytorch", "--no-such-option", "3").wait_ready(READY_WITHIN_S)


@pytest.mark.engine
def test_a_context_that_the_memory_cannot_hold(start: Start, built_weights: BuiltWeights) -> None:
    smollm2 = Architecture(layers=30, hidden_size=576, heads=9, kv_heads=3)
    process = start(built_weights["smollm2-pytorch"], slots=2048, context_length=8192, architecture=smollm2)
    with pytest.raises(OutOfMemoryError, match=r"the context needs [\d.]+ GiB of cache, and [\d.]+ GiB of memory are"):
        process.wait_ready(READY_WITHIN_S)


@pytest.mark.engine
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process so")
def test_a_limit_of_its_memory(start: Start, built_weights: BuiltWeights) -> None:
    limit = memory_limit(2_400_000)
    with pytest.raises(OutOfMemoryError):
        start(built_weights["smollm2-pytorch"], limit=limit).wait_ready(READY_WITHIN_S)


@pytest.mark.engine
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the engine in /proc")
def test_it_is_killed_while_loading(start: Start, built_weights: BuiltWeights) -> None:
    process = start(built_weights["mistral"] / "pytorch")

    def kill(line: str) -> None:
        if "Resolved architecture" in line:
            os.kill(children_of(process.pid)[0], signal.SIGKILL)

    with pytest.raises(LoadError, match=r"`vllm` ended by SIGKILL") as caught:
        process.wait_ready(READY_WITHIN_S, kill)
    assert caught.value.exit_code == 137


@pytest.mark.engine
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the engine in /proc")
def test_its_core_is_killed_while_it_streams(start: Start, built_weights: BuiltWeights) -> None:
    process = start(built_weights["mistral"] / "pytorch")
    process.wait_ready(READY_WITHIN_S)
    server = children_of(process.pid)[0]
    with session_of(process).generate_stream("Hello", max_tokens=200, temperature=0) as stream:
        next(stream)
        cores = [pid for pid in children_of(server) if "EngineCore" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(cores[0], signal.SIGKILL)
        with pytest.raises(GenerationError):
            list(stream)
    assert process.wait_ended(30)
    assert process.failure().message == "vLLM's engine process was ended"


@pytest.mark.engine
def test_mistrals_own_layout_answers(start: Start, built_weights: BuiltWeights) -> None:
    process = start(built_weights["mistral"] / "mistral", model_format="mistral")
    process.wait_ready(READY_WITHIN_S)
    reply = session_of(process).chat("Hello", max_tokens=4)
    assert reply.usage.completion_tokens == 4


@pytest.mark.engine
def test_reasoning_is_split_off_by_the_catalogues_tags(start: Start, built_weights: BuiltWeights) -> None:
    """A model that does not reason, told that its thoughts end with its first full stop."""
    facts = Architecture(layers=30, hidden_size=576, heads=9, kv_heads=3)
    chat = Chat(reasoning=Reasoning(None, ". "))
    process = start(built_weights["smollm2-pytorch"], architecture=facts, chat=chat)
    process.wait_ready(READY_WITHIN_S)
    reply = session_of(process).chat("Write three sentences about rain.", temperature=0, max_tokens=80)
    assert reply.reasoning
    assert reply.text
    assert ". " not in reply.reasoning
