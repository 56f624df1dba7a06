"""`launch cache`: tables and JSON, dry runs, questions, exit codes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from launcher import plan
from launcher.cache_use import hold
from tests.fakes.cached import entries, make_environment, start_using
from tests.fakes.published import FILE, NAME, REPO
from tests.launcher.commands import LIMIT_S, Run, Terminal, started, wait_for_event


@pytest.fixture
def pulled(run: Run, published: str) -> list[Path]:
    """Return where two quantizations of the model are, one from each hub."""
    asked = (("-q", "Q4_0", "--hub", "huggingface"), ("-q", "Q8_0", "--hub", "modelscope"))
    return [Path(run("pull", NAME, *options).out.strip()) for options in asked]


@pytest.mark.parametrize("words", [("cache",), ("cache", "list"), ("cache", "size")])
@pytest.mark.usefixtures("pulled")
def test_a_list_in_a_pipe(run: Run, published: str, words: tuple[str, ...]) -> None:
    done = run(*words)
    name, what, size, used, hub, commit = done.out.splitlines()[0].split("\t")
    assert (name, what, size, hub, commit) == (NAME, "gguf Q4_0", "100 kB", "huggingface", published[:7])
    time.strptime(used, "%Y-%m-%d")
    assert done.out.splitlines()[1].startswith(f"{NAME}\tgguf Q8_0\t200 kB\t")
    assert (done.code, done.err) == (0, "300 kB in all\n")


def test_a_list_for_programs(run: Run, published: str, pulled: list[Path]) -> None:
    make_environment()
    first, second, environment = run("cache", "list", "--json").json
    assert time.strptime(first.pop("last_used"), "%Y-%m-%dT%H:%M:%S+00:00")
    assert first == {
        "name": NAME,
        "kind": "model",
        "model_format": "gguf",
        "quantization": "Q4_0",
        "size_bytes": 100_004,
        "in_use": False,
        "hub": "huggingface",
        "repo_id": REPO,
        "revision": published,
        "folder": str(pulled[0].parent),
        "files": [str(pulled[0])],
    }
    assert second["hub"] == "modelscope"
    assert (environment["kind"], environment["name"], environment["revision"]) == ("environment", "llama.cpp", "0.2")
    assert (environment["hub"], environment["files"]) == (None, [])


@pytest.mark.usefixtures("pulled")
def test_a_list_on_a_terminal() -> None:
    held = start_using(NAME, "Q4_0")
    with Terminal("cache") as terminal:
        lines = terminal.read_all().splitlines()
        assert terminal.wait() == 0
    held.release()
    assert lines[0].split() == ["NAME", "WHAT", "SIZE", "LAST", "USE", "HUB", "COMMIT"]
    assert lines[1].split()[:7] == [NAME, "gguf", "Q4_0", "100", "kB", "in", "use"]
    assert lines[-1] == "300 kB in all"


def test_the_folders(run: Run, tmp_path: Path) -> None:
    folders = dict(line.split("\t") for line in run("cache", "path").out.splitlines())
    assert folders == {
        "launch": str(tmp_path / "home/launch"),
        "huggingface": str(tmp_path / "home/huggingface/hub"),
        "modelscope": str(tmp_path / "home/modelscope"),
    }
    assert {record["name"] for record in run("cache", "path", "--json").json} == set(folders)


# --- verify -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pulled")
def test_what_is_right(run: Run) -> None:
    done = run("cache", "verify")
    assert (done.code, done.out) == (0, "")
    assert done.err.endswith("2 files verified, 300 kB\n")
    assert run("cache", "verify", f"{NAME}:Q8_0").err.endswith("1 file verified, 200 kB\n")


def test_what_is_wrong(run: Run, pulled: list[Path]) -> None:
    pulled[1].write_bytes(bytes(200_004))
    done = run("cache", "verify")
    assert (done.code, done.out) == (1, "")
    assert "error: 1 file is not what was vouched for\n" in done.err
    assert f"  `{pulled[1]}` is sha256:" in done.err
    again = f"launch pull {NAME} -f gguf -q Q8_0 --hub modelscope"
    assert f"hint: `{again}` fetches what is wrong anew; `launch cache rm {NAME}` removes it\n" in done.err
    events = run("cache", "verify", "--json").events
    assert [(each["path"], each["state"]) for each in events if each["event"] == "file"] == [
        (str(pulled[0]), "right"),
        (str(pulled[1]), "wrong"),
    ]
    assert (events[-1]["kind"], events[-1]["facts"]["path"]) == ("digest", str(pulled[1]))
    assert run(*again.split()[1:]).code == 0
    assert run("cache", "verify", "--json").events[-1] == {
        "schema": 1,
        "event": "verified",
        "right": 2,
        "unknown": 0,
    }


# --- rm ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("cache", "rm"), ("rm",)])
def test_without_yes_nothing_goes(run: Run, pulled: list[Path], words: tuple[str, ...]) -> None:
    done = run(*words, NAME)
    assert [line.split("\t")[1] for line in done.out.splitlines()] == ["gguf Q4_0", "gguf Q8_0"]
    assert (done.code, done.err) == (0, "nothing was removed; --yes frees 300 kB\n")
    event = run(*words, NAME, "--json").json
    assert (event["event"], event["freed_bytes"], len(event["entries"])) == ("planned", 300_008, 2)
    assert all(path.exists() for path in pulled)


def test_with_yes_it_goes(run: Run, pulled: list[Path]) -> None:
    done = run("cache", "rm", f"{NAME}:Q4_0", "--yes")
    assert (done.code, done.err) == (0, "100 kB freed\n")
    assert [path.exists() for path in pulled] == [False, True]
    event = run("cache", "rm", NAME, "--yes", "--json").json
    assert (event["event"], event["freed_bytes"], event["kept"]) == ("removed", 200_004, [])
    assert event["entries"][0]["size_bytes"] == 200_004
    again = run("cache", "rm", NAME, "--yes")
    assert (again.code, again.out, again.err) == (0, "", "there is nothing to remove\n")


def test_what_others_keep_is_not_freed(run: Run, pulled: list[Path], tmp_path: Path) -> None:
    os.link(pulled[1], tmp_path / "kept")
    done = run("cache", "rm", NAME)
    assert done.err == (
        "200 kB of it stay on disk: other files, or programs such as uv, keep them too\n"
        "nothing was removed; --yes frees 100 kB\n"
    )


@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_terminal_is_asked(pulled: list[Path], answer: str) -> None:
    with Terminal("cache", "rm", NAME) as terminal:
        terminal.read_until("Remove this, 300 kB? [y/N]: ")
        terminal.type(f"{answer}\n")
        said = terminal.read_all()
        assert terminal.wait() == 0
    assert ("300 kB freed" in said, "nothing was removed" in said) == (answer == "y", answer == "n")
    assert [path.exists() for path in pulled] == [answer == "n"] * 2


def test_what_is_in_use_stays(run: Run, pulled: list[Path]) -> None:
    held = start_using(NAME, "Q4_0")
    done = run("cache", "rm", NAME, "--yes")
    assert done.code == 1
    assert f"{NAME} gguf Q4_0 stays: it is in use\n" in done.err
    assert f"error: `{NAME}` is in use\n" in done.err
    assert [path.exists() for path in pulled] == [True, False]
    event, error = run("cache", "rm", NAME, "--yes", "--json").events
    assert (event["event"], event["entries"], len(event["kept"])) == ("removed", [], 1)
    assert (error["event"], error["kind"]) == ("error", "in_use")
    held.release()


def test_an_engine_in_use_stays(run: Run, published: str) -> None:
    folder = make_environment()
    run("pull", NAME, "-q", "Q4_0")
    held = hold(plan(NAME, quantization="Q4_0"), None, str(folder / "bin" / "python"))
    done = run("engines", "remove", "llama.cpp")
    assert (done.code, done.err) == (
        1,
        f"error: `llama.cpp` is in use\n  `{folder}`\n\nhint: stop what runs on it\n",
    )
    held.release()
    assert run("engines", "remove", "llama.cpp").code == 0
    assert not folder.exists()


def test_a_name_that_there_is_not(run: Run, pulled: list[Path]) -> None:
    done = run("cache", "rm", "owm", NAME, "--yes")
    assert (done.code, done.err) == (1, "error: No model is called `owm`\n\nhint: launch cache list\n")
    assert all(path.exists() for path in pulled)
    assert run("cache", "rm", "--yes").code == 2


# --- prune ------------------------------------------------------------------------------------------------------------


def test_the_old_goes(run: Run, pulled: list[Path]) -> None:
    for entry in entries():
        if entry.quantization == "Q4_0":
            os.utime(entry.uses[0].path, (1000, 1000))
    assert run("cache", "prune", "--older-than", "30d").err == "nothing was removed; --yes frees 100 kB\n"
    assert run("cache", "prune", "--older-than", "30d", "--yes").err == "100 kB freed\n"
    assert [path.exists() for path in pulled] == [False, True]
    assert run("cache", "prune", "--keep", "200kB", "--older-than", "30d", "--yes").err == "200 kB freed\n"
    assert not pulled[1].exists()


@pytest.mark.usefixtures("pulled")
def test_what_fits_stays(run: Run) -> None:
    done = run("cache", "prune", "--keep", "50GB", "--yes")
    assert (done.code, done.out, done.err) == (0, "", "there is nothing to remove\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Nothing says what is to go"),
        (("--older-than", "soon"), "`--older-than` must be a time such as `90s`, `10m` or `2h`, not `soon`"),
        (("--keep", "little"), "`--keep` must be a size such as `12GB` or `512MB`, not `little`"),
    ],
    ids=["nothing", "time", "size"],
)
def test_wrong_usage(run: Run, words: tuple[str, ...], message: str) -> None:
    done = run("cache", "prune", *words)
    assert (done.code, done.err.splitlines()[0]) == (2, f"error: {message}")


def test_the_file_is_named(run: Run, pulled: list[Path]) -> None:
    """A link to nothing is what remains where somebody removed a blob by hand."""
    pulled[0].resolve().unlink()
    done = run("cache", "verify", NAME)
    assert done.code == 1
    assert f"{FILE}` is a link to nothing\n" in done.err


@pytest.mark.engine
@pytest.mark.index
def test_what_runs_stays(run: Run) -> None:
    with started("smollm2-instruct", "--port", "0", "--json") as process:
        wait_for_event(process, "ready")
        done = run("cache", "rm", "smollm2-instruct", "llama.cpp", "--yes")
        assert (done.code, done.out) == (1, "")
        assert "smollm2-instruct gguf Q4_1 stays: it is in use\nllama.cpp environment stays: it is in use\n" in done.err
        process.terminate()
        process.wait(LIMIT_S)
    in_use = {each["name"]: each["in_use"] for each in run("cache", "--json").json}  # other engines' may be there
    assert (in_use["smollm2-instruct"], in_use["llama.cpp"]) == (False, False)
