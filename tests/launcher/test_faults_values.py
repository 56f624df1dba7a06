"""Values that would be commands, options or bombs, given to real launches: refused, or handed to the engine as data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import launcher
from registry.errors import UnsafeFileError
from tests.fakes.configured import gguf
from tests.fakes.hub import HubServer
from tests.launcher.aftermath import ECHO, Aftermath, Asking, engine_pids, needs_proc, serving
from tests.launcher.commands import Run
from tests.registry.entries import yaml_entry

pytestmark = pytest.mark.processes

FAULT = 14
GOOD = yaml_entry("good")
HOSTILE = {
    "`$(…)`": "$(touch pwned)",
    "backquotes": "`touch pwned`",
    "`;`": "x; touch pwned #",
    "a pipe": "x | touch pwned",
    "a newline": "x\ntouch pwned\n",
    "a leading `-`": "--no-such-option",
    "a leading `--version`": "--version",
    "quotes": "x' \"; touch pwned; '",
}
by_kind = pytest.mark.parametrize("kind", HOSTILE)


@pytest.fixture(autouse=True)
def _nothing_runs(tmp_path: Path, runtime_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in which a value was taken for a command: it would have left a file."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield
    assert not [path for place in (tmp_path, runtime_folder) for path in place.rglob("pwned*") if path.name == "pwned"]


OPTIONS = {
    "a model's name": "--model-name",
    "a path": "--model-path",
    "a format": "--model-format",
    "a quantization": "--quantization",
    "an engine": "--engine",
    "a hub": "--hub",
    "a registry": "--registry",
    "a size": "--size-in-billions",
    "a data type": "--dtype",
}


@pytest.mark.parametrize("what", OPTIONS)
def test_an_option_is_refused_by_what_it_says(aftermath: Aftermath, run: Run, what: str) -> None:
    """No option's value is a command; one that names nothing is an error."""
    option = OPTIONS[what]
    others = () if option in ("--model-name", "--model-path") else ("smollm2",)
    others = others if option == "--engine" else (*others, "--engine", "echo")
    for value in HOSTILE.values():
        done = run(*others, f"{option}={value}", "--offline", "-p", "hello")
        assert (done.code in (1, 2), done.out) == (True, ""), done.err
        assert done.err.startswith(("error: ", "Usage: ")), done.err
        assert "Traceback" not in done.err
    aftermath.note(FAULT, f"the command line, {what}", ", ".join(HOSTILE), "an error; no engine was started")


@by_kind
def test_an_engines_argument_is_data(aftermath: Aftermath, run: Run, kind: str) -> None:
    for given in (("--", f"--reply={HOSTILE[kind]}"), ("-p", HOSTILE[kind])):
        done = run(*ECHO, *(("-p", "hello") if given[0] == "--" else ()), *given)
        assert (done.code, done.out) == (0, HOSTILE[kind]), done.err
    aftermath.note(FAULT, "an engine's option, and a prompt", kind, "came out as it went in")


def test_a_path_with_a_newline(aftermath: Aftermath) -> None:
    weights = Path(f"{HOSTILE['a newline']}.Q4_K_M.gguf")
    weights.write_bytes(gguf("llama", size_bytes=0))
    with pytest.raises(UnsafeFileError) as caught:
        launcher.launch(Path(".", weights).absolute(), engine="echo")
    assert "\n" not in caught.value.message
    aftermath.note(FAULT, "the path of a model", "a newline", "an error that names it; no engine was started")


@needs_proc
@pytest.mark.parametrize("kind", sorted(set(HOSTILE) - {"a newline"}))
def test_a_path_is_data(aftermath: Aftermath, kind: str) -> None:
    """A folder and a file may be called so: the engine gets the path as one argument that is no option."""
    folder = Path(HOSTILE[kind])
    folder.mkdir()
    weights = folder / f"{HOSTILE[kind]}.Q4_K_M.gguf"
    weights.write_bytes(gguf("llama", size_bytes=0))
    with launcher.launch(weights, engine="echo") as model:
        assert model.generate("hello").text == "hello"
        words = Path(f"/proc/{engine_pids()[0]}/cmdline").read_text().split("\0")
    assert words[words.index("--model") + 1] == str(weights.absolute())
    aftermath.note(FAULT, "the path of a model", kind, "one argument of the engine's, and an absolute path")


@by_kind
def test_a_revision_is_data(aftermath: Aftermath, run: Run, hub: HubServer, published: str, kind: str) -> None:
    done = run("pull", "own", f"--revision={HOSTILE[kind]}")
    assert (done.code, done.out) == (1, ""), done.err
    assert "Traceback" not in done.err
    assert all(request.path.isprintable() and " " not in request.path for request in hub.requests)
    aftermath.note(FAULT, "a revision", kind, "an error: the hub, asked by an encoded address, has none of that name")


BOMB = "\n".join(["a0: &a0 [lol]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))])
FILES = {
    "a bomb of aliases": (BOMB, "own.yaml:2"),
    "a wrong type": (GOOD + "context_length: 8k\n", "own.yaml:10"),
    "a key that is a typo": (GOOD.replace("name: good", "nmae: good"), "own.yaml:1"),
    "a Python object": (GOOD + "license: !!python/object/apply:os.system [touch pwned]\n", "own.yaml:10"),
    "a name that begins with `-`": (GOOD.replace("name: good", "name: --help"), "own.yaml:1"),
    "shell text in a repo": (GOOD.replace("org/small", "$(touch pwned)/x"), "own.yaml:8"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_catalogue_file(aftermath: Aftermath, run: Run, tmp_path: Path, kind: str) -> None:
    text, place = FILES[kind]
    path = tmp_path / "own.yaml"
    path.write_text(text)
    for words in (("list",), ("good", "--engine", "echo", "-p", "hello")):
        done = run(*words, "--registry", str(path))
        assert done.code == 2
        assert place in done.err
        assert "Traceback" not in done.err
    aftermath.note(
        FAULT, "a catalogue file", kind, "an error with file, line and key, exit code 2; no engine was started"
    )


SERVED = "models:\n  - smollm2-instruct\n"
SERVE_FILES = {
    "a bomb of aliases": (BOMB, 2),
    "a wrong type": ("defaults: {port: high}\n" + SERVED, 1),
    "a key that is a typo": (SERVED.replace("models", "modles"), 1),
    "a key that belongs elsewhere": (SERVED + "  - {model: smollm2-instruct, port: 1}\n", 3),
    "a Python object": (SERVED + "  - !!python/object/apply:os.system [touch pwned]\n", 3),
    "shell text for a name": (SERVED + "  - {model: smollm2-instruct, name: $(touch pwned)}\n", 3),
    "a name that begins with `-`": (SERVED + "  - {model: smollm2-instruct, name: --version}\n", 3),
    "shell text for a model": (SERVED + "  - $(touch pwned)\n", 3),
}


@pytest.mark.parametrize("kind", SERVE_FILES)
def test_a_file_of_models(aftermath: Aftermath, run: Run, tmp_path: Path, kind: str) -> None:
    text, line = SERVE_FILES[kind]
    path = tmp_path / "launch.yaml"
    path.write_text(text)
    done = run("serve", "-c", str(path), "--port", "0")
    assert (done.code, done.out) == (2, ""), done.err
    assert f"launch.yaml:{line}" in done.err
    assert "Traceback" not in done.err
    aftermath.note(FAULT, "launch.yaml", kind, "an error with file, line and key, exit code 2; nothing was started")


def test_an_engines_argument_in_a_file_is_data(aftermath: Aftermath, tmp_path: Path) -> None:
    path = tmp_path / "launch.yaml"
    models = [
        {"model": "smollm2-instruct", "name": f"m{number}", "engine-args": [f"--reply={value}"]}
        for number, value in enumerate(HOSTILE.values())
    ]
    path.write_text(json.dumps({"defaults": {"engine": "echo"}, "models": models}))
    with serving("serve", "-c", str(path)) as server:
        for number, (kind, value) in enumerate(HOSTILE.items()):
            assert Asking(server.url, "hello", model=f"m{number}").rest().text == value
            aftermath.note(FAULT, "an engine's option in launch.yaml", kind, "came out as it went in")
        server.process.terminate()
        assert server.end()[0] == 0
