"""The fetcher against a real server: ranges, resuming, verification, what goes wrong on the way."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from registry.digest import Digest
from registry.errors import DigestError, DiskFullError, DownloadError, OfflineError
from registry.fetcher import fetch
from registry.partial import Partial, merge
from registry.remote_bytes import Download, Limits, RefusedError
from registry.trouble import check_room
from tests.fakes.hub import Fault, HubServer, LoggedRequest

NAME = "x.gguf"
CONTENT = hashlib.shake_256(b"weights").digest(3_000_000)
LIMITS = Limits(connections=3, segment_bytes=400_000, timeout_s=1.0, attempts=3, first_pause_s=0.01)
ONE_BY_ONE = Limits(connections=1, segment_bytes=1 << 30, timeout_s=1.0, attempts=3, first_pause_s=0.01)


def ignore(done_bytes: int, note: str = "") -> None:
    """Tell nobody."""


class Served(NamedTuple):
    hub: HubServer
    download: Download

    @property
    def cdn(self) -> list[LoggedRequest]:
        return [request for request in self.hub.requests if request.origin == "cdn"]

    def fetch(self, limits: Limits = LIMITS) -> list[int]:
        told: list[int] = []
        fetch(self.download, lambda done, note="": told.append(done), limits)
        return told

    def is_right(self) -> bool:
        return self.download.target.read_bytes() == CONTENT and os.listdir(self.download.target.parent) == [NAME]


@pytest.fixture
def served(hub: HubServer, tmp_path: Path) -> Served:
    hub.add_repo("org/name", {NAME: CONTENT}, token="secret")
    url = f"{hub.huggingface_url}/org/name/resolve/main/{NAME}"
    digest = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())
    folder = tmp_path / "target"
    return Served(hub, Download(NAME, url, folder / NAME, len(CONTENT), digest, {"Authorization": "Bearer secret"}))


def test_brings_ranges_over_several_connections(served: Served) -> None:
    told = served.fetch()
    assert served.is_right()
    assert [request.status for request in served.cdn] == [206] * 8
    assert told == sorted(told)
    assert told[-1] == len(CONTENT)


def test_small_files_are_one_plain_request(served: Served) -> None:
    served.fetch(Limits())
    assert served.is_right()
    assert [request.status for request in served.cdn] == [200]
    assert "Range" not in served.cdn[0].headers


def test_an_empty_file(served: Served, tmp_path: Path) -> None:
    served.hub.add_repo("org/name", {NAME: b""})
    download = Download(NAME, served.download.url, tmp_path / "empty", 0, None)
    fetch(download, ignore, LIMITS)
    assert download.target.read_bytes() == b""


def test_the_token_stays_at_its_origin(served: Served) -> None:
    served.fetch()
    at_hub = [request for request in served.hub.requests if request.origin == "hub"]
    assert all(request.headers.get("Authorization") == "Bearer secret" for request in at_hub)
    assert not any("Authorization" in request.headers for request in served.cdn)


def test_git_files_are_verified_by_gits_own_hash(served: Served) -> None:
    sha1 = served.hub.repos["org/name"].files[NAME].git_sha1
    download = Download(NAME, served.download.url, served.download.target, len(CONTENT), Digest("git-sha1", sha1))
    fetch(download, ignore, LIMITS)
    assert served.is_right()


def test_a_flipped_byte_leaves_nothing(served: Served) -> None:
    served.hub.flip_byte(NAME)
    with pytest.raises(DigestError) as caught:
        served.fetch()
    assert caught.value.path == NAME
    assert caught.value.expected == str(served.download.digest)
    assert os.listdir(served.download.target.parent) == []


def test_a_cut_body_goes_on_where_it_ended(served: Served) -> None:
    served.hub.breaks(NAME, Fault("cut", times=2, after_bytes=300_000))
    served.fetch(ONE_BY_ONE)
    assert served.is_right()
    assert [request.headers.get("Range") for request in served.cdn] == [
        None,
        f"bytes=300000-{len(CONTENT) - 1}",
        f"bytes=600000-{len(CONTENT) - 1}",
    ]


def test_a_stalled_body_is_timed_out_and_goes_on(served: Served) -> None:
    served.hub.breaks(NAME, Fault("stall", after_bytes=100_000))
    served.fetch(Limits(connections=1, timeout_s=0.2, first_pause_s=0.01))
    assert served.is_right()
    assert sum(request.sent_bytes for request in served.cdn) == len(CONTENT)


def test_a_busy_server_is_asked_again(served: Served) -> None:
    served.hub.breaks(NAME, Fault("status", status=503, times=2))
    served.fetch(ONE_BY_ONE)
    assert served.is_right()


def test_a_file_that_nothing_identifies_is_not_put_together(served: Served) -> None:
    served.hub.has_etags = False
    download = served.download._replace(digest=None)
    fetch(download, ignore, LIMITS)
    assert served.is_right()
    assert served.cdn[-1].status == 200
    download.target.unlink()
    served.hub.breaks(NAME, Fault("cut", times=3, after_bytes=1000))  # the rest is asked for with the second
    with pytest.raises(DownloadError, match="kept breaking off") as caught:
        fetch(download, ignore, ONE_BY_ONE)
    assert "does not say which version" in caught.value.details[0]
    fetch(download, ignore, ONE_BY_ONE)
    assert served.is_right()


def test_a_date_after_which_to_try_again_may_have_passed(served: Served) -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    served.hub.breaks(NAME, Fault("status", status=503, times=2, retry_after=date))
    served.fetch(ONE_BY_ONE)
    assert served.is_right()


def test_a_server_without_ranges_starts_over(served: Served) -> None:
    served.hub.breaks(NAME, Fault("norange", times=None))
    served.fetch()
    assert served.is_right()


def test_a_server_without_ranges_that_breaks_off_is_given_up(served: Served) -> None:
    served.hub.breaks(NAME, Fault("norange", times=None, after_bytes=10_000))
    with pytest.raises(DownloadError, match="kept breaking off"):
        served.fetch()
    assert not served.download.target.exists()


def test_a_server_without_ranges_never_appends_to_a_partial(served: Served) -> None:
    served.hub.breaks(NAME, Fault("cut", times=None, after_bytes=1000))
    with pytest.raises(DownloadError):
        served.fetch(Limits(connections=1, attempts=1))
    served.hub.breaks(NAME, Fault("norange", times=None))
    served.fetch()
    assert served.is_right()


def test_a_download_that_keeps_breaking_off_keeps_what_came(served: Served) -> None:
    served.hub.breaks(NAME, Fault("cut", times=None))
    with pytest.raises(DownloadError, match="kept breaking off") as caught:
        served.fetch()
    assert not caught.value.permanent
    served.hub.breaks(NAME, Fault("cut", times=None, after_bytes=200_000))
    with pytest.raises(DownloadError):
        served.fetch(Limits(connections=1, attempts=1))
    del served.hub.faults[NAME]
    before = len(served.cdn)
    served.fetch()
    assert served.is_right()
    assert sum(request.sent_bytes for request in served.cdn[before:]) == len(CONTENT) - 200_000


def test_a_signed_address_that_grew_old_is_asked_for_again(served: Served) -> None:
    served.hub.breaks(NAME, Fault("status", status=403))
    served.fetch(ONE_BY_ONE)
    assert served.is_right()
    assert [request.origin for request in served.hub.requests] == ["hub", "cdn", "hub", "cdn"]


@pytest.mark.parametrize("status", [404, 410])
def test_a_final_status_is_not_tried_again(served: Served, status: int) -> None:
    served.hub.breaks(NAME, Fault("status", status=status, times=None))
    with pytest.raises(RefusedError) as caught:
        served.fetch(ONE_BY_ONE)
    assert caught.value.status == status
    assert len(served.cdn) == 1


def test_another_size_than_listed_is_an_error(served: Served, tmp_path: Path) -> None:
    for limits in (LIMITS, ONE_BY_ONE):
        download = Download(NAME, served.download.url, tmp_path / NAME, len(CONTENT) - 1, None)
        with pytest.raises(DigestError, match="another"):
            fetch(download, ignore, limits)
        assert not download.target.exists()


def test_a_server_out_of_reach(tmp_path: Path) -> None:
    with HubServer() as gone:
        url = f"{gone.huggingface_url}/org/name/resolve/main/{NAME}"
    with pytest.raises(OfflineError, match=r"`127\.0\.0\.1` is out of reach"):
        fetch(Download(NAME, url, tmp_path / NAME, 10, None), ignore, LIMITS)


@pytest.mark.parametrize("journal", ["", "{", '{"size_bytes": 7, "digest": "other"}\n0 3000000\n', "nonsense\n0 9\n"])
def test_a_partial_of_something_else_is_thrown_away(served: Served, journal: str) -> None:
    folder = served.download.target.parent
    folder.mkdir()
    (folder / f"{NAME}.partial").write_bytes(b"?" * len(CONTENT))
    (folder / f"{NAME}.journal").write_text(journal)
    served.fetch()
    assert served.is_right()


def test_a_partial_longer_than_the_file_is_thrown_away(served: Served) -> None:
    partial = Partial(served.download.target, len(CONTENT), served.download.digest)
    partial.write(0, b"?" * 1000)
    partial.close()
    with partial.path.open("ab") as file:
        file.truncate(len(CONTENT) + 1)
    served.fetch()
    assert served.is_right()


def test_a_torn_line_of_the_journal_does_not_count(tmp_path: Path) -> None:
    digest = Digest("sha256", "ab" * 32)
    partial = Partial(tmp_path / NAME, 100, digest)
    partial.write(0, b"a" * 10)
    partial.write(50, b"b" * 10)
    partial.close()
    with (tmp_path / f"{NAME}.journal").open("a") as file:
        file.write("60 6")
    again = Partial(tmp_path / NAME, 100, digest)
    assert list(again.missing()) == [(10, 50), (60, 100)]
    assert (again.done_bytes, again.prefix_bytes) == (20, 10)
    again.discard()


def test_ranges_merge() -> None:
    assert merge([(5, 9), (0, 2), (2, 4), (8, 12)]) == [(0, 4), (5, 12)]


def test_room_is_asked_for_before(tmp_path: Path) -> None:
    check_room(tmp_path / "not" / "yet", 1)
    with pytest.raises(DiskFullError) as caught:
        check_room(tmp_path, shutil.disk_usage(tmp_path).total * 2)
    assert caught.value.needed_bytes > caught.value.free_bytes


KILLED = """
import sys
from pathlib import Path
from registry.digest import Digest
from registry.fetcher import fetch
from registry.remote_bytes import Download, Limits
url, target, size, sha256 = sys.argv[1:]
fetch(Download("x", url, Path(target), int(size), Digest("sha256", sha256)), print, Limits(connections=1))
"""


def test_a_killed_process_leaves_what_came(served: Served) -> None:
    served.hub.breaks(NAME, Fault("stall", after_bytes=1_234_567))
    digest = served.download.digest
    assert digest is not None
    command = [sys.executable, "-c", KILLED, served.download.url, str(served.download.target), str(len(CONTENT))]
    child = subprocess.Popen([*command, digest.value], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        wait_for(served.download.target.with_name(f"{NAME}.journal"), "1234567")
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    before = len(served.cdn)
    served.fetch()
    assert served.is_right()
    assert sum(request.sent_bytes for request in served.cdn[before:]) == len(CONTENT) - 1_234_567


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline, f"{path} never said {text}"
        time.sleep(0.02)
