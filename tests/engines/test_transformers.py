"""Transformers: its command, its runner's options, its last words; and, with the real engine, what it does."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from engines.base import Address, Settings
from engines.conformance import Checkpoint, Running
from engines.generation import Sampling, Target
from engines.process import EngineProcess
from engines.session import Session
from engines.transformers import RUNNER, Transformers
from registry.errors import GenerationError, InvalidRequestError, LoadError, OutOfMemoryError
from registry.spec import Chat, Reasoning
from tests.engines.starting import RealEngineConformance, Start, children_of, memory_limit, starting
from tests.fakes.templates import TOOLS
from tests.weights.built import BuiltWeights

SOCKET = Address("http://localhost", Path("/run/e.sock"))
ENGINE = Transformers()


def settings_of(path: Path = Path("/m"), **others: Any) -> Settings:
    return Settings("m", path, 512, 2, 1, 2, model_format="pytorch")._replace(**others)


def options_of(settings: Settings) -> dict[str, str]:
    command = ENGINE.command("/env/bin/python", settings, SOCKET)
    assert command[:3] == ("/env/bin/python", "-P", str(RUNNER))
    return dict(zip(command[3::2], command[4::2], strict=True))


def test_its_context_is_that_of_each_slot() -> None:
    assert options_of(settings_of(arguments=("--attn-implementation", "eager"))) == {
        "--model": "/m",
        "--alias": "m",
        "--socket": "/run/e.sock",
        "--ctx-size": "512",
        "--parallel": "2",
        "--threads": "2",
        "--dtype": "auto",
        "--attn-implementation": "eager",
    }


def test_without_a_socket_it_listens_on_a_port() -> None:
    command = ENGINE.command("python", settings_of(), Address("http://127.0.0.1:8123"))
    where = command.index("--host")
    assert command[where : where + 4] == ("--host", "127.0.0.1", "--port", "8123")


@pytest.mark.parametrize(
    ("model_format", "quantization", "quantized_to"),
    [("pytorch", "none", None), ("pytorch", "4-bit", "4-bit"), ("pytorch", "8-bit", "8-bit"), ("gptq", "Int4", None)],
)
def test_only_whole_weights_are_quantized_while_they_are_read(
    model_format: str, quantization: str, quantized_to: str | None
) -> None:
    given = options_of(settings_of(model_format=model_format, quantization=quantization))
    assert given.get("--quantize") == quantized_to


def test_the_catalogues_template_and_tags_reach_it() -> None:
    chat = Chat(template="{{ messages }}", reasoning=Reasoning("<think>", "</think>"), tool_calls="mistral")
    given = options_of(settings_of(chat=chat, dtype="bfloat16"))
    assert given["--chat-template"] == "{{ messages }}"
    assert (given["--reasoning-start"], given["--reasoning-end"]) == ("<think>", "</think>")
    assert given["--tool-calls"] == "mistral"
    assert given["--dtype"] == "bfloat16"


def test_several_gpus_have_a_process_each_and_see_no_others() -> None:
    settings = settings_of(accelerator="cuda", gpus=(2, 3), trusts_remote_code=True)
    command = ENGINE.command("python", settings, SOCKET)
    several = ("python", "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(RUNNER))
    assert command[: len(several)] == several
    assert "--trust-remote-code" in command
    assert ENGINE.variables(settings)["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert ENGINE.variables(settings_of())["CUDA_VISIBLE_DEVICES"] == ""


def test_it_never_reaches_the_network() -> None:
    variables = ENGINE.variables(settings_of())
    assert variables["HF_HUB_OFFLINE"] == variables["HF_HUB_DISABLE_TELEMETRY"] == variables["DO_NOT_TRACK"] == "1"


def test_its_stages_are_told() -> None:
    assert ENGINE.stage_of("transformers: loading weights, 27 of 272") == "loading weights, 27 of 272"
    for line in ("transformers: ready at /run/e.sock", "transformers: error: no", "W1121 torch/utils: something"):
        assert ENGINE.stage_of(line) is None


# Lines of real logs, of the versions that engines/transformers.py names.
WORDS = [
    (
        "transformers: error: ValueError: The checkpoint you are trying to load has model type `nosuch` but "
        "Transformers does not recognize this architecture.",
        "Transformers does not know the architecture `nosuch`",
    ),
    (
        "transformers: error: ValueError: The repository /m contains custom code which must be executed to correctly "
        "load the model.",
        "the model brings Python code of its own, which runs only if you say so",
    ),
    (
        "transformers: error: ValueError: Unrecognized configuration class <class "
        "'transformers.models.vit.configuration_vit.ViTConfig'> for this kind of AutoModel: AutoModelForCausalLM.",
        "`ViTConfig` is not of a model that writes text",
    ),
    (
        "transformers: error: ValueError: Invalid layer type: linear_attention",
        "Transformers has no continuous batching for layers of `linear_attention`",
    ),
    (
        "transformers: error: ValueError: the weights lack 3 of the model's tensors, `lm_head.weight` among them",
        "the weights lack 3 of the model's tensors, `lm_head.weight` among them",
    ),
    (
        "model.layers.{0, 1}.self_attn.k_proj.qweight | MISMATCH | Reinit due to size mismatch - ckpt: "
        "torch.Size([32, 128]) vs model:torch.Size([64, 128]) \n"
        "transformers: error: RuntimeError: You set `ignore_mismatched_sizes` to `False`, thus raising an error. For "
        "details look at the above report!",
        "the model's config contradicts its weights: `model.layers.{0, 1}.self_attn.k_proj.qweight` has the shape "
        "[32, 128], not [64, 128]",
    ),
    (
        "transformers: error: ImportError: Using `bitsandbytes` 4-bit quantization requires bitsandbytes: `pip install "
        "-U bitsandbytes>=0.46.1`",
        "`bitsandbytes` is not installed where the engine runs",
    ),
    (
        "transformers: error: ImportError: Loading a GPTQ quantized model requires optimum (`pip install optimum`)",
        "`optimum` is not installed where the engine runs",
    ),
    (
        "transformers: error: NameError: name 'QuantizeConfig' is not defined",
        "`gptqmodel` is not installed where the engine runs",
    ),
    ("ModuleNotFoundError: No module named 'aiohttp'", "`aiohttp` is not installed where the engine runs"),
    ("transformers: error: KeyError: 'surprise'", "Transformers could not start: KeyError: 'surprise'"),
]


@pytest.mark.parametrize(("log", "message"), WORDS)
def test_its_last_words_are_understood(log: str, message: str) -> None:
    cause = ENGINE.cause_of(f"transformers: reading the weights\nTraceback (most recent call last):\n{log}")
    assert cause is not None
    assert cause.message == message
    assert not cause.is_out_of_memory


@pytest.mark.parametrize(
    "log",
    [
        "transformers: error: RuntimeError: [enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't "
        "allocate memory: you tried to allocate 113246208 bytes. Error code 12 (Cannot allocate memory)",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "transformers: error: MemoryError: Memory footprint 94013952 is more than available memory 1024",
        "transformers: error: MemoryError: ",
    ],
)
def test_out_of_memory_is_recognised(log: str) -> None:
    cause = ENGINE.cause_of(log)
    assert cause is not None
    assert cause.is_out_of_memory


def test_a_log_without_an_error_has_no_cause() -> None:
    assert ENGINE.cause_of("transformers: reading the weights\ntransformers: loading weights, 27 of 272\n") is None


def run_runner(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run((sys.executable, "-P", str(RUNNER), *arguments), capture_output=True, text=True, check=False)


REQUIRED = ("--model", "m", "--alias", "m", "--ctx-size", "8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*REQUIRED, "--gpu-layers", "1"), "unrecognized arguments: --gpu-layers 1"),
        ((*REQUIRED, "--dtype", "int3"), "invalid choice: 'int3'"),
        ((*REQUIRED, "--max-batch-tokens", "many"), "invalid int value: 'many'"),
        ((), "the following arguments are required: --model"),
    ],
)
def test_the_runner_refuses_options_that_it_does_not_know(arguments: tuple[str, ...], words: str) -> None:
    result = subprocess.run(
        (sys.executable, "-P", str(RUNNER), *arguments), capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert words in result.stderr
    cause = ENGINE.cause_of(result.stderr)
    assert cause is not None
    assert words.partition(": ")[2].removeprefix("'").removesuffix("'") in cause.message


def test_the_options_that_it_names_are_those_of_the_runner() -> None:
    cause = ENGINE.cause_of("transformers: error: unrecognized arguments: --gpu-layers 1")
    assert cause is not None
    assert cause.hint is not None
    named = re.findall(r"`(--\w[\w-]*)`", cause.hint)
    assert named
    assert set(named) <= set(re.findall(r"--\w[\w-]*", run_runner("--help").stdout))


def test_the_runner_names_a_missing_model(tmp_path: Path) -> None:
    result = run_runner("--model", str(tmp_path / "gone"), "--alias", "m", "--ctx-size", "8")
    assert result.returncode == 1
    cause = ENGINE.cause_of(result.stderr)
    assert cause is not None
    assert cause.message == f"there is no model at `{tmp_path}/gone`"


# --- the real engine -------------------------------------------------------------------------------------------------


class Contract(RealEngineConformance):
    engine = ENGINE


@pytest.mark.engine
class TestSmolLm2(Contract):
    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, built_weights: BuiltWeights) -> Checkpoint:
        return Checkpoint(built_weights["smollm2-pytorch"], "pytorch")


@pytest.mark.engine
class TestMistral(Contract):
    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, built_weights: BuiltWeights) -> Checkpoint:
        return Checkpoint(built_weights["mistral"] / "pytorch", "pytorch", has_system_role=False)

    def test_a_repetition_penalty_reaches_back_to_the_prompt(self, running: Running) -> None:
        pytest.skip("random weights repeat nothing; TestSmolLm2 shows it")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts Transformers on weights; `limit` goes before the command."""
    with starting(ENGINE, tmp_path, settings_of) as start:
        yield start


@pytest.fixture
def copy(tmp_path: Path, built_weights: BuiltWeights) -> Path:
    """Return a small model that may be damaged: the random Mistral."""
    return Path(shutil.copytree(built_weights["mistral"] / "pytorch", tmp_path / "copy"))


def session_of(process: EngineProcess) -> Session:
    return Session(process.address, Target("m", ENGINE.name, ENGINE.wire, 512, features=ENGINE.capability.features))


def change(path: Path, **changes: object) -> None:
    """Change keys of a JSON file; None takes one away."""
    values = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}), encoding="utf-8")


FORMATS = [
    ("mistral", "pytorch", "8-bit"),
    ("mistral", "pytorch", "4-bit"),
    ("mistral-gptq", "gptq", "Int4"),
    ("mistral-gptq-act-order", "gptq", "Int4"),
    ("mistral-gptq-asymmetric", "gptq", "Int4"),
    ("mistral-awq", "awq", "Int4"),
]


@pytest.mark.engine
@pytest.mark.parametrize(("name", "model_format", "quantization"), FORMATS)
def test_every_quantization_answers_several_at_once(
    start: Start, built_weights: BuiltWeights, name: str, model_format: str, quantization: str
) -> None:
    path = built_weights[name] / "pytorch" if name == "mistral" else built_weights[name]
    process = start(path, model_format=model_format, quantization=quantization)
    process.wait_ready(300)
    session = session_of(process)

    def ask(number: int) -> str:
        return session.chat(f"Tell me about the number {number}.", temperature=0, max_tokens=8).text

    assert ask(1) == ask(1)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(4)))


@pytest.mark.engine
def test_the_cached_beginning_of_a_prompt_changes_nothing(start: Start, built_weights: BuiltWeights) -> None:
    process = start(built_weights["mistral"] / "pytorch", context_length=1024, slots=1)
    process.wait_ready(120)
    session = session_of(process)
    prompt = " ".join(f"{number} boats went up the river." for number in range(80))
    first, again = (session.generate(prompt, temperature=0, max_tokens=24) for _ in range(2))
    assert first.usage.prompt_tokens > 2 * 256
    assert again.text == first.text
    assert session.generate(f"{prompt} And then", temperature=0, max_tokens=8).text


@pytest.mark.engine
def test_a_json_schema_that_cannot_be_used_is_refused(start: Start, built_weights: BuiltWeights) -> None:
    process = start(built_weights["mistral"] / "pytorch")
    process.wait_ready(120)
    with pytest.raises(InvalidRequestError, match="schema"):
        session_of(process).chat("Hi", json_schema={"type": "nosuch"})
    assert session_of(process).generate("Hi", max_tokens=1).usage.completion_tokens == 1


def weather(location: str) -> str:
    """Return the weather at `location`."""
    return f"rain in {location}"


def tide(harbour: str) -> str:
    """Return the tide in `harbour`."""
    return f"low in {harbour}"


@pytest.mark.engine
def test_a_call_that_is_required_is_one_of_the_tools(start: Start, built_weights: BuiltWeights) -> None:
    chat = Chat(template=TOOLS, tool_calls="hermes")
    process = start(built_weights["smollm2-pytorch"], chat=chat, context_length=1024)
    process.wait_ready(120)
    session = session_of(process)
    question = {"role": "user", "content": "What is the weather in Paris?"}
    asked: Sampling = {"temperature": 0, "max_tokens": 128}
    reply = session.chat([question], tools=[weather, tide], tool_choice="required", **asked)
    (call,) = reply.tool_calls
    assert (reply.finish_reason, reply.text) == ("tool_calls", "")
    known: dict[str, Callable[..., str]] = {"weather": weather, "tide": tide}
    talk = [question, reply.message, call.answer(known[call.name](**call.arguments))]
    assert session.chat(talk, tools=[weather, tide], **asked).text
    (named,) = session.chat([question], tools=[weather, tide], tool_choice="tide", **asked).tool_calls
    assert (named.name, list(named.arguments)) == ("tide", ["harbour"])


@pytest.mark.engine
def test_an_architecture_that_it_does_not_know(start: Start, copy: Path) -> None:
    change(copy / "config.json", model_type="nosuch", architectures=["NoSuchForCausalLM"])
    with pytest.raises(LoadError, match="does not know the architecture `nosuch`") as caught:
        start(copy).wait_ready(120)
    assert caught.value.exit_code == 1


@pytest.mark.engine
def test_code_beside_the_weights_runs_only_if_told_so(start: Start, copy: Path) -> None:
    ran = copy / "ran"
    (copy / "own.py").write_text(
        f"open({str(ran)!r}, 'w').close()\n"
        "from transformers import MistralConfig, MistralForCausalLM\n"
        "class OwnConfig(MistralConfig):\n    model_type = 'own'\n"
        "class Own(MistralForCausalLM):\n    config_class = OwnConfig\n"
    )
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}
    change(copy / "config.json", model_type="own", auto_map=own)
    with pytest.raises(LoadError, match="brings Python code of its own"):
        start(copy).wait_ready(120)
    assert not ran.exists()
    start(copy, trusts_remote_code=True).wait_ready(120)
    assert ran.exists()


@pytest.mark.engine
@pytest.mark.parametrize("kept_bytes", [0, 100, 1_000_000])
def test_weights_that_are_cut_short(start: Start, copy: Path, kept_bytes: int) -> None:
    os.truncate(copy / "model.safetensors", kept_bytes)
    with pytest.raises(LoadError, match="the weights are cut short or damaged"):
        start(copy).wait_ready(120)


@pytest.mark.engine
def test_weights_that_are_not_there(start: Start, copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(LoadError, match="there are no safetensors"):
        start(copy).wait_ready(120)


@pytest.mark.engine
def test_a_tokenizer_that_is_not_there(start: Start, copy: Path) -> None:
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        (copy / name).unlink()
    with pytest.raises(LoadError, match="the model's tokenizer is missing"):
        start(copy).wait_ready(120)


@pytest.mark.engine
@pytest.mark.parametrize("changes", [{"bits": 8}, {"group_size": 32}])
def test_a_quantization_config_that_contradicts_the_weights(
    start: Start, built_weights: BuiltWeights, tmp_path: Path, changes: dict[str, object]
) -> None:
    folder = Path(shutil.copytree(built_weights["mistral-gptq"], tmp_path / "copy"))
    for name in ("config.json", "quantize_config.json"):
        (folder / name).chmod(0o644)
    config = json.loads((folder / "config.json").read_text())
    change(folder / "config.json", quantization_config={**config["quantization_config"], **changes})
    change(folder / "quantize_config.json", **changes)
    with pytest.raises(LoadError, match="contradicts its weights"):
        start(folder, model_format="gptq", quantization="Int4").wait_ready(200)


@pytest.mark.engine
def test_quantized_weights_whose_config_does_not_say_so(
    start: Start, built_weights: BuiltWeights, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(built_weights["mistral-awq"], tmp_path / "copy"))
    change(folder / "config.json", quantization_config=None)
    with pytest.raises(LoadError, match="the weights lack 14 of the model's tensors"):
        start(folder).wait_ready(120)


@pytest.mark.engine
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process so")
def test_a_context_that_the_memory_cannot_hold(start: Start, built_weights: BuiltWeights) -> None:
    limit = memory_limit(6_000_000)
    with pytest.raises(OutOfMemoryError, match="not enough memory"):
        start(built_weights["mistral"] / "pytorch", context_length=4_000_000, limit=limit).wait_ready(120)


@pytest.mark.engine
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the engine in /proc")
def test_it_is_killed_while_loading(start: Start, built_weights: BuiltWeights) -> None:
    process = start(built_weights["mistral"] / "pytorch")
    engines: list[int] = []

    def kill(line: str) -> None:
        if not engines and "reading the weights" in line:
            engines.extend(children_of(process.pid))
            os.kill(engines[0], signal.SIGKILL)

    with pytest.raises(LoadError, match="`transformers` ended by SIGKILL") as caught:
        process.wait_ready(120, kill)
    assert caught.value.exit_code == 137
    assert caught.value.hint is not None


@pytest.mark.engine
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the engine in /proc")
def test_it_is_killed_while_streaming(start: Start, built_weights: BuiltWeights) -> None:
    process = start(built_weights["mistral"] / "pytorch")
    process.wait_ready(120)
    with session_of(process).generate_stream("A long story:", temperature=0) as stream:
        next(stream)
        os.kill(children_of(process.pid)[0], signal.SIGKILL)
        with pytest.raises(GenerationError):
            list(stream)
    assert process.wait_ended(10)
    assert "SIGKILL" in str(process.failure())
