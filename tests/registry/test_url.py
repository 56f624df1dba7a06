"""Files at plain addresses: archives that are looked into, fetched, verified and unpacked, and folders of files."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from registry.errors import (
    DigestError,
    DiskFullError,
    GatedRepoError,
    NotOnHubError,
    OfflineError,
    UnsafeFileError,
)
from registry.progress import Progress
from registry.spec import Source, Spec
from registry.store import find, pull
from tests.fakes.hub import Fault, HubServer
from tests.registry.archives import MISTRAL, entry, pack, pack_entries

TAR = "Small-7B-v0.1.tar"
ARCHIVE = pack(MISTRAL)


def publish(hub: HubServer, content: bytes = ARCHIVE) -> str:
    """Return the address of an archive."""
    commit = hub.add_repo("files/here", {TAR: content})
    return f"{hub.cdn_url}/files/here/{commit}/{TAR}"


def archive(address: str, content: bytes = ARCHIVE, *mirrors: str, kind: str = "md5") -> tuple[Spec, Source, str]:
    return source(address, mirrors=mirrors, **{kind: hashlib.new(kind, content).hexdigest()})


def source(
    address: str, model_format: str = "mistral", quantization: str = "none", **facts: Any
) -> tuple[Spec, Source, str]:
    found = Source.from_json("url", {"address": address, **facts})
    return Spec(model_format, 7, (quantization,), (found,)), found, quantization


def _folder(tmp_path: Path) -> Path:
    return tmp_path / "home/launch/url"


def _left(tmp_path: Path) -> dict[str, bytes]:
    """Return every file that was left beside what was unpacked, or as it."""
    return {path.name: path.read_bytes() for path in _folder(tmp_path).rglob("*") if path.is_file()}


# --- archives --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_an_archive_is_fetched_verified_unpacked_and_removed(hub: HubServer, tmp_path: Path, kind: str) -> None:
    wanted = archive(publish(hub), kind=kind)
    before = find(*wanted)
    assert (before.is_known, before.is_complete, before.download_bytes) == (False, False, None)
    pulled = pull(*wanted)
    assert pulled.is_complete
    assert [file.path for file in pulled.files] == ["consolidated.safetensors", "params.json", "tokenizer.model.v3"]
    assert {path.name: path.read_bytes() for path in pulled.path.iterdir()} == MISTRAL
    assert _left(tmp_path) == MISTRAL
    assert find(*wanted).is_complete


def test_what_is_unpacked_and_verified_costs_nothing(hub: HubServer) -> None:
    wanted = archive(publish(hub))
    pulled = pull(*wanted)
    asked = len(hub.requests)
    assert pull(*wanted).path == find(*wanted).path == pulled.path
    assert pull(*wanted, offline=True).is_complete
    assert len(hub.requests) == asked
    assert {file.sha256 for file in find(*wanted).files} == {
        hashlib.sha256(data).hexdigest() for data in MISTRAL.values()
    }


def test_sizes_are_known_before_the_weights_are_fetched(hub: HubServer) -> None:
    told: list[Progress] = []
    pull(*archive(publish(hub)), progress=told.append)
    downloads = [each for each in told if each.stage == "download"]
    size_bytes = sum(map(len, MISTRAL.values()))
    assert {each.total for each in downloads} == {size_bytes}
    assert downloads[-1].done == size_bytes
    assert [each.text for each in downloads if each.file_done is None] == [
        f"`consolidated.safetensors`: unpacking `{TAR}`"
    ]


def test_pickled_weights_are_refused_before_they_are_fetched(hub: HubServer, tmp_path: Path) -> None:
    content = pack({"consolidated.00.pth": bytes(1_000_000), "params.json": b"{}", "tokenizer.model": b"words"})
    with pytest.raises(UnsafeFileError, match="pickled weights only, which can run code") as caught:
        pull(*archive(publish(hub, content), content))
    assert caught.value.details == ("consolidated.00.pth",)
    assert hub.sent_bytes < 100_000
    assert _left(tmp_path) == {}


def test_pickles_and_programs_beside_the_weights_stay_packed(hub: HubServer, tmp_path: Path) -> None:
    content = pack({**MISTRAL, "consolidated.00.pth": b"x", "model.PY": b"x", "run.py": b"x", "README.md": b"x"})
    pull(*archive(publish(hub, content), content))
    assert set(_left(tmp_path)) == {*MISTRAL, "README.md"}


def test_a_hostile_archive_is_refused_before_it_is_fetched(hub: HubServer, tmp_path: Path) -> None:
    content = pack_entries([(entry("big", 1_000_000), bytes(1_000_000)), (entry("../evil", 1), b"x")])
    with pytest.raises(UnsafeFileError, match="outside its folder"):
        pull(*archive(publish(hub, content), content))
    assert hub.sent_bytes < 300_000
    assert not list((tmp_path / "home").rglob("*evil*"))


def test_there_must_be_room_for_the_archive_and_for_what_is_in_it(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = archive(publish(hub))
    usage = shutil.disk_usage(tmp_path)._replace(free=sum(map(len, MISTRAL.values())) * 3 // 2)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(DiskFullError) as caught:
        pull(*wanted)
    assert caught.value.needed_bytes == 2 * sum(map(len, MISTRAL.values()))
    assert _left(tmp_path) == {}


def test_wrong_bytes_are_not_unpacked(hub: HubServer, tmp_path: Path) -> None:
    wanted = archive(publish(hub))
    hub.flip_byte(TAR)
    with pytest.raises(DigestError, match="is not the file that was vouched for") as caught:
        pull(*wanted)
    assert caught.value.expected.startswith("md5:")
    assert _left(tmp_path) == {}


def test_the_first_verified_bytes_are_the_only_ones_from_then_on(hub: HubServer, tmp_path: Path) -> None:
    wanted = archive(publish(hub))
    pulled = pull(*wanted)
    # Another archive with the same MD5 cannot be made here: what is remembered is changed instead.
    (record,) = (tmp_path / "home/launch/listings/url").iterdir()
    record.write_text(record.read_text().replace(hashlib.sha256(ARCHIVE).hexdigest(), "ab" * 32))
    (pulled.path / "params.json").unlink()
    with pytest.raises(DigestError) as caught:
        pull(*wanted)
    assert caught.value.expected == f"sha256:{'ab' * 32}"


def test_a_file_that_was_lost_is_brought_back(hub: HubServer) -> None:
    wanted = archive(publish(hub))
    pulled = pull(*wanted)
    (pulled.path / "params.json").unlink()
    assert not find(*wanted).is_complete
    assert pull(*wanted).is_complete
    assert {path.name: path.read_bytes() for path in pulled.path.iterdir()} == MISTRAL


def test_a_file_that_was_changed_is_brought_back(hub: HubServer) -> None:
    wanted = archive(publish(hub))
    path = pull(*wanted).path / "params.json"
    path.write_bytes(b'{"dim": 9}')
    os.utime(path, (1, 1))
    assert not find(*wanted).is_complete
    assert pull(*wanted).is_complete
    assert path.read_bytes() == MISTRAL["params.json"]


def test_without_a_memory_of_what_was_unpacked_nothing_of_it_counts(hub: HubServer, tmp_path: Path) -> None:
    wanted = archive(publish(hub))
    path = pull(*wanted).path / "params.json"
    path.write_bytes(path.read_bytes().replace(b"8", b"9"))
    shutil.rmtree(tmp_path / "home/launch/listings")
    assert not find(*wanted).is_known
    assert pull(*wanted).is_complete
    assert path.read_bytes() == MISTRAL["params.json"]


def test_an_archive_that_was_fetched_and_not_unpacked_is_not_fetched_again(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = archive(publish(hub))
    monkeypatch.setenv("LAUNCH_KEEP_ARCHIVES", "1")
    folder = pull(*wanted).path
    kept = _folder(tmp_path) / f"{folder.name}.tar"
    assert kept.read_bytes() == ARCHIVE
    (folder / "params.json").unlink()
    (_folder(tmp_path) / f".{folder.name}").mkdir()  # as a killed process leaves it
    sent = hub.sent_bytes
    assert pull(*wanted).is_complete
    assert hub.sent_bytes == sent
    monkeypatch.delenv("LAUNCH_KEEP_ARCHIVES")


def test_a_download_that_broke_off_goes_on(hub: HubServer) -> None:
    content = pack({**MISTRAL, "consolidated.safetensors": os.urandom(3_000_000)})
    wanted = archive(publish(hub, content), content)
    hub.breaks(TAR, Fault("cut", times=2, after_bytes=200_000))
    assert pull(*wanted).is_complete
    assert hub.sent_bytes < 1.05 * len(content) + 300_000


@pytest.mark.parametrize("kind", ["cut", "reset", "status"])
def test_headers_are_asked_for_again_where_the_server_breaks_off(
    hub: HubServer, kind: Literal["cut", "reset", "status"]
) -> None:
    hub.breaks(TAR, Fault(kind, times=1, after_bytes=100))
    assert pull(*archive(publish(hub))).is_complete


def test_a_server_without_ranges(hub: HubServer, tmp_path: Path) -> None:
    wanted = archive(publish(hub))
    hub.breaks(TAR, Fault("norange", times=None))
    assert pull(*wanted).is_complete
    assert _left(tmp_path) == MISTRAL


def test_a_mirror_is_asked_where_the_first_host_fails(hub: HubServer) -> None:
    mirror = publish(hub)
    with HubServer() as gone:
        address = f"{gone.cdn_url}/x/{TAR}"
    assert pull(*archive(address, ARCHIVE, mirror)).is_complete
    moved = f"{hub.huggingface_url}/none/{TAR}"
    assert pull(*archive(moved, ARCHIVE, address, mirror)).is_complete


def test_a_host_with_another_archive_does_not_decide_what_is_in_it(hub: HubServer) -> None:
    mirror = publish(hub)
    content = pack({**MISTRAL, "tekken.json": b"words"})
    other = f"{hub.cdn_url}/files/other/{hub.add_repo('files/other', {TAR: content})}/{TAR}"
    wanted = archive(other, ARCHIVE, mirror)
    with pytest.raises(NotOnHubError, match=r"lacks `tekken\.json`, which its server said is in it"):
        pull(*wanted)
    pulled = pull(*wanted)
    assert {path.name: path.read_bytes() for path in pulled.path.iterdir()} == MISTRAL


def test_where_all_hosts_fail_each_says_why(hub: HubServer) -> None:
    publish(hub)
    with HubServer() as gone:
        address = f"{gone.cdn_url}/x/{TAR}"
    with pytest.raises(OfflineError, match="`localhost` is out of reach") as caught:
        pull(*archive(address, ARCHIVE, f"{hub.huggingface_url}/none/{TAR}"))
    assert caught.value.details[-1] == f"`127.0.0.1` has no `{hub.huggingface_url}/none/{TAR}`"


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [(404, NotOnHubError, "has no `http"), (403, GatedRepoError, "not give `http.*` to everybody: HTTP 403")],
)
def test_what_a_status_says(hub: HubServer, status: int, error: type[Exception], words: str) -> None:
    wanted = archive(publish(hub))
    hub.breaks(TAR, Fault("status", times=None, status=status))
    with pytest.raises(error, match=words):
        pull(*wanted)


def test_offline_says_what_is_missing(hub: HubServer) -> None:
    wanted = archive(publish(hub))
    with pytest.raises(OfflineError, match=r"only its address can tell which files `http.*tar` has"):
        pull(*wanted, offline=True)


def test_an_address_has_no_revisions(hub: HubServer) -> None:
    wanted = archive(publish(hub))
    with pytest.raises(NotOnHubError, match="which has no revision `main`") as caught:
        pull(*wanted, revision="main")
    assert "--revision" in str(caught.value.hint)


def test_an_archive_without_what_the_format_needs(hub: HubServer) -> None:
    content = pack({"consolidated.safetensors": b"x"})
    with pytest.raises(NotOnHubError, match=r"no `params\.json`"):
        pull(*archive(publish(hub, content), content))


# --- folders of files ------------------------------------------------------------------------------------------------

GGUF = {f"small.Q4_0-0000{part}-of-00002.gguf": b"GGUF" + bytes([part]) * 5000 for part in (1, 2)}


def folder(
    hub: HubServer, files: Mapping[str, bytes] = GGUF, *mirrors: str, kind: str = "md5"
) -> tuple[Spec, Source, str]:
    commit = hub.add_repo("files/here", files)
    pins = {path: {kind: hashlib.new(kind, content).hexdigest()} for path, content in files.items()}
    return source(
        f"{hub.cdn_url}/files/here/{commit}/",
        "gguf",
        "Q4_0",
        part_file="small.{quantization}-{part}.gguf",
        parts={"Q4_0": ["00001-of-00002", "00002-of-00002"]},
        files=pins,
        mirrors=list(mirrors),
    )


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_parts_are_fetched_and_stay_parts(hub: HubServer, kind: str) -> None:
    wanted = folder(hub, kind=kind)
    assert find(*wanted).is_known
    pulled = pull(*wanted)
    assert pulled.path.name == "small.Q4_0-00001-of-00002.gguf"
    assert {path.name: path.read_bytes() for path in pulled.path.parent.iterdir()} == GGUF
    asked = len(hub.requests)
    assert find(*wanted) == pull(*wanted)
    assert len(hub.requests) == asked


def test_wrong_bytes_of_a_part_are_not_kept(hub: HubServer) -> None:
    wanted = folder(hub)
    hub.flip_byte("small.Q4_0-00002-of-00002.gguf")
    with pytest.raises(DigestError, match="00002-of-00002"):
        pull(*wanted)
    assert not find(*wanted).is_complete


def test_an_md5_alone_is_pinned_by_sha256_after_the_first_time(hub: HubServer, tmp_path: Path) -> None:
    wanted = folder(hub)
    path = pull(*wanted).path
    for record in (tmp_path / "home/launch/listings/url").iterdir():
        record.write_text(record.read_text().replace(hashlib.sha256(GGUF[path.name]).hexdigest(), "ab" * 32))
    path.unlink()
    with pytest.raises(DigestError) as caught:
        pull(*wanted)
    assert caught.value.expected == f"sha256:{'ab' * 32}"
