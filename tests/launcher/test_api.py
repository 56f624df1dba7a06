"""`plan`, `launch` and the handle, on echo: what they return, refuse and report."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import openai
import pytest

from launcher import (
    ContextOverflowError,
    GenerationError,
    InvalidRequestError,
    LaunchedModel,
    LaunchError,
    LoadError,
    Plan,
    Progress,
    Reply,
    ResolutionError,
    UnknownModelError,
    launch,
    list_models,
    plan,
)
from tests.launcher.commands import Run


@pytest.fixture
def model() -> Iterator[LaunchedModel]:
    with launch("smollm2-instruct", engine="echo", context_length=256) as model:
        yield model


# --- plans and lists


def test_a_plan_says_what_would_be_done() -> None:
    p = plan("mistral-instruct-v0.2", model_format="gguf", quantization="Q4_K_M")
    assert (p.name, p.engine, p.hub) == ("mistral-instruct-v0.2", "llama.cpp", "huggingface")
    assert p.repo_id == "TheBloke/Mistral-7B-Instruct-v0.2-GGUF"
    assert p.revision == "3a6fbf4a41a1d52e415a4958cde6856d34b2db93"
    assert (p.files[0].path, p.files[0].size_bytes) == ("mistral-7b-instruct-v0.2.Q4_K_M.gguf", 4_368_439_584)
    assert (p.download_bytes, p.context_length, p.concurrency) == (4_368_439_584, 8192, 4)
    assert "format `gguf`: as asked" in p.reasons
    assert {rejection.engine for rejection in p.rejected} >= {"vllm", "transformers"}


def test_a_plan_as_json_is_what_the_command_line_prints(run: Run) -> None:
    p = plan("mistral-instruct-v0.2", quantization="Q4_K_M")
    assert json.loads(p.to_json()) == run("mistral-instruct-v0.2", "-q", "Q4_K_M", "--dry-run", "--json").json


def test_the_engines_own_options() -> None:
    p = plan("smollm2", engine="echo", engine_args={"reply": "hi", "tokens_per_second": 5, "mlock": True, "off": False})
    assert p.command[-5:] == ("--reply", "hi", "--tokens-per-second", "5", "--mlock")
    assert plan("smollm2", engine="echo", engine_args=["--reply", "hi"]).command[-2:] == ("--reply", "hi")


def test_a_registry_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "name: own\nspecs:\n  - {format: gguf, size_in_billions: 1, quantizations: [Q4_0],\n"
        '     sources: {huggingface: {repo_id: org/own, file: "own.{quantization}.gguf"}}}\n'
    )
    assert plan("own", registry=tmp_path).repo_id == "org/own"
    assert "own" in [model.name for model in list_models(registry=tmp_path)]
    with pytest.raises(UnknownModelError):
        plan("own")


def test_what_cannot_run_carries_every_reason() -> None:
    with pytest.raises(ResolutionError, match="Nothing here runs") as caught:
        plan("mistral-instruct-v0.2", engine="vllm", model_format="pytorch", quantization="4-bit")
    assert caught.value.kind == "resolution"
    assert caught.value.hint is not None
    assert any("bitsandbytes" in rejection.reason for rejection in caught.value.rejected)


def test_an_unknown_name_carries_the_near_ones() -> None:
    with pytest.raises(UnknownModelError) as caught:
        plan("mistral-instruct-v0.3")
    assert caught.value.suggestions[0] == "mistral-instruct-v0.2"


def test_errors_pickle() -> None:
    for request in ({"engine": "vllm", "model_format": "pytorch", "quantization": "4-bit"}, {"hub": "nowhere"}):
        with pytest.raises(LaunchError) as caught:
            plan("mistral-instruct-v0.2", **cast(Any, request))
        again = pickle.loads(pickle.dumps(caught.value))
        assert type(again) is type(caught.value)
        assert (str(again), again.hint, again.facts()) == (str(caught.value), caught.value.hint, caught.value.facts())


def test_a_word_that_there_is_not_names_the_near_one() -> None:
    with pytest.raises(TypeError, match="there is no `quantisation`; did you mean `quantization`"):
        plan("smollm2", **cast(Any, {"quantisation": "Q4_1"}))
    with pytest.raises(TypeError, match="there is no `contxt_length`; did you mean `context_length`"):
        launch("smollm2", **cast(Any, {"engine": "echo", "contxt_length": 5}))


def test_models_are_listed() -> None:
    models = {model.name: model for model in list_models()}
    smollm2 = models["smollm2-instruct"]
    assert (smollm2.family, smollm2.formats, smollm2.license, smollm2.cached) == (
        "smollm2",
        ("gguf",),
        "Apache-2.0",
        False,
    )
    assert smollm2.abilities == {"chat"}
    assert [model.name for model in list_models(ability="chat", model_format="GPTQ")] == ["mistral-instruct-v0.2"]
    assert list_models(cached=True) == []
    assert len(list_models(cached=False)) == len(models)


# --- the handle


def test_it_generates_and_chats(model: LaunchedModel) -> None:
    assert model.generate("as  given").text == "as  given"
    reply = model.chat("hello there")
    assert (str(reply), reply.text, reply.finish_reason) == ("hello there", "hello there", "stop")
    assert reply.message == {"role": "assistant", "content": "hello there"}
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (6, 2, 8)
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one"}, reply.message]
    assert model.chat([*talk, {"role": "user", "content": "two"}]).text == "two"


def test_it_streams(model: LaunchedModel) -> None:
    with model.chat_stream("one two three") as stream:
        chunks = list(stream)
    assert [chunk.text for chunk in chunks if chunk.text] == ["one", " two", " three"]
    assert chunks[-1].finish_reason == "stop"
    assert stream.result.text == "one two three"
    assert "".join(chunk.text for chunk in model.generate_stream("one two", max_tokens=1)) == "one"


def test_it_counts_with_the_template(model: LaunchedModel) -> None:
    assert model.count_tokens("hello") == model.chat("hello").usage.prompt_tokens == 5


def test_it_refuses_what_the_engine_would_not_understand(model: LaunchedModel) -> None:
    with pytest.raises(InvalidRequestError, match="`top_p` must be"):
        model.chat("hello", top_p=2)
    with pytest.raises(TypeError, match="there is no `temprature`; did you mean `temperature`"):
        model.chat("hello", **cast(Any, {"temprature": 0}))
    with pytest.raises(ContextOverflowError) as caught:
        model.chat("x " * model.context_length)
    assert caught.value.prompt_tokens > caught.value.context_length == model.context_length == 256


def test_a_batch_keeps_its_order(model: LaunchedModel) -> None:
    questions = [f"question {'very ' * (n % 5)}{n}" for n in range(32)]
    assert [reply.text for reply in model.chat_batch(questions)] == questions
    assert model.chat_batch([]) == []


def test_a_batch_can_hold_errors(model: LaunchedModel) -> None:
    questions = ["one", "x " * 300, "three"]
    with pytest.raises(ContextOverflowError):
        model.chat_batch(questions)
    first, second, third = model.chat_batch(questions, return_errors=True)
    assert isinstance(first, Reply)
    assert isinstance(second, ContextOverflowError)
    assert isinstance(third, Reply)
    assert (first.text, third.text) == ("one", "three")


def test_other_libraries_use_its_address(model: LaunchedModel) -> None:
    assert model.base_url == model.base_url
    with openai.OpenAI(base_url=model.base_url, api_key=model.api_key, max_retries=0) as client:
        assert "smollm2-instruct" in [each.id for each in client.models.list()]
        reply = client.chat.completions.create(model="smollm2", messages=[{"role": "user", "content": "hello"}])
        assert reply.choices[0].message.content == "hello"
        model.close()
        with pytest.raises(openai.APIConnectionError):
            client.models.list()


def test_closed_it_stays_closed(model: LaunchedModel) -> None:
    assert repr(model) == "<LaunchedModel smollm2-instruct on echo, running>"
    model.close()
    model.close()
    assert repr(model) == "<LaunchedModel smollm2-instruct on echo, closed>"
    with pytest.raises(GenerationError, match="closed"):
        model.chat("hello")


def test_a_plan_is_launched_as_it_is() -> None:
    p = plan("smollm2", engine="echo", context_length=100, engine_args={"reply": "planned"})
    with launch(p) as model:
        assert model.plan is p
        assert (model.name, model.context_length, model.chat("hello").text) == ("smollm2-instruct", 100, "planned")
    with pytest.raises(TypeError, match="a plan is launched as it is"):
        launch(p, engine="echo")


def test_an_engine_that_does_not_start() -> None:
    with pytest.raises(LoadError, match="unrecognized arguments: --nonsense") as caught:
        launch("smollm2", engine="echo", engine_args=["--nonsense"])
    assert caught.value.log_path is not None
    assert Path(caught.value.log_path).is_file()
    assert pickle.loads(pickle.dumps(caught.value)).facts() == caught.value.facts()


def test_progress_is_reported() -> None:
    seen: list[Progress] = []
    with launch("smollm2", engine="echo", progress=seen.append):
        assert seen[0].stage == "load"
        assert (seen[-1].stage, seen[-1].done, seen[-1].total) == ("load", 1, 1)


def test_it_prints_nothing_of_its_own_accord(capfd: pytest.CaptureFixture[str]) -> None:
    with launch("smollm2", engine="echo") as model:
        model.chat("hello")
    assert capfd.readouterr() == ("", "")


def test_many_threads_share_it(model: LaunchedModel) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: model.chat(f"word {n}").text, range(40))) == [f"word {n}" for n in range(40)]


def test_leaving_a_stream_frees_the_engine() -> None:
    slow = plan("smollm2", engine="echo", concurrency=1, engine_args={"tokens_per_second": 50})
    with launch(slow) as model:
        with model.generate_stream("word " * 4000) as stream:
            next(stream)
        assert model.generate("hello", timeout_s=40).text == "hello"  # the first answer would take 80 s


def test_a_plan_is_printed_without_its_inner_parts() -> None:
    assert isinstance(p := plan("smollm2", engine="echo"), Plan)
    assert "Resolution(" not in repr(p)
