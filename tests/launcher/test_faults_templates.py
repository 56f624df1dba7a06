"""Chat templates come with the weights, from anybody: engines render them in a sandbox, and survive them."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.launcher.aftermath import Aftermath, serving
from tests.launcher.commands import launch
from tests.weights.built import BuiltWeights

pytestmark = [
    pytest.mark.engine,
    pytest.mark.index,
    pytest.mark.skipif(sys.platform != "linux", reason="what is left is found by /proc"),
]

FAULT = 13
ENGINES = ("llama.cpp", "llama-cpp-python", "transformers")
# What a template tries where the message says its name; PWNED is a file that a command would leave.
TRIES = {
    "reaches for classes": "{{ ''.__class__.__mro__[-1].__subclasses__() }}",
    "reaches for globals": "{{ cycler.__init__.__globals__.os.system('touch PWNED') }}",
    "reaches for builtins": "{{ self.__init__.__globals__.__builtins__.__import__('os').system('touch PWNED') }}",
    "reaches for functions": "{{ raise_exception.__globals__['os'].system('touch PWNED') }}",
    "reaches for methods": "{{ ('' | attr('__class__')).mro()[-1].__subclasses__()[0]() }}",
    "reaches for formats": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "a range of a billion": "{% for number in range(1000000000) %}x{% endfor %}",
    "ten megabytes": "{% for number in range(99999) %}{{ 'a word of many ' * 7 }}{% endfor %}",
}
# Not to be read by llama.cpp at all.
FILES = "{% include '/etc/passwd' %}"
# llama.cpp's own Jinja has no limit for a range: there this one is a loop without end.
LIMITLESS = ("llama.cpp", "a range of a billion")
NORMAL = "{% for message in messages %}{{ message.content }}{% endfor %}"
# A range within the sandbox's limit in another one: it would take hours and all memory.
ENDLESS = "{% for one in range(99999) %}{% for other in range(99999) %}x{% endfor %}{% endfor %}"
GIVES_UP_AFTER_S = 5.0


class Answer(NamedTuple):
    status: int
    text: str


def template_of(pwned: Path) -> str:
    """Return one template for all tries, which otherwise says what it is told."""
    cases = "".join(
        f"{{% elif messages[0].content == '{name}' %}}{what.replace('PWNED', str(pwned))}"
        for name, what in TRIES.items()
    )
    return f"{{% if messages[0].content == 'nothing' %}}nothing{cases}{{% else %}}{NORMAL}{{% endif %}}"


def chat(url: str, text: str, limit_s: float = 60.0) -> Answer:
    body = json.dumps({"messages": [{"role": "user", "content": text}], "max_tokens": 2, "temperature": 0}).encode()
    request = urllib.request.Request(f"{url}/chat/completions", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=limit_s) as answer:
            return Answer(answer.status, str(json.load(answer)["choices"][0]["message"]["content"]))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, str(json.load(error)["error"]["message"]))


def weights_for(engine: str, built: BuiltWeights) -> str:
    return str(built["smollm2-pytorch"] if engine == "transformers" else built.smollm2_gguf)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_it_tries(engine: str, aftermath: Aftermath, built_weights: BuiltWeights) -> None:
    pwned = Path(os.environ["XDG_RUNTIME_DIR"], "pwned")
    options = ("--engine", engine, "--context-length", "512", "--concurrency", "2")
    with serving(weights_for(engine, built_weights), *options, "--", "--chat-template", template_of(pwned)) as server:
        assert chat(server.url, "hello").status == 200
        for name in (name for name in TRIES if (engine, name) != LIMITLESS):
            answer = chat(server.url, name)
            assert not pwned.exists()
            assert "root:" not in answer.text
            assert answer.status == 200 or answer.text
            assert chat(server.url, "hello").status == 200
            happened = "an error that says so" if answer.status != 200 else "rendered as harmless text"
            aftermath.note(FAULT, engine, name, f"{happened}; no command was run; the next request was answered")
        server.process.terminate()
        assert server.end()[0] == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_another_file(engine: str, aftermath: Aftermath, built_weights: BuiltWeights) -> None:
    """An engine refuses it when it loads, or when it renders."""
    options = ("--engine", engine, "--context-length", "512", "--port", "0", "-p", "hello")
    done = launch(weights_for(engine, built_weights), *options, "--", "--chat-template", FILES)
    assert (done.code, done.out) == (1, "")
    assert "root:" not in done.err
    error = next(line for line in done.err.splitlines() if line.startswith("error: "))
    assert "template" in error.lower() or "include" in error.lower(), error
    aftermath.note(FAULT, engine, "includes a file", "an error that says so, exit code 1")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_loop_without_end(engine: str, aftermath: Aftermath, built_weights: BuiltWeights) -> None:
    template = f"{{% if messages[0].content == 'endless' %}}{ENDLESS}{{% else %}}{NORMAL}{{% endif %}}"
    options = ("--engine", engine, "--context-length", "512", "--concurrency", "2")
    with serving(weights_for(engine, built_weights), *options, "--", "--chat-template", template) as server:
        with pytest.raises(OSError, match="timed out"):
            chat(server.url, "endless", GIVES_UP_AFTER_S)
        server.process.terminate()
        assert server.end()[0] == 0
    happened = "the client gave up; TERM to the launch ended the engine"
    aftermath.note(FAULT, engine, "a loop without end", happened)
