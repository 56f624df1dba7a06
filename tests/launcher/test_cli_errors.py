"""What goes wrong: one clear error each, its exit code, nothing on stdout, no traceback, and nothing left running."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.launcher.commands import Run, launch

MISTRAL = "mistral-instruct-v0.2"
ECHO = ("smollm2-instruct", "--engine", "echo")
ASK_ECHO = (*ECHO, "-p", "hello")


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        (("mistral-instruct-v0.3",), "No model is called `mistral-instruct-v0.3`", f"did you mean `{MISTRAL}`?"),
        (("xyzzy",), "No model is called `xyzzy`", "launch list"),
        (("lst",), "No model is called `lst`", "did you mean the command `list`?"),
        (("chta", "-p", "x"), "No model is called `chta`", "did you mean the command `chat`?"),
        ((MISTRAL, "-f", "gptq2"), f"`{MISTRAL}` has no format `gptq2`", "did you mean `gptq`?"),
        ((MISTRAL, "-q", "Q4_K_X"), f"`{MISTRAL}` has no quantization `Q4_K_X`", "did you mean `Q4_K_S`?"),
        ((MISTRAL, "-q", "Q9"), f"`{MISTRAL}` has no quantization `Q9`", f"launch inspect {MISTRAL}"),
        ((MISTRAL, "--engine", "vlm"), "There is no engine `vlm`", "did you mean `vllm`?"),
        ((MISTRAL, "--hub", "hugface"), "There is no hub `hugface`", "the hubs are "),
        ((MISTRAL, "-s", "8"), f"`{MISTRAL}` has no size `8`", f"launch inspect {MISTRAL}"),
        ((MISTRAL, "-s", "0_5"), f"`{MISTRAL}` has no size `0.5`", f"launch inspect {MISTRAL}"),
        ((MISTRAL, "-s", "seven"), "`seven` is not a size in billions of parameters", "--size-in-billions 7, 0.5"),
        ((MISTRAL, "-c", "99999"), f"`{MISTRAL}` has a context of 32,768 tokens, not 99,999", "--context-length max"),
        ((MISTRAL, "--registry", "nowhere"), "There is no registry at `nowhere`", "give --registry a YAML file"),
        (("./missing.gguf",), "There is no file or folder `./missing.gguf`", "launch list shows"),
        (("--model-path", "missing.gguf"), "There is no file or folder `./missing.gguf`", "launch list shows"),
        (("inspect", "mistral-instruct"), "No model is called `mistral-instruct`", f"did you mean `{MISTRAL}`?"),
        (("list", "--engine", "vlm"), "There is no engine `vlm`", "did you mean `vllm`?"),
        (("engines", "install", "vlm"), "There is no engine `vlm`", "did you mean `vllm`?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_there_is_not(run: Run, line: tuple[str, ...], message: str, hint: str) -> None:
    done = run(*line)
    assert (done.code, done.out) == (1, "")
    first, *details, said = done.err.splitlines()
    assert first == f"error: {message}"
    assert said.startswith(f"hint: {hint}")
    assert all(line == "" or line.startswith("  ") for line in details)


def test_what_cannot_be_combined_says_what_can(run: Run) -> None:
    done = run(MISTRAL, "--engine", "vllm", "-f", "pytorch", "-q", "4-bit")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"error: Nothing here runs `{MISTRAL}` with format `pytorch`, quantization `4-bit`, engine `vllm`\n"
        "  `vllm` does not run pytorch as `4-bit`: bitsandbytes left its tree for a plugin\n"
        "  `transformers` runs it\n"
        "\n"
        f"hint: launch {MISTRAL} --model-format pytorch --quantization 4-bit --engine transformers\n"
    )
    command = done.err.splitlines()[-1].removeprefix("hint: launch ").split()
    assert run(*command, "--dry-run").code == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ((*ASK_ECHO, "--top-p", "2"), "`top_p` must be a number above 0 and at most 1, not `2.0`"),
        ((*ASK_ECHO, "--temperature", "-1"), "`temperature` must be a number from 0 to 2, not `-1.0`"),
        ((*ASK_ECHO, "--max-tokens", "0"), "`max_tokens` must be a whole number of at least 1, not `0`"),
        ((*ASK_ECHO, "--max-tokens", "9000"), "`max_tokens` of 9,000 is more than the context of 8,192 tokens"),
        ((*ASK_ECHO, "--stop", ""), "`stop` must be a text or a list of texts, none of them empty, not `['']`"),
        (("chat", *ECHO, "--min-p", "7"), "`min_p` must be a number from 0 to 1, not `7.0`"),
        ((*ECHO, "--concurrency", "0"), "`concurrency` must be a whole number of at least 1, not `0`"),
        ((*ECHO, "--threads", "0"), "`threads` must be a whole number of at least 1, not `0`"),
    ],
    ids=lambda value: " ".join(value[3:]) if isinstance(value, tuple) else "",
)
def test_a_value_out_of_range_is_refused_before_anything_starts(
    run: Run, line: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    done = run(*line)
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[0] == f"error: {message}"
    assert not (tmp_path / "home" / "launch" / "logs").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ((*ASK_ECHO, "--max-tokens", "many"), "Invalid value for `--max-tokens`: `many` is not a valid int"),
        ((*ECHO, "--context-length", "long"), "`--context-length` must be a whole number or `max`, not `long`"),
        ((*ECHO, "-p", ""), "A prompt is empty"),
        ((*ECHO, "-p", "@nothing"), "`nothing` cannot be read: No such file or directory"),
        ((*ECHO, "--port", "70000"), "Invalid value for `--port`: 70000 is not in the range"),
        (("list", "all"), "`all` is one word too many"),
        (("engines", "instal"), "No such command `instal`. Did you mean `install`"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_wrong_usage(run: Run, line: tuple[str, ...], message: str) -> None:
    done = run(*line)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: own\nspecs: [\n", "own.yaml:3 is not YAML: did not find expected node content"),
        ("name: own\nspecs:\n  - format: gguf\n    size: 7\n", "own.yaml:4: `specs.0.size` is not a key"),
        ("just words\n", "own.yaml:1"),
    ],
)
def test_a_corrupted_registry(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    given = run("smollm2", "--registry", str(file))
    monkeypatch.setenv("LAUNCH_REGISTRY", str(tmp_path))
    assert given == run("list") == run("smollm2", "--dry-run")
    assert (given.code, given.out) == (2, "")
    assert given.err.startswith(f"error: {tmp_path}/{message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a text that somebody renamed", "`model.gguf` is not a GGUF file"),
        (b"", "`model.gguf` is not a GGUF file"),
        (b"GGUF\x03\0\0\0", "`model.gguf` begins as GGUF, but its header cannot be read"),
    ],
    ids=["text", "empty", "cut in the header"],
)
def test_a_file_that_is_no_model(run: Run, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    done = run(str(tmp_path / "model.gguf"))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"error: {message}\n")


def test_a_folder_without_a_model(run: Run, tmp_path: Path) -> None:
    done = run(str(tmp_path))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ")


def test_a_port_that_is_in_use(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(*ECHO, "--port", str(port))
    assert (done.code, done.out) == (1, "")
    assert done.err == (f"error: Port {port} of 127.0.0.1 is in use by another program\n\nhint: --port 0\n")


def test_an_engine_that_ends_while_it_starts(run: Run) -> None:
    done = run(*ASK_ECHO, "--", "--no-such-option")
    assert (done.code, done.out) == (1, "")
    assert "error: echo.py: error: unrecognized arguments: --no-such-option\n" in done.err
    assert "\n  log: `" in done.err


def test_as_programs_they_print_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("name: [")
    lines = (
        ("lst",),
        (MISTRAL, MISTRAL),
        ("smollm2", "--registry", "own.yaml"),
        (*ASK_ECHO, "--", "--no-such-option"),
    )
    for line, code in zip(lines, (1, 2, 2, 1), strict=True):
        done = launch(*line, folder=tmp_path)
        assert (done.code, done.out) == (code, "")
        assert "error: " in done.err
        assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        (
            ("mistral-instruct-v0.3",),
            1,
            {"kind": "unknown_model", "hint": f"did you mean `{MISTRAL}`?", "permanent": True},
        ),
        ((*ASK_ECHO, "--top-p", "2"), 1, {"kind": "invalid_request", "facts": {"parameter": "top_p"}}),
        (
            (*ASK_ECHO, "--max-tokens", "9000"),
            1,
            {"kind": "context_overflow", "facts": {"prompt_tokens": 0, "context_length": 8192}},
        ),
        ((*ECHO, "--nope"), 2, {"kind": "usage", "message": "There is no option `--nope`", "permanent": True}),
        (("smollm2", "--offline", "-p", "x"), 1, {"kind": "engine_not_installed"}),
        (("pull", "smollm2", "--offline"), 1, {"kind": "offline", "permanent": False}),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_errors_for_programs(run: Run, line: tuple[str, ...], code: int, expected: dict[str, object]) -> None:
    done = run(*line, "--json")
    assert (done.code, done.err) == (code, "")
    error = done.events[-1]
    assert set(error) == {"schema", "event", "kind", "message", "hint", "permanent", "details", "facts"}
    assert (error["schema"], error["event"]) == (1, "error")
    assert error | expected == error


def test_a_variable_can_ask_for_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_JSON", "1")
    assert run("xyzzy").events[-1]["kind"] == "unknown_model"


def test_the_rejected_combinations_are_facts(run: Run) -> None:
    done = run(MISTRAL, "--engine", "vllm", "-f", "pytorch", "-q", "4-bit", "--json")
    rejected = done.events[-1]["facts"]["rejected"]
    assert {"engine", "model_format", "quantization", "reason"} <= set(rejected[0])
