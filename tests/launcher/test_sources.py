"""Models at plain addresses, models that were never published, and licences that are not open, as users meet them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from launcher import NotOnHubError, Progress, UnsafeFileError, pull
from tests.fakes.hub import HubServer
from tests.fakes.published import FILE, NAME, WEIGHTS
from tests.launcher.commands import Run
from tests.registry.archives import MISTRAL, pack

PICKLED = {"consolidated.00.pth": b"a pickle" * 1000, "params.json": b"{}", "tokenizer.model": b"words"}
ENTRY = """\
name: small
license: LicenseRef-MNPL-0.1
abilities: [chat]
context_length: 2048
specs:
  - format: mistral
    size_in_billions: 0.5
    quantizations: [none]
    sources:
      url: {{address: "{address}", md5: {md5}}}
  - format: mistral
    size_in_billions: 8
    quantizations: [none]
  - format: pytorch
    size_in_billions: 0.5
    quantizations: [none]
    sources:
      huggingface: {{repo_id: org/small}}
"""


def publish_archive(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> str:
    """Put an archive at an address and its model in the catalogue; return the address."""
    address = f"{hub.cdn_url}/files/here/{hub.add_repo('files/here', {'small.tar': content})}/small.tar"
    path = tmp_path / "small.yaml"
    path.write_text(ENTRY.format(address=address, md5=hashlib.md5(content).hexdigest()), encoding="utf-8")
    monkeypatch.setenv("LAUNCH_REGISTRY", str(path))
    return address


@pytest.fixture
def archive(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return publish_archive(hub, tmp_path, monkeypatch, pack(MISTRAL))


ASKED = ("pull", "small", "--model-format", "mistral", "--size-in-billions", "0.5")
RESTRICTED = "`LicenseRef-MNPL-0.1` is not an open licence: no production use: research and testing only"


def test_an_archive_is_pulled(run: Run, archive: str, hub: HubServer) -> None:
    done = run(*ASKED)
    assert done.code == 0, done.err
    folder = Path(done.out.strip())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == MISTRAL
    assert f"  fetch     {archive} at md5 " in done.err
    asked = len(hub.requests)
    again = run(*ASKED)
    assert (again.out, len(hub.requests)) == (done.out, asked)


@pytest.mark.usefixtures("archive")
def test_a_licence_that_is_not_open_is_named_once_before_the_download(run: Run) -> None:
    first, second = run(*ASKED).err, run(*ASKED).err
    assert first.count(RESTRICTED) == 1
    assert first.index(RESTRICTED) < first.index("download:")
    assert RESTRICTED not in second
    for words in (("small", "-f", "mistral", "-s", "0.5", "--dry-run"), ("inspect", "small")):
        assert f"  licence   {RESTRICTED}\n" in run(*words).out


@pytest.mark.usefixtures("archive")
def test_programs_hear_of_the_licence_too(run: Run) -> None:
    events = run(*ASKED, "--json").events
    names = [event["event"] for event in events]
    assert {"schema": 1, "event": "licence", "message": RESTRICTED} in events
    assert names.index("plan") < names.index("licence") < names.index("download")


@pytest.mark.usefixtures("archive")
def test_callers_hear_of_the_licence_too() -> None:
    told: list[Progress] = []
    pull("small", model_format="mistral", size_in_billions=0.5, progress=told.append)
    assert [each.text for each in told if each.stage == "licence"] == [RESTRICTED]
    assert told[0].stage == "licence"


@pytest.mark.usefixtures("published")
def test_without_a_licence_nothing_is_said_of_it(run: Run) -> None:
    assert "licence" not in run("pull", NAME).err


def test_pickled_weights_are_refused_with_the_place_that_has_others(
    run: Run, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = publish_archive(hub, tmp_path, monkeypatch, pack(PICKLED))
    done = run(*ASKED)
    assert done.code == 1
    assert f"error: `{address}` has pickled weights only, which can run code when they are loaded\n" in done.err
    assert "  consolidated.00.pth\n  `pytorch` is on huggingface: `org/small`\n" in done.err
    assert "hint: choose a source with safetensors or GGUF files" in done.err
    with pytest.raises(UnsafeFileError):
        pull("small", model_format="mistral", size_in_billions=0.5)


@pytest.mark.usefixtures("archive")
def test_what_was_never_published_is_listed_and_not_launched(run: Run) -> None:
    assert (
        "  mistral, 8 billion parameters\n    quantizations  none\n    never published\n" in run("inspect", "small").out
    )
    for words in (("pull", "small"), ("small",)):
        done = run(*words, "-f", "mistral", "-s", "8")
        assert done.code == 1
        assert "error: `small` was never published as `mistral none`\n" in done.err
        assert "  `mistral` of size 0.5 is on url: `http" in done.err
        assert "  `pytorch` of size 0.5 is on huggingface: `org/small`" in done.err


def test_an_inspection_names_addresses(run: Run, archive: str) -> None:
    assert f"the web        {archive} at md5:" in run("inspect", "small").out
    spec, *_ = run("inspect", "small", "--json").json["model"]["specs"]
    assert spec["sources"][0]["repo_id"] == archive


def test_the_built_in_archive_is_inspected_and_not_the_default(run: Run) -> None:
    name = "mistral-instruct-v0.2"
    shown = run("inspect", name).out
    assert "the web        https://models.mistralcdn.com/mistral-7b-v0-2/Mistral-7B-v0.2-Instruct.tar at md5:f" in shown
    assert "also at        https://files.mistral-7b-v0-2.mistral.ai/Mistral-7B-v0.2-Instruct.tar\n" in shown
    assert "  licence   Apache-2.0\n" in shown
    assert run(name, "--dry-run").out.startswith(f"{name} as gguf Q4_K_M on llama.cpp\n")
    planned = run(name, "--model-format", "mistral", "--dry-run").out
    assert planned.startswith(f"{name} as mistral none on vllm\n")
    assert "  revision  md5:fbae55bc038f12f010b4251326e73d39\n" in planned


@pytest.mark.usefixtures("published")
def test_a_file_that_the_hub_has_not_names_the_near_ones(hub: HubServer) -> None:
    hub.add_repo("org/own-GGUF", {FILE.replace("Q4_0", "Q4_1"): WEIGHTS[FILE]})
    with pytest.raises(NotOnHubError, match="has no file") as caught:
        pull(NAME, quantization="Q4_0", hub="huggingface")
    assert "it has `own.Q4_1.gguf`" in caught.value.details
