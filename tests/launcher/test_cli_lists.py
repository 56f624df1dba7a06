"""`launch list`, `inspect`, `engines`, `pull`: tables on a terminal, plain lines in a pipe, JSON for programs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fakes.hub import HubServer
from tests.launcher.commands import Run, Terminal

OWN = """\
name: own
abilities: [chat, tools]
specs:
  - format: gguf
    size_in_billions: 0.5
    quantizations: [Q4_0, Q8_0]
    sources:
      huggingface: {repo_id: org/own, file: "own.{quantization}.gguf"}
"""


@pytest.fixture
def own_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own.yaml").write_text(OWN)
    monkeypatch.setenv("LAUNCH_REGISTRY", str(tmp_path / "own.yaml"))
    return tmp_path / "own.yaml"


def names(run: Run, *filters: str) -> set[str]:
    done = run("list", *filters)
    assert (done.code, done.err) == (0, "")
    found = {line.split("\t")[0] for line in done.out.splitlines()}
    assert found == {record["name"] for record in run("list", "--json", *filters).json}
    return found


def test_a_list_in_a_pipe_is_tab_separated(run: Run) -> None:
    lines = run("list").out.splitlines()
    assert "smollm2-instruct\tgguf\t0.135\tchat\t8,192\tApache-2.0\t" in lines
    assert all(line.count("\t") == 6 for line in lines)


@pytest.mark.usefixtures("own_registry")
def test_its_filters(run: Run) -> None:
    assert names(run) >= {"own", "smollm2-instruct", "mistral-instruct-v0.2"}
    assert names(run, "--ability", "tools") == {"own"}
    assert names(run, "--model-format", "GPTQ") == {"mistral-instruct-v0.2"}
    assert names(run, "-f", "ggufv2") >= {"own", "smollm2-instruct", "mistral-instruct-v0.2"}
    assert names(run, "--engine", "vllm") == {"mistral-instruct-v0.2"}
    assert names(run, "--cached") == set()


def test_a_list_for_programs(run: Run) -> None:
    records = {record["name"]: record for record in run("list", "--json").json}
    assert records["smollm2-instruct"] == {
        "name": "smollm2-instruct",
        "family": "smollm2",
        "aliases": ["smollm2", "smollm2-135m-instruct"],
        "formats": ["gguf"],
        "sizes_in_billions": [0.135],
        "abilities": ["chat"],
        "context_length": 8192,
        "license": "Apache-2.0",
        "cached": False,
    }


def test_on_a_terminal_it_is_a_table() -> None:
    with Terminal("list", kind="xterm") as terminal:
        table = re.sub(r"\x1b\[[0-9;]*m", "", terminal.read_all())
        assert terminal.wait() == 0
    heading, *rows = table.splitlines()
    assert heading.split() == ["NAME", "FORMATS", "BILLIONS", "ABILITIES", "CONTEXT", "LICENCE", "ON", "DISK"]
    at = heading.index("FORMATS")
    assert any(row.startswith("smollm2-instruct ") and row[at:].startswith("gguf ") for row in rows)


def test_an_inspection_shows_facts_specs_and_what_runs_here(run: Run) -> None:
    done = run("inspect", "mistral-instruct-v0.2")
    assert (done.code, done.err) == (0, "")
    for words in (
        "mistral-instruct-v0.2\n",
        "  context   32,768 tokens\n",
        "7,241,732,096 parameters, 32 layers, 4,096 hidden",
        "  gguf, 7 billion parameters\n    quantizations  Q2_K, Q3_K_S,",
        "    Hugging Face   TheBloke/Mistral-7B-Instruct-v0.2-GGUF at 3a6fbf4a41a1d52e415a4958cde6856d34b2db93\n",
        "    ModelScope     Xorbits/Mistral-7B-Instruct-v0.2-GGUF not pinned · only Q4_K_M\n",
        "    stated needs   50.00 GB of storage, 1 GPU, 16.00 GB of GPU memory, bfloat16, not distributed\n",
        "  here      gguf Q4_K_M on llama.cpp\n",
    ):
        assert words in done.out
    assert re.search(r"\n  not +vllm: .*act-order GPTQ.*\(gptq", done.out)


def test_an_inspection_for_programs(run: Run) -> None:
    record = run("inspect", "mistral-7b-instruct-v0.2", "--json").json
    assert set(record) == {"schema", "model", "choice", "rejected", "siblings"}
    assert record["model"]["name"] == "mistral-instruct-v0.2"
    assert record["model"]["architecture"]["kv_heads"] == 8
    assert [spec["model_format"] for spec in record["model"]["specs"]][:4] == ["pytorch", "gptq", "awq", "gguf"]
    assert (record["choice"]["engine"], record["choice"]["quantization"]) == ("llama.cpp", "Q4_K_M")
    assert set(record["rejected"][0]) == {"engine", "model_format", "quantization", "reason"}


def test_an_inspection_names_the_familys_others(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.yaml").write_text(OWN.replace("name: own\n", "name: own\nfamily: smollm2\n"))
    monkeypatch.setenv("LAUNCH_REGISTRY", str(tmp_path))
    assert run("inspect", "smollm2").out.endswith("  family    others of smollm2: own\n")
    assert run("inspect", "own", "--json").json["siblings"] == ["smollm2-instruct"]


def test_the_engines(run: Run) -> None:
    done = run("engines")
    assert done == run("engines", "list")
    rows = {line.split("\t")[0]: line.split("\t") for line in done.out.splitlines()}
    assert rows["echo"][2] == "built in"
    assert rows["llama.cpp"][1:4] == ["", "not installed", "gguf"]
    records = {record["name"]: record for record in run("engines", "--json").json}
    assert set(records) == set(rows) == {"llama.cpp", "transformers", "vllm", "llama-cpp-python", "echo"}
    assert records["llama.cpp"]["setup_bytes"] > 1_000_000


def test_an_engine_that_was_never_set_up_is_removed_in_peace(run: Run) -> None:
    done = run("engines", "remove", "llama_cpp")
    assert (done.code, done.err) == (0, "llama.cpp: 0 environments removed\n")


def test_an_engine_that_needs_no_environment_has_none(run: Run) -> None:
    done = run("engines", "install", "echo")
    assert (done.code, done.err) == (1, "error: `echo` has no environment to set up\n\nhint: launch engines\n")


@pytest.mark.usefixtures("own_registry")
def test_a_pull_prints_the_path(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.huggingface_url)
        hub.add_repo("org/own", {"own.Q4_0.gguf": b"GGUF" + bytes(1000), "own.Q8_0.gguf": b"GGUF" + bytes(2000)})
        first = run("pull", "own", "-q", "Q4_0")
        assert first.code == 0, first.err
        hub.requests.clear()
        again = run("pull", "own", "-q", "Q4_0")
        assert (again.out, hub.requests) == (first.out, [])
        told = run("pull", "own", "-q", "Q4_0", "--json").events[-1]
    path = Path(first.out.rstrip("\n"))
    assert path.read_bytes() == b"GGUF" + bytes(1000)
    assert (told["event"], told["path"], told["files"]) == ("pulled", str(path), [str(path)])
    assert names(run, "--cached") == {"own"}
