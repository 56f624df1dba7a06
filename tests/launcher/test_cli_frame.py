"""How a line is read: the first word decides, names and spellings, and what is no option of ours."""

from __future__ import annotations

from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

from tests.launcher.commands import Run

MISTRAL = "mistral-instruct-v0.2"
GGUF_REPO = "TheBloke/Mistral-7B-Instruct-v0.2-GGUF"


def test_without_a_word_it_helps(run: Run) -> None:
    bare = run()
    assert bare.code == 0
    assert bare == run("--help") == run("-h")


COMMANDS = (
    *(
        "chat",
        "serve",
        "ps",
        "logs",
        "stop",
        "restart",
        "reload",
        "list",
        "inspect",
        "check",
        "pull",
        "lock",
        "cache",
        "engines",
    ),
    *("export", "env", "doctor"),
)


def test_its_help(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text as a whole is a page of the documentation, which another test keeps current."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = run("--help").out.splitlines()
    assert max(map(len, lines)) <= 80
    options = {word.strip(",") for line in lines for word in line.split() if line.startswith("  -")}
    assert options >= {"-n", "--model-name", "-en", "--engine", "-p", "--prompt", "--dry-run", "-h", "--version"}
    assert [line.split()[0] for line in lines[lines.index("Commands:") + 1 :][: len(COMMANDS)]] == list(COMMANDS)


@pytest.mark.parametrize("name", ["launch", *(name for name in COMMANDS if name not in ("cache", "engines", "export"))])
def test_every_command_has_help(run: Run, name: str) -> None:
    done = run(name, "-h")
    assert done.code == 0
    assert done.out.startswith(f"Usage: launch {name} ")
    assert "--json" in done.out


def test_its_version(run: Run) -> None:
    assert run("--version").out == f"launch {version('model-launcher')}\n"


def test_two_console_scripts_are_the_same_program() -> None:
    scripts = entry_points(group="console_scripts", value="launcher.cli.main:main")
    assert {script.name for script in scripts} == {"launch", "model-launcher"}


@pytest.mark.parametrize(
    "line",
    [
        (MISTRAL,),
        ("--model-name", MISTRAL),
        ("--model_name", MISTRAL),
        ("-n", MISTRAL),
        (f"--model-name={MISTRAL}",),
        ("launch", MISTRAL),
        ("launch", "--model-name", MISTRAL),
        ("Mistral-Instruct-V0.2",),
        ("mistral-7b-instruct-v0.2",),
        (GGUF_REPO,),
        (GGUF_REPO.lower(),),
        (f"{GGUF_REPO}:Q4_K_M",),
        (f"{GGUF_REPO.lower()}:q4_k_m",),
        ("--engine", "llama.cpp", MISTRAL),
        (MISTRAL, "--model-engine", "llama_cpp", "--model-format", "ggufv2", "--quantization", "q4_k_m"),
        (MISTRAL, "-en", "llamacpp", "-f", "GGUF", "-q", "Q4_K_M", "-s", "7"),
        (MISTRAL, "--size_in_billions", "7b", "--download-hub", "HF"),
    ],
    ids=" ".join,
)
def test_many_lines_mean_the_same_model(run: Run, line: tuple[str, ...]) -> None:
    done = run(*line, "--dry-run", "--json")
    assert done.code == 0, done.err
    plan = done.json
    chosen = (plan["name"], plan["model_format"], plan["quantization"], plan["repo_id"], plan["engine"])
    assert chosen == (MISTRAL, "gguf", "Q4_K_M", GGUF_REPO, "llama.cpp")


def test_a_repo_id_says_format_and_quantization(run: Run) -> None:
    plan = run(f"{GGUF_REPO}:Q5_K_M", "--dry-run", "--json").json
    assert plan["files"][0]["path"] == "mistral-7b-instruct-v0.2.Q5_K_M.gguf"
    other = run("xorbits/mistral-7b-instruct-v0.2-gguf", "--dry-run", "--json").json
    assert (other["hub"], other["repo_id"]) == ("modelscope", "Xorbits/Mistral-7B-Instruct-v0.2-GGUF")


def test_a_path_is_a_model(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "Own-7B.Q4_K_M.gguf"
    file.write_bytes(b"GGUF\x03\0\0\0" + bytes(16))
    for line in ((str(file),), ("--model-path", str(file)), ("-mp", str(file))):
        plan = run(*line, "--dry-run", "--json").json
        assert plan["hub"] == "local"
        assert str(file) in plan["command"]


@pytest.mark.parametrize(
    ("other", "ours"),
    [
        (("ls",), ("list",)),
        (("registrations",), ("list",)),
        (("show", MISTRAL), ("inspect", MISTRAL)),
        (("engine", MISTRAL), ("inspect", MISTRAL)),
        (("engine", "--model-name", MISTRAL), ("inspect", MISTRAL)),
        (("download", MISTRAL, "--offline"), ("pull", MISTRAL, "--offline")),
        (("run", MISTRAL, "--json"), ("chat", MISTRAL, "--json")),
    ],
    ids=lambda words: " ".join(words),
)
def test_other_tools_words_for_commands(run: Run, other: tuple[str, ...], ours: tuple[str, ...]) -> None:
    assert run(*other) == run(*ours)


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ((MISTRAL, "smollm2"), (MISTRAL, "smollm2")),
        ((MISTRAL, "--model-name", "smollm2"), (MISTRAL, "smollm2")),
        ((MISTRAL, "--model-name", MISTRAL), (MISTRAL, MISTRAL)),
        (("--model-name", MISTRAL, "--model-path", "x.gguf"), (MISTRAL, "./x.gguf")),
        (("inspect", MISTRAL, "smollm2"), (MISTRAL, "smollm2")),
    ],
    ids=lambda words: " ".join(words),
)
def test_a_name_given_twice(run: Run, line: tuple[str, ...], names: tuple[str, str]) -> None:
    done = run(*line)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: The model is named 2 times: `{names[0]}`, `{names[1]}`\n")


@pytest.mark.parametrize(
    "line", [("launch",), ("chat",), ("inspect",), ("check",), ("pull",), ("--dry-run",)], ids=" ".join
)
def test_no_name(run: Run, line: tuple[str, ...]) -> None:
    done = run(*line)
    assert (done.code, done.err) == (2, "error: No model is named\n\nhint: launch list\n")


@pytest.mark.parametrize(
    ("line", "swallowed"),
    [
        (("--model-engine", "--model-name", MISTRAL, "--model-format", "gguf"), "--model-name"),
        ((MISTRAL, "--model-engine", "--model-format", "gguf"), "--model-format"),
        (("--model_engine", "--model_name", MISTRAL), "--model_name"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else None,
)
def test_an_option_swallowed_by_an_empty_variable(run: Run, line: tuple[str, ...], swallowed: str) -> None:
    done = run(*line)
    assert done.code == 2
    assert done.err == f"error: `--model-engine` was given `{swallowed}`\n\nhint: is a shell variable empty?\n"


def test_an_empty_variable_at_the_end(run: Run) -> None:
    done = run("--model-name", MISTRAL, "--quantization")
    assert done.code == 2
    assert done.err == "error: Option `--quantization` requires an argument\n\nhint: is a shell variable empty?\n"


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (("--max_model_len", "4096"), "it is `--context-length` here"),
        (("--tensor_parallel_size", "2"), "it is `--gpus` here"),
        (("--torch_dtype", "float16"), "it is `--dtype` here"),
        (("--max-model-len=4096",), "it is `--context-length` here"),
        (("--n-predict", "9"), "it is `--max-tokens` here"),
        (
            ("--gpu_memory_utilization", "0.8"),
            "`--gpu-memory-utilization` is an option of vllm: put `-- --gpu-memory-utilization 0.8` at the end",
        ),
        (("--mlock",), "`--mlock` is an option of llama.cpp: put `-- --mlock` at the end"),
        (("--quantzation", "Q4_0"), "did you mean `--quantization`?"),
        (("--tempreature", "0"), "did you mean `--temperature`?"),
        (("--xyzzy",), "launch --help"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else None,
)
def test_an_unknown_option_names_its_cure(run: Run, words: tuple[str, ...], cure: str) -> None:
    done = run(MISTRAL, *words)
    assert done.code == 2
    option = words[0].partition("=")[0].replace("_", "-")
    assert done.err == f"error: There is no option `{option}`\n\nhint: {cure}\n"


def test_what_follows_two_hyphens_is_the_engines(run: Run) -> None:
    own = ("smollm2", "--engine", "echo", "--dry-run", "--json")
    engines = ("--reply", "hi", "--threads", "-p", "--model", "x", "--")
    assert tuple(run(*own, "--", *engines).json["command"][-7:]) == engines
    assert run("--", "--reply", "x").code == 0


@pytest.mark.parametrize(
    "words", [("--context-length", "4096"), ("--context_length=4096",), ("--reply", "x", "--dry-run")]
)
def test_options_of_ours_among_the_engines_are_sent_back(run: Run, words: tuple[str, ...]) -> None:
    done = run("smollm2", "--engine", "echo", "--", *words)
    option = "--dry-run" if "--dry-run" in words else "--context-length"
    assert done.code == 2
    assert f"error: `{option}` is an option of launch, and stands among those of the engine\n" in done.err
    assert done.err.endswith(f"hint: put `{option}` before the `--`\n")
