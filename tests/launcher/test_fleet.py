"""`launch serve`: many models behind one endpoint, by what its clients see, with the echo engine behind each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import openai
import psutil
import pytest
import yaml
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

from launcher.instance import LOGS_KEPT
from tests.fakes.gateway import Answer, ask
from tests.launcher.commands import Done, launch, started, wait_for_event

pytestmark = pytest.mark.processes

# What an echo takes is 23 MB here, and as little anywhere: two fit, three do not.
ROOM_FOR_TWO = "60MB"
ROOM_FOR_ONE = "30MB"
SLOW = ["--tokens-per-second", "20"]
LONG = " ".join(["word"] * 40)
LIMIT_S = 30


class Endpoint(NamedTuple):
    """A `launch serve` that is ready."""

    process: subprocess.Popen[str]
    url: str
    file: Path

    def client(self, **options: Any) -> OpenAI:
        return OpenAI(base_url=self.url, api_key="none", max_retries=0, timeout=LIMIT_S, **options)

    def say(self, model: str, text: str = "Hello") -> Answer:
        talk = [{"role": "user", "content": text}]
        return ask(f"{self.url}/chat/completions", {"model": model, "messages": talk})

    def text_of(self, model: str, text: str = "Hello") -> str:
        answer = self.say(model, text)
        assert answer.status == 200, answer.body
        return str(answer.json["choices"][0]["message"]["content"])

    def states(self) -> Mapping[str, str]:
        return dict(ask(self.url.removesuffix("v1") + "ready").json["models"])

    def wait_for(self, model: str, state: str) -> None:
        wait_until(lambda: self.states()[model] == state)

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        text = ask(self.url.removesuffix("v1") + "metrics").body.decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())

    def engine(self, name: str) -> int:
        """Return the process of a model's engine."""
        lines = {each.pid: each.cmdline() for each in psutil.Process(self.process.pid).children(recursive=True)}
        return next(pid for pid, line in lines.items() if line[1:2] == ["-I"] and "echo.py" in line[2] and name in line)

    def write(self, models: object, **defaults: object) -> None:
        write(self.file, models, **defaults)

    def reload(self) -> Done:
        return launch("reload")


def wait_until(is_so: Any) -> None:
    ends_at = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < ends_at
        time.sleep(0.05)


def write(file: Path, models: object, **defaults: object) -> None:
    options = {"port": 0, "engine": "echo", **{name.replace("_", "-"): value for name, value in defaults.items()}}
    file.write_text(yaml.safe_dump({"defaults": options, "models": models}))


def model(name: str, **options: object) -> dict[str, object]:
    return {"model": "mistral-instruct-v0.2", "name": name, **{key.replace("_", "-"): options[key] for key in options}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "launch.yaml"


@contextlib.contextmanager
def serving(file: Path, models: object, **defaults: object) -> Iterator[Endpoint]:
    write(file, models, **defaults)
    with started("serve", "-c", str(file), "--json") as process:
        url = wait_for_event(process, "ready")["url"]
        yield Endpoint(process, url, file)
        process.terminate()
        assert process.wait(LIMIT_S) == 0


def test_each_model_answers_to_its_names_once_it_is_asked_for(file: Path) -> None:
    with serving(file, [model("one", aliases=["gpt-4o-mini"]), model("two", load="start")]) as endpoint:
        assert endpoint.states() == {"one": "unloaded", "two": "ready"}
        assert [each.id for each in endpoint.client().models.list()] == ["one", "two"]
        assert endpoint.text_of("gpt-4o-mini") == endpoint.text_of("two") == "Hello"
        assert endpoint.say("one").json["model"] == "one"
        assert endpoint.states() == {"one": "ready", "two": "ready"}
        assert endpoint.say("three").status == 404


def test_three_models_in_turn_where_two_fit(file: Path) -> None:
    names = ("one", "two", "three")
    with serving(file, list(map(model, names)), max_memory=ROOM_FOR_TWO) as endpoint:
        for name in names * 3:
            assert endpoint.text_of(name, f"to {name}") == f"to {name}"
        # The least recently used leaves, so that each of the nine finds its model gone.
        assert endpoint.metric("launch_model_loads_total") == 9
        assert endpoint.metric("launch_model_unloads_total", reason="memory") == 7
        assert [endpoint.metric("launch_model_loads_total", model=name) for name in names] == [3, 3, 3]
        assert sorted(endpoint.states().values()) == ["ready", "ready", "unloaded"]


def test_a_model_makes_way_only_after_its_answers(file: Path) -> None:
    models = [model("one", engine_args=SLOW), model("two")]
    with serving(file, models, max_memory=ROOM_FOR_ONE) as endpoint, endpoint.client() as client:
        talk: Any = [{"role": "user", "content": LONG}]
        with client.chat.completions.create(model="one", messages=talk, stream=True) as stream:
            chunks = iter(stream)
            pieces = [next(chunks).choices[0].delta.content or ""]
            other = Asking(endpoint, "two")
            endpoint.wait_for("one", "unloading")
            late = Asking(endpoint, "one", "late")
            pieces += [chunk.choices[0].delta.content or "" for chunk in chunks]
        assert "".join(pieces) == LONG
        assert (other.text(), late.text()) == ("Hello", "late")


class Asking:
    """A request that is answered in a thread."""

    def __init__(self, endpoint: Endpoint, name: str, text: str = "Hello") -> None:
        self._answer: Answer | None = None
        self._thread = threading.Thread(target=self._ask, args=(endpoint, name, text))
        self._thread.start()

    def _ask(self, endpoint: Endpoint, name: str, text: str) -> None:
        self._answer = endpoint.say(name, text)

    def answer(self) -> Answer:
        self._thread.join(LIMIT_S)
        assert self._answer is not None
        return self._answer

    def text(self) -> str:
        return str(self.answer().json["choices"][0]["message"]["content"])


def test_what_is_pinned_stays_and_what_does_not_fit_beside_it_is_refused_with_the_numbers(file: Path) -> None:
    models = [model("one", pinned=True, load="start"), model("two")]
    with serving(file, models, max_memory=ROOM_FOR_ONE) as endpoint:
        answer = endpoint.say("two")
        error = answer.json["error"]
        assert (answer.status, error["code"]) == (503, "model_unavailable")
        assert "`two` needs 25 MB, and `max-memory` is 30 MB" in error["message"]
        assert 1 <= int(answer.headers["Retry-After"]) <= 10
        assert endpoint.text_of("one") == "Hello"


def test_more_at_the_start_than_fits_is_an_error_before_anything_answers(file: Path) -> None:
    write(file, [model("one", load="start"), model("two", load="start")], max_memory=ROOM_FOR_ONE)
    done = launch("serve", "-c", str(file), "--json")
    assert done.code == 1
    assert done.events[-1]["kind"] == "out_of_memory"
    assert "ready" not in {event["event"] for event in done.events}


def test_an_idle_model_is_unloaded_after_its_time(file: Path) -> None:
    with serving(file, [model("one", keep="1s"), model("two")]) as endpoint:
        assert endpoint.text_of("one") == endpoint.text_of("two") == "Hello"
        endpoint.wait_for("one", "unloaded")
        assert endpoint.states()["two"] == "ready"
        assert endpoint.metric("launch_model_unloads_total", model="one", reason="idle") == 1
        assert endpoint.text_of("one") == "Hello"


def test_who_waits_in_a_stream_is_told_how_far_it_is(file: Path) -> None:
    with serving(file, [model("one", engine_args=["--load-seconds", "2.5"])]) as endpoint:
        talk = {"model": "one", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
        text = ask(f"{endpoint.url}/chat/completions", talk).body.decode()
        comments = [line for line in text.splitlines() if line.startswith(":")]
        assert comments
        assert all("one" in comment for comment in comments)
        assert text.index(comments[0]) < text.index("Hello")
        assert text.rstrip().endswith("data: [DONE]")


def test_officials_clients_pass_over_what_is_told_while_they_wait(file: Path) -> None:
    with serving(file, [model("one", engine_args=["--load-seconds", "1.5"])]) as endpoint, endpoint.client() as client:
        talk: Any = [{"role": "user", "content": "Hello there"}]
        stream = client.chat.completions.create(model="one", messages=talk, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello there"


def test_while_a_model_loads_no_more_wait_than_may(file: Path) -> None:
    one = model("one", engine_args=["--load-seconds", "2"], concurrency=1, max_queue=1)
    with serving(file, [one]) as endpoint:
        first, second = Asking(endpoint, "one"), Asking(endpoint, "one")
        wait_until(lambda: endpoint.metric("launch_requests_waiting", model="one") == 2)
        assert endpoint.say("one").status == 429
        assert first.text() == second.text() == "Hello"


def test_a_request_that_makes_no_sense_loads_nothing(file: Path) -> None:
    with serving(file, [model("one")]) as endpoint:
        assert ask(f"{endpoint.url}/completions", {"model": "one", "prompt": "x", "top_p": 2}).status == 400
        assert endpoint.states() == {"one": "unloaded"}


def test_a_model_that_cannot_be_loaded_is_refused_with_its_cause_and_the_others_go_on(file: Path) -> None:
    with serving(file, [model("bad", engine_args=["--no-such-option"]), model("good")]) as endpoint:
        for _ in range(2):  # the second one is refused at once
            answer = endpoint.say("bad")
            assert (answer.status, answer.json["error"]["code"]) == (503, "model_unavailable")
            assert "unrecognized arguments" in answer.json["error"]["message"]
            assert 1 <= int(answer.headers["Retry-After"]) <= 10
        assert endpoint.states()["bad"] == "failed"
        assert endpoint.text_of("good") == "Hello"
        (failed,) = [each for each in json.loads(launch("ps", "--json").out) if each["name"] == "bad"]
        assert "unrecognized arguments" in failed["cause"]


def test_an_engine_that_crashes_is_started_again_and_its_requests_are_told_why(file: Path) -> None:
    with serving(file, [model("one", engine_args=SLOW)]) as endpoint, endpoint.client() as client:
        talk: Any = [{"role": "user", "content": LONG}]
        with client.chat.completions.create(model="one", messages=talk, stream=True) as stream:
            chunks = iter(stream)
            next(chunks)
            os.kill(endpoint.engine("one"), signal.SIGKILL)
            with pytest.raises(openai.APIError, match="ended by SIGKILL while it answered"):
                list(chunks)
        assert endpoint.text_of("one") == "Hello"
        assert endpoint.metric("launch_engine_restarts_total", model="one") == 1


def test_an_engine_that_crashes_too_often_is_given_up_for_a_while(file: Path) -> None:
    with serving(file, [model("one", load="start")], max_restarts=0) as endpoint:
        os.kill(endpoint.engine("one"), signal.SIGKILL)
        endpoint.wait_for("one", "failed")
        answer = endpoint.say("one")
        assert answer.status == 503
        assert "SIGKILL" in answer.json["error"]["message"]
        assert ask(endpoint.url.removesuffix("v1") + "ready").status == 503
        assert ask(endpoint.url.removesuffix("v1") + "health").status == 200


def test_an_engine_that_hangs_is_ended_and_started_again(file: Path) -> None:
    with serving(file, [model("one")], hang_after="3s") as endpoint:
        assert endpoint.text_of("one") == "Hello"
        os.kill(endpoint.engine("one"), signal.SIGSTOP)
        answer = endpoint.say("one")
        assert answer.status == 502
        assert "gave no sign of life" in answer.json["error"]["message"]
        assert endpoint.text_of("one") == "Hello"
        assert endpoint.metric("launch_engine_restarts_total", model="one") == 1


def test_it_is_ready_though_a_model_of_the_start_has_made_way(file: Path) -> None:
    with serving(file, [model("one", load="start"), model("two")], max_memory=ROOM_FOR_ONE) as endpoint:
        assert endpoint.text_of("two") == "Hello"
        answer = ask(endpoint.url.removesuffix("v1") + "ready")
        assert (answer.status, answer.json["models"]) == (200, {"one": "unloaded", "two": "ready"})


def test_a_model_that_is_stopped_is_loaded_again_when_it_is_asked_for(file: Path) -> None:
    with serving(file, [model("one"), model("two")]) as endpoint:
        assert endpoint.text_of("one") == "Hello"
        assert launch("stop", "one").code == 0
        assert endpoint.states()["one"] == "unloaded"
        assert endpoint.metric("launch_model_unloads_total", model="one", reason="asked") == 1
        assert endpoint.text_of("one") == "Hello"


def test_a_changed_file_is_applied_and_no_request_is_lost(file: Path) -> None:
    with serving(file, [model("one", engine_args=SLOW), model("two")]) as endpoint, endpoint.client() as client:
        talk: Any = [{"role": "user", "content": LONG}]
        assert endpoint.text_of("two") == "Hello"
        kept = endpoint.engine("two")
        with client.chat.completions.create(model="one", messages=talk, stream=True) as stream:
            chunks = iter(stream)
            pieces = [next(chunks).choices[0].delta.content or ""]
            endpoint.write([model("one"), model("two", aliases=["zwei"]), model("three")])
            assert endpoint.reload().code == 0
            assert endpoint.text_of("one", "new") == "new"
            assert endpoint.text_of("zwei") == endpoint.text_of("three") == "Hello"
            pieces += [chunk.choices[0].delta.content or "" for chunk in chunks]
        assert "".join(pieces) == LONG
        assert endpoint.engine("two") == kept
        endpoint.write([model("three")])
        assert "removed one" in endpoint.reload().err
        assert endpoint.say("one").status == 404


def test_a_file_that_is_wrong_changes_nothing(file: Path) -> None:
    with serving(file, [model("one")]) as endpoint:
        for models, code, named in (
            ([model("one"), {"model": "no-such-model"}], 2, "no-such-model"),
            ([{"modell": "mistral-instruct-v0.2"}], 2, "did you mean `model`?"),
            ([model("one", quantization="Q99")], 1, "Q99"),
        ):
            endpoint.write(models)
            done = endpoint.reload()
            assert done.code == code
            assert named in done.err
        endpoint.write([model("one")], port=1)
        assert "`port` cannot change while the endpoint runs" in endpoint.reload().err
        assert [each.id for each in endpoint.client().models.list()] == ["one"]
        assert endpoint.text_of("one") == "Hello"


def test_the_command_line_goes_before_the_files_defaults(file: Path) -> None:
    write(file, [model("one")], port=1, api_key_file="keys")
    (file.parent / "keys").write_text("secret: a-key-of-ours\n")
    (file.parent / "keys").chmod(0o600)
    with started("serve", "-c", str(file), "--json", "--port", "0") as process:
        url = wait_for_event(process, "ready")["url"]
        assert not url.endswith(":1/v1")
        assert ask(f"{url}/models").status == 401
        assert ask(f"{url}/models", headers={"x-api-key": "a-key-of-ours"}).status == 200
        process.terminate()
        assert process.wait(LIMIT_S) == 0


def test_what_may_be_fetched_is_said_for_all_models_at_once(file: Path) -> None:
    write(file, [{"model": "smollm2-instruct", "name": "one", "engine": "llama.cpp"}])
    with started("serve", "-c", str(file), "--json", "--offline") as process:
        endpoint = Endpoint(process, wait_for_event(process, "ready")["url"], file)
        error = endpoint.say("one").json["error"]
        assert error["code"] == "model_unavailable"
        assert "forbidden" in error["message"] or "offline" in error["message"]
        process.terminate()
        assert process.wait(LIMIT_S) == 0


def test_without_a_file_it_says_what_is_missing(tmp_path: Path) -> None:
    done = launch("serve", folder=tmp_path)
    assert done.code == 2
    assert "There is no `launch.yaml`" in done.err


def test_one_model_that_was_launched_by_name_is_started_again_too() -> None:
    with started("mistral-instruct-v0.2", "--engine", "echo", "--port", "0", "--json") as process:
        endpoint = Endpoint(process, wait_for_event(process, "ready")["url"], Path())
        os.kill(endpoint.engine("mistral-instruct-v0.2"), signal.SIGKILL)
        wait_for_event(process, "restarting")
        assert endpoint.text_of("mistral-instruct-v0.2") == "Hello"
        process.terminate()
        assert process.wait(LIMIT_S) == 0


def test_logs_of_what_runs_are_kept_however_often_others_start(file: Path) -> None:
    with serving(file, [model("one"), model("two")], max_memory=ROOM_FOR_TWO) as endpoint:
        assert endpoint.text_of("one") == "Hello"
        for _ in range(LOGS_KEPT + 2):
            assert endpoint.text_of("two") == "Hello"
            launch("stop", "two")
        (one,) = [each for each in json.loads(launch("ps", "--json").out) if each["name"] == "one"]
        logs = list(Path(one["log"]).parent.glob("*.log"))
        assert Path(one["log"]) in logs
        assert len(logs) <= LOGS_KEPT


@pytest.mark.engine
def test_three_models_in_turn_where_two_fit_with_llama_cpp(
    file: Path, engine_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAUNCH_CACHE", str(engine_cache))
    names = ("one", "two", "three")
    models = [{"model": "smollm2-instruct", "name": name} for name in names]
    options = {"max_memory": "500MB", "context_length": 1024, "concurrency": 2}
    with serving(file, models, engine="llama.cpp", **options) as endpoint:
        for name in names * 2:
            assert endpoint.text_of(name, "What is the capital of France?")
        assert endpoint.metric("launch_model_loads_total") == 6
        assert endpoint.metric("launch_model_unloads_total", reason="memory") == 4
        sizes = [endpoint.metric("launch_resident_memory_bytes", part="engine", model=name) for name in names]
        assert sum(sizes) <= 500e6
        assert sorted(endpoint.states().values()) == ["ready", "ready", "unloaded"]
