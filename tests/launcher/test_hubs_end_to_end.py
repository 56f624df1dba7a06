"""The user's own command on both hubs: the real repo ids and file names, on a hub of this machine, small files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.hub import HubServer
from tests.fakes.smollm2 import install_smollm2
from tests.launcher.commands import Run, launch

USERS_OWN = ("--model-name", "mistral-instruct-v0.2", "--model-format", "gguf", "--quantization", "Q4_K_M")
QUANTIZATIONS = (
    *("Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_0", "Q4_K_S"),
    *("Q4_K_M", "Q5_0", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0"),
)
FILE = "mistral-7b-instruct-v0.2.Q4_K_M.gguf"
PINNED_COMMIT = "3a6fbf4a41a1d52e415a4958cde6856d34b2db93"
STAND_IN = b"GGUF" + bytes(range(256)) * 2000
QUESTION = "What is the capital city of France? Answer in one sentence."


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub's name, its own copy of the model, the branch that it calls its own, and what asks for it."""

    name: str
    repo_id: str
    branch: str
    options: tuple[str, ...]


HUBS = (
    Hub("huggingface", "TheBloke/Mistral-7B-Instruct-v0.2-GGUF", "main", ()),
    Hub("modelscope", "Xorbits/Mistral-7B-Instruct-v0.2-GGUF", "master", ("--hub", "modelscope")),
)
on_both_hubs = pytest.mark.parametrize("of", HUBS, ids=lambda hub: hub.name)


def publish(hub: HubServer, of: Hub, weights: bytes | Path = STAND_IN, commit: str | None = None) -> str:
    """Put twelve quantizations into the hub's repo, one of them `weights`; return the commit."""
    files: dict[str, bytes | Path] = {FILE.replace("Q4_K_M", q): b"GGUF" + bytes(5000) for q in QUANTIZATIONS}
    others: dict[str, bytes | Path] = {"README.md": b"read me", "config.json": b"{}"}
    return hub.add_repo(of.repo_id, {**files, FILE: weights, **others}, commit=commit)


def pin(hub: HubServer, of: Hub, layer: Path, *, sha256: str | None = None) -> None:
    """Write a registry layer in which the user's model is what the hub holds."""
    repo = hub.repos[of.repo_id]
    layer.write_text(f"""\
name: mistral-instruct-v0.2
abilities: [chat]
specs:
  - format: gguf
    size_in_billions: 7
    quantizations: [{", ".join(QUANTIZATIONS)}]
    sources:
      {of.name}:
        repo_id: {of.repo_id}
        revision: {repo.commit}
        file: mistral-7b-instruct-v0.2.{{quantization}}.gguf
        files:
          {FILE}:
            size_bytes: {repo.files[FILE].size_bytes}
            sha256: {sha256 or repo.files[FILE].sha256}
""")


@pytest.fixture
def layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where `pin` writes; launches read it."""
    path = tmp_path / "pinned.yaml"
    monkeypatch.setenv("LAUNCH_REGISTRY", str(path))
    return path


def weights_sent(hub: HubServer) -> dict[str, int]:
    """Return the bytes of each model file that were sent."""
    sent: dict[str, int] = {}
    for request in hub.requests:
        name = request.path.partition("?")[0].rpartition("/")[2]
        if request.sent_bytes and name.endswith(".gguf"):
            sent[name] = sent.get(name, 0) + request.sent_bytes
    return sent


@on_both_hubs
def test_of_twelve_files_one_moves_and_only_once(run: Run, hub: HubServer, layer: Path, of: Hub) -> None:
    publish(hub, of)
    pin(hub, of, layer)
    first = run("pull", *USERS_OWN)
    assert first.code == 0, first.err
    assert Path(first.out.strip()).read_bytes() == STAND_IN
    assert weights_sent(hub) == {FILE: len(STAND_IN)}
    hub.requests.clear()
    again = run("pull", *USERS_OWN, *of.options)
    assert (again.code, again.out, hub.requests) == (0, first.out, [])


@on_both_hubs
def test_a_flipped_byte_is_caught(run: Run, hub: HubServer, layer: Path, of: Hub) -> None:
    publish(hub, of)
    pin(hub, of, layer)
    hub.flip_byte(FILE)
    for line in (USERS_OWN, (*USERS_OWN, "--revision", of.branch, *of.options)):
        done = run("pull", *line, "--json")
        assert done.code == 1
        assert (done.events[-1]["kind"], done.events[-1]["facts"]["path"]) == ("digest", FILE)
        assert run("list", "--cached", "--json").json == []


@on_both_hubs
def test_the_built_in_entry_takes_another_revision(run: Run, hub: HubServer, of: Hub) -> None:
    publish(hub, of)
    done = run("pull", *USERS_OWN, *of.options, "--revision", of.branch)
    assert done.code == 0, done.err
    assert Path(done.out.strip()).read_bytes() == STAND_IN
    assert weights_sent(hub) == {FILE: len(STAND_IN)}


def test_the_built_in_entry_refuses_what_is_not_its_own(run: Run, hub: HubServer) -> None:
    """Where the hub has not even the commit; and by the size, which the hub lists, before any of its bytes."""
    of = HUBS[0]
    publish(hub, of, commit="0" * 40)
    done = run("pull", *USERS_OWN, "--json")
    assert (done.code, done.events[-1]["kind"]) == (1, "not_on_hub")
    publish(hub, of, commit=PINNED_COMMIT)
    done = run("pull", *USERS_OWN, "--json")
    assert (done.code, done.events[-1]["kind"]) == (1, "digest")
    assert "4368439584" in done.events[-1]["facts"]["expected"]
    assert weights_sent(hub) == {}


@on_both_hubs
def test_a_wrong_hash_in_the_registry_is_refused(run: Run, hub: HubServer, layer: Path, of: Hub) -> None:
    publish(hub, of)
    pin(hub, of, layer, sha256="ab" * 32)
    done = run("pull", *USERS_OWN, "--json")
    assert (done.code, done.events[-1]["kind"]) == (1, "digest")
    assert "ab" * 32 in done.events[-1]["facts"]["expected"]
    assert run("list", "--cached", "--json").json == []


@pytest.mark.engine
@pytest.mark.index
@on_both_hubs
def test_the_users_own_command_answers(hub: HubServer, layer: Path, of: Hub, engine_cache: Path) -> None:
    weights = install_smollm2(engine_cache / "smollm2")
    publish(hub, of, weights)
    pin(hub, of, layer)
    line = (*USERS_OWN, "--prompt", QUESTION, "--temperature", "0")
    first = launch(*line)
    assert first.code == 0, first.err
    assert "Paris" in first.out
    assert f"from {'Hugging Face' if of.name == 'huggingface' else 'ModelScope'} at " in first.err
    # Once, and before that the beginning of its header, for the facts in it.
    assert 0 <= weights_sent(hub)[FILE] - weights.stat().st_size <= 20_000
    hub.requests.clear()
    again = launch(*line, "--offline", *of.options)
    assert (again.code, again.out, hub.requests) == (0, first.out, [])


@pytest.mark.engine
@pytest.mark.index
@on_both_hubs
def test_the_built_in_entry_answers_from_a_branch(hub: HubServer, of: Hub, engine_cache: Path) -> None:
    publish(hub, of, install_smollm2(engine_cache / "smollm2"))
    # The entry's template is Mistral's, which the small model that stands in for it was not trained on.
    line = (*USERS_OWN, *of.options, "--raw", "--prompt", "The capital city of France is", "--temperature", "0")
    done = launch(*line, "--max-tokens", "8", "--revision", of.branch)
    assert done.code == 0, done.err
    assert "Paris" in done.out
    assert f"`{of.branch}`" in done.err or of.branch in done.err
