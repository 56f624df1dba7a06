"""What happens to this machine during a download: other processes, kills, full disks and folders that are read-only."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from registry.errors import CacheNotWritableError, DiskFullError
from registry.progress import Progress
from registry.store import pull
from tests.fakes.faults import Trial, Trials
from tests.fakes.hub import Fault, HubServer
from tests.fakes.weights import NAME, gguf_source
from tests.registry.pulls import CONTENT, LARGE, Pulls, whole

pytestmark = pytest.mark.downloads

SOME = 700_000


@pytest.fixture(params=["huggingface", "modelscope"])
def pulls(request: pytest.FixtureRequest, hub: HubServer, trials: Trials[Trial], tmp_path: Path) -> Pulls:
    return Pulls(hub, request.param, trials, tmp_path / "home")


CHILD = """
import sys
from registry.store import pull
from tests.fakes.weights import gguf_source

told = lambda progress: print(progress.text, flush=True)
print(pull(*gguf_source(*sys.argv[1:]), progress=told).path)
"""


def start(pulls: Pulls) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, pulls.name, pulls.commit]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)


def wait_for_bytes(pulls: Pulls, count: int) -> None:
    """Wait until so many bytes of the file are here."""
    deadline = time.monotonic() + 60
    while not any(f" {count}\n" in path.read_text() for path in pulls.home.rglob("*.journal")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start_and_stall(pulls: Pulls) -> subprocess.Popen[str]:
    """Return a pull of its own process, whose server has fallen silent in the middle."""
    pulls.hub.breaks(NAME, Fault("stall", after_bytes=SOME))
    child = start(pulls)
    wait_for_bytes(pulls, SOME)
    return child


# --- 8 and 9: processes ----------------------------------------------------------------------------------------------


def test_two_processes_share_one_download(pulls: Pulls) -> None:
    first = start_and_stall(pulls)
    second = start(pulls)
    assert second.stdout is not None
    waiting = next(line for line in second.stdout if "waiting" in line)
    assert waiting == f"`{NAME}`: waiting for another process that is fetching it\n"
    first.send_signal(signal.SIGKILL)  # before its silent server is given up: the second goes on from there
    first.communicate()
    second.communicate()
    assert second.returncode == 0
    tried = "the first is killed in the middle; the second has been waiting"
    pulls.add(8, tried, whole(pulls, "the second went on where the first was"), needed_bytes=len(CONTENT))


def test_two_processes_at_once(pulls: Pulls) -> None:
    children = [start(pulls) for _ in range(2)]
    printed = {child.communicate()[0].splitlines()[-1] for child in children}
    assert [child.returncode for child in children] == [0, 0]
    assert len(printed) == 1
    pulls.add(8, "both at once", whole(pulls, "one download for both"), needed_bytes=len(CONTENT))


def test_a_killed_process(pulls: Pulls) -> None:
    child = start_and_stall(pulls)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not pulls.is_whole()
    pulls.pull()
    pulls.add(9, "kill -9 in the middle, then again", whole(pulls, "went on where it was"), needed_bytes=len(CONTENT))


def test_an_interrupted_process_ends_at_once(pulls: Pulls) -> None:
    child = start_and_stall(pulls)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=10)
    assert child.returncode == -signal.SIGINT
    pulls.pull()
    pulls.add(9, "Ctrl-C in the middle, then again", whole(pulls, "went on where it was"), needed_bytes=len(CONTENT))


# --- 10: disks -------------------------------------------------------------------------------------------------------


def test_a_disk_without_room(pulls: Pulls) -> None:
    size = shutil.disk_usage(pulls.home).free * 2
    repo = pulls.hub.repos["org/weights-GGUF"]
    repo.files[NAME] = repo.files[NAME]._replace(size_bytes=size)
    error = pulls.fails(DiskFullError)
    assert error.needed_bytes == size
    assert pulls.hub.sent_of_files == 0
    pulls.content = CONTENT
    assert not pulls.is_whole()
    pulls.add(10, "less room than the file takes", "refused with both sizes before the first byte; no file")


class SmallDisk:
    """Room that can be taken away: on a disk of its own, or by a limit where nobody may mount one."""

    def __init__(self, folder: Path, *, is_own: bool) -> None:
        self._folder = folder
        self._limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = f"size={len(LARGE) + 4_000_000}"
        mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
        may_mount = is_own and shutil.which("mount") is not None
        self._is_mounted = may_mount and subprocess.run(mount, capture_output=True, check=False).returncode == 0

    def fill(self) -> None:
        if not self._is_mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, self._limit[1]))
            return
        with suppress(OSError), (self._folder / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))

    def make_room(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limit)
        (self._folder / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        self.make_room()
        if self._is_mounted:
            subprocess.run(["umount", "--lazy", str(self._folder)], check=True)


@pytest.fixture(params=["disk", "limit"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "home", is_own=request.param == "disk")
    yield disk
    disk.close()


def test_a_disk_that_fills_up(small_disk: SmallDisk, pulls: Pulls, request: pytest.FixtureRequest) -> None:
    pulls.commit = pulls.publish(LARGE)
    pulls.hub.bytes_per_s = 10_000_000  # or all could be here before anybody looks

    def fill(progress: Progress) -> None:
        if progress.stage == "download" and progress.done > SOME:
            small_disk.fill()

    with pytest.raises(DiskFullError, match=r"free, 0\.02 GB are needed"):
        pull(*gguf_source(pulls.name, pulls.commit), progress=fill)
    assert not pulls.is_whole()
    assert pulls.leftovers()
    small_disk.make_room()
    pulls.hub.bytes_per_s = None
    before = pulls.hub.sent_of_files
    pulls.pull()
    assert pulls.hub.sent_of_files - before < len(LARGE)
    tried = {"disk": "the disk fills up in the middle", "limit": "a quota is reached in the middle"}
    kind = request.node.callspec.params["small_disk"]
    pulls.add(10, f"{tried[kind]}; room is made", whole(pulls, "clear error, what came was kept and gone on with"))


@pytest.fixture
def read_only_folder(tmp_path: Path) -> Path:
    """Return a folder in which nothing can be made: for root, whom no mode stops, the kernel's own."""
    if os.geteuid() == 0:
        return Path("/sys")
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o555)
    return folder


def test_a_read_only_cache(pulls: Pulls, read_only_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(read_only_folder / "hub"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(read_only_folder / "modelscope"))
    error = pulls.fails(CacheNotWritableError)
    assert error.path.startswith(str(read_only_folder))
    assert str(error.hint).startswith("name a cache folder")
    assert pulls.hub.sent_of_files == 0
    pulls.add(10, "the cache may not be written", "the folder and a remedy named before the first byte; no file")


def test_a_complete_cache_is_only_read(pulls: Pulls) -> None:
    pulls.pull(None)
    pulls.hub.requests.clear()
    caches = [pulls.home / name for name in ("huggingface", "modelscope")]
    before = {path: path.lstat().st_mtime_ns for cache in caches for path in cache.rglob("*")}
    pulls.pull(None)
    pulls.pull()
    assert {path: path.lstat().st_mtime_ns for cache in caches for path in cache.rglob("*")} == before
    tried = "what is pulled lies in a cache that may not be written"
    pulls.add(10, tried, whole(pulls, "nothing is written"), needed_bytes=0)
