"""`launch lock` and `--locked`: exactly what was locked, or what differs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from launcher import LockError, plan, pull
from launcher import launch as launch_model
from launcher.lockfile import read_lock
from tests.fakes.hub import HubServer
from tests.fakes.published import FILE, NAME, REPO, WEIGHTS, write_entry
from tests.launcher.commands import Run, launch
from tests.registry.archives import MISTRAL, pack

FOLDER = {"config.json": b"{}", "model.safetensors": b"tensors" * 1000, "README.md": b"read me"}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own, as a project does."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def edit(project: Path, old: str, new: str) -> None:
    path = project / "launch.lock"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_lock_resolves_the_branch_and_fetches_no_weights(
    run: Run, published: str, hub: HubServer, project: Path
) -> None:
    done = run("lock", NAME)
    assert (done.code, done.out) == (0, "")
    (entry,) = read_lock(project / "launch.lock")
    assert (entry.hub, entry.repo_id, entry.revision) == ("huggingface", REPO, published)
    assert [(file.path, file.size_bytes, str(file.digest)) for file in entry.files] == [
        (FILE, len(WEIGHTS[FILE]), f"sha256:{hub.sha256(REPO, FILE)}")
    ]
    assert entry.engine.environment_sha256 is not None
    assert (entry.options.context_length, entry.options.concurrency) == (2048, 4)
    assert all(request.origin != "cdn" for request in hub.requests)


def test_a_second_lock_writes_the_same_bytes(run: Run, published: str, project: Path) -> None:
    run("lock", NAME)
    first = (project / "launch.lock").read_bytes()
    run("pull", NAME)
    assert run("lock").code == 0
    assert (project / "launch.lock").read_bytes() == first


def test_other_entries_stay(run: Run, published: str, project: Path) -> None:
    assert run("lock", NAME, "smollm2").code == 0
    assert run("lock", NAME, "-q", "Q8_0", "-c", "1024", "--threads", "3", "--", "--mlock").code == 0
    own, smollm2 = read_lock(project / "launch.lock")
    assert (own.model, own.quantization, own.options) == (NAME, "Q8_0", (1024, 4, 3, ("--mlock",), None))
    assert smollm2.model == "smollm2-instruct"


def test_what_is_locked_runs_after_the_branch_has_moved(run: Run, published: str, hub: HubServer) -> None:
    run("lock", NAME)
    locked = pull(NAME, locked="launch.lock")
    hub.add_repo(REPO, {FILE: b"GGUF another"})
    assert plan(NAME, locked=Path("launch.lock")).revision == published
    assert pull(NAME, locked="launch.lock") == locked
    assert locked.read_bytes() == WEIGHTS[FILE]
    assert pull(NAME).read_bytes() == b"GGUF another"


def test_a_pull_of_what_is_locked(run: Run, published: str, hub: HubServer) -> None:
    run("lock", NAME, "--hub", "modelscope")
    done = run("pull", "--locked")
    assert done.code == 0
    assert f"/snapshots/{published}/{FILE}" in done.out
    hub.requests.clear()
    assert run("pull", NAME, "--locked", "--offline").code == run("pull", "--locked", "launch.lock").code == 0
    assert hub.requests == []


def test_what_is_locked_answers(run: Run, project: Path) -> None:
    assert run("lock", "smollm2", "--engine", "echo", "--", "--reply", "Paris").code == 0
    (entry,) = read_lock(project / "launch.lock")
    assert (entry.files, entry.engine) == ((), ("echo", None, None, None))
    done = run("--locked", "-p", "What is the capital of France?")
    assert (done.code, done.out) == (0, "Paris")
    with launch_model("smollm2", locked="launch.lock") as model:
        assert model.chat("What is the capital of France?").text == "Paris"


def test_a_dry_run_shows_it_and_variables_ask_for_it(
    run: Run, published: str, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("lock", NAME, "-c", "512", "--concurrency", "2")
    hub.requests.clear()
    for value in ("1", "launch.lock"):
        monkeypatch.setenv("LAUNCH_LOCKED", value)
        shown = run(NAME, "--dry-run", "--json").json
        assert (shown["revision"], shown["context_length"], shown["concurrency"]) == (published, 512, 2)
        assert shown["files"][0]["sha256"] == hub.sha256(REPO, FILE)
    assert hub.requests == []


def test_other_bytes_than_the_locked_ones_are_refused(run: Run, published: str, hub: HubServer, project: Path) -> None:
    run("lock", NAME)
    edit(project, hub.sha256(REPO, FILE), "f" * 64)
    done = run("pull", "--locked")
    assert done.code == 1
    assert f"error: Hugging Face lists another `{FILE}` than" in done.err


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("quantization: Q4_0", "quantization: Q3_0", "`own` has no quantization `Q3_0`"),
        (f"repo_id: {REPO}", "repo_id: org/old", f"`repo_id` is `{REPO}` here, `org/old` in the lock file"),
        ("environment_sha256: ", "environment_sha256: 0", "`engine.environment_sha256` is `"),
        ("    version: ", "    version: 9.", "`engine.version` is `"),
        (f"path: {FILE}", "path: x.gguf", "`x.gguf` is locked, and is not among the files"),
        ("model: own", "model: gone", "No model is called `gone`"),
    ],
)
def test_what_differs_is_named(run: Run, published: str, project: Path, old: str, new: str, difference: str) -> None:
    run("lock", NAME)
    edit(project, old, new)
    done = run("--locked", "--dry-run")
    assert done.code == 1
    assert " cannot be had as `launch.lock` has it\n" in done.err
    assert difference in done.err


def test_other_words_than_the_locked_ones_are_refused(run: Run, published: str) -> None:
    run("lock", NAME)
    done = run(NAME, "--locked", "-q", "Q8_0", "-c", "1024", "-f", "ggufv2", "-s", "0_5", "--hub", "hf")
    assert done.code == 1
    assert done.err.startswith("error: `own` cannot be had as `launch.lock` has it\n")
    assert done.err.splitlines()[1:-2] == [
        "  `quantization` is `Q8_0` here, `Q4_0` in the lock file",
        "  `options.context_length` is `1024` here, `2048` in the lock file",
    ]


def test_all_are_locked_anew_with_what_is_asked_now(run: Run, published: str, project: Path) -> None:
    run("lock", NAME, "smollm2", "-c", "512")
    assert run("lock", "--concurrency", "2").code == 0
    assert {entry.options[:2] for entry in read_lock(project / "launch.lock")} == {(512, 2)}


def test_a_model_that_is_not_in_it(run: Run, published: str) -> None:
    run("lock", NAME)
    with pytest.raises(LockError, match="has no `smollm2`") as caught:
        plan("smollm2", locked="launch.lock")
    assert caught.value.details == ("it has `own`",)
    assert run("lock", "smollm2").code == 0
    assert plan("SmolLM2", locked="launch.lock").name == "smollm2-instruct"
    done = run("--locked", "--dry-run")
    assert (done.code, done.err.splitlines()[0]) == (2, "error: `launch.lock` has 2 models: name one")


def test_offline_a_lock_uses_what_is_known_and_names_what_is_not(
    run: Run, published: str, hub: HubServer, project: Path
) -> None:
    assert run("lock", "smollm2", "--offline").code == 0
    done = run("lock", NAME, "--offline")
    assert done.code == 1
    assert "only Hugging Face can tell what `org/own-GGUF` holds" in done.err
    assert "unknown: commit and files" in done.err
    run("pull", NAME)
    hub.requests.clear()
    assert run("lock", NAME, "--offline").code == 0
    assert hub.requests == []
    assert len(read_lock(project / "launch.lock")) == 2


def test_without_a_name_and_without_a_file(run: Run) -> None:
    assert run("lock").code == 2
    assert run("--locked").code == 1
    assert "There is no `launch.lock`" in run("--locked").err


def test_a_path_of_this_machine_is_not_locked(run: Run, project: Path) -> None:
    (project / "Own-7B.Q4_K_M.gguf").write_bytes(b"GGUF\x03\0\0\0" + bytes(16))
    done = run("lock", "./Own-7B.Q4_K_M.gguf", "--engine", "echo")
    assert (done.code, (project / "launch.lock").exists()) == (1, False)
    assert "Own-7B.Q4_K_M.gguf` is a path of this machine\n" in done.err


def test_files_that_git_alone_vouches_for(
    run: Run, hub: HubServer, tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.yaml").write_text(
        "name: folder\nspecs:\n  - format: pytorch\n    size_in_billions: 1\n    quantizations: [none]\n"
        "    sources: {huggingface: {repo_id: org/folder}}\n"
    )
    monkeypatch.setenv("LAUNCH_REGISTRY", str(tmp_path / "folder.yaml"))
    hub.add_repo("org/folder", FOLDER)
    assert run("lock", "folder", "--engine", "transformers", "--dtype", "float32").code == 0
    (entry,) = read_lock(project / "launch.lock")
    assert [(file.path, file.digest and file.digest.kind) for file in entry.files] == [
        ("model.safetensors", "sha256"),
        ("config.json", "git-sha1"),
    ]
    planned = plan("folder", locked="launch.lock")
    assert (entry.options.dtype, planned.settings.dtype) == ("float32", "float32")
    assert [(file.path, file.size_bytes) for file in planned.files] == [
        (file.path, file.size_bytes) for file in entry.files
    ]
    assert planned.download_bytes == entry.files[0].size_bytes  # what decides was looked at, and stayed
    assert run("pull", "--locked").code == 0
    edit(project, entry.files[1].digest.value if entry.files[1].digest else "", "f" * 40)
    done = run("pull", "--locked")
    assert (done.code, done.err.splitlines()[-2]) == (1, "error: The files are not those of the lock file")
    assert done.err.splitlines()[-1].startswith("  `config.json` is git-sha1:")


ADDRESSES = """\
name: archived
specs:
  - format: mistral
    size_in_billions: 0.5
    quantizations: [none]
    sources:
      url: {{address: "{archive}", md5: {md5}}}
---
name: loose
specs:
  - format: gguf
    size_in_billions: 0.5
    quantizations: [Q4_0]
    sources:
      url: {{address: "{folder}", file: "{file}", files: {{"{file}": {{sha256: {sha256}}}}}}}
"""


@pytest.fixture
def addresses(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an archive and a loose file at plain addresses, and two models of them in the catalogue."""
    content = pack(MISTRAL)
    commit = hub.add_repo("files/here", {"own.tar": content, FILE: WEIGHTS[FILE]})
    folder = f"{hub.cdn_url}/files/here/{commit}/"
    md5, sha256 = hashlib.md5(content).hexdigest(), hub.sha256("files/here", FILE)
    text = ADDRESSES.format(archive=f"{folder}own.tar", folder=folder, file=FILE, md5=md5, sha256=sha256)
    (tmp_path / "addresses.yaml").write_text(text)
    monkeypatch.setenv("LAUNCH_REGISTRY", str(tmp_path / "addresses.yaml"))


@pytest.mark.usefixtures("addresses")
def test_an_archives_checksum_covers_its_files(run: Run, project: Path) -> None:
    assert run("lock", "archived", "--engine", "vllm").code == 0
    (entry,) = read_lock(project / "launch.lock")
    assert {(file.path, file.size_bytes) for file in entry.files} == {(p, len(MISTRAL[p])) for p in MISTRAL}
    assert (entry.revision or "").startswith("md5:")
    assert run("pull", "--locked").code == run("pull", "--locked", "--offline").code == 0


@pytest.mark.usefixtures("addresses")
def test_files_at_an_address_have_checksums_and_no_revision(run: Run, hub: HubServer, project: Path) -> None:
    assert run("lock", "loose").code == 0
    (entry,) = read_lock(project / "launch.lock")
    assert (entry.revision, entry.files[0].size_bytes) == (None, len(WEIGHTS[FILE]))
    assert str(entry.files[0].digest) == f"sha256:{hub.sha256('files/here', FILE)}"
    done = run("pull", "--locked")
    assert done.code == 0
    assert Path(done.out.strip()).read_bytes() == WEIGHTS[FILE]


def test_a_pinned_entry_needs_no_network_where_everything_is_known(
    run: Run, published: str, hub: HubServer, tmp_path: Path, project: Path
) -> None:
    write_entry(tmp_path, revision=published)
    run("pull", NAME)
    hub.requests.clear()
    assert run("lock", NAME).code == 0
    assert hub.requests == []
    assert read_lock(project / "launch.lock")[0].revision == published


def test_for_programs_and_as_a_program(published: str, project: Path) -> None:
    done = launch("lock", NAME, "--json", "-o", "other.lock", folder=project)
    assert done.code == 0
    assert done.events[-1]["event"] == "locked"
    assert done.events[-1]["revision"] == published
    shown = launch(NAME, "--locked", "other.lock", "--dry-run", "--json", folder=project)
    assert shown.json["revision"] == published
