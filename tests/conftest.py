"""Keeps every test off the network and out of the user's home, and takes the user's settings away from it."""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.faults import LaunchTrial, Trial, Trials
from tests.fakes.hub import HubServer
from tests.weights.build import KEPT
from tests.weights.built import BuiltWeights

_SETTINGS = ("LAUNCH_", "HF_", "HUGGING_FACE_", "HUGGINGFACE_", "MODELSCOPE_", "XINFERENCE_", "OPENAI_")
_DISPLAY = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")


class NetworkGuard:
    """Refuses connections beyond loopback and Unix sockets while `is_on`, and remembers what was tried.

    It is an audit hook, so it also sees what C extensions and asyncio do through Python's socket module; child
    processes are not under it.
    """

    def __init__(self) -> None:
        self.is_on = False
        self.tried: list[str] = []

    def __call__(self, event: str, args: tuple[object, ...]) -> None:
        if self.is_on and event in ("socket.connect", "socket.sendto", "socket.getaddrinfo"):
            host = _host_of(event, args)
            if host is not None and not _is_local(host):
                self.tried.append(host)
                raise RuntimeError(f"a test without the marker `index` reached for `{host}`")


def _host_of(event: str, args: tuple[object, ...]) -> str | None:
    """Return the host that an audit event speaks of, or None for Unix sockets and for "any address"."""
    if event == "socket.getaddrinfo":
        host = args[0]
    else:
        address = args[1]
        host = address[0] if isinstance(address, tuple) else None
    if isinstance(host, bytes):
        host = host.decode()
    return host if isinstance(host, str) and host else None


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


_guard = NetworkGuard()
sys.addaudithook(_guard)


def pytest_configure() -> None:
    """Let what tests start hear Ctrl-C: a shell in the background has its children ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that reaches beyond this machine, even where the code under test swallowed the refusal."""
    _guard.is_on = request.node.get_closest_marker("index") is None
    _guard.tried.clear()
    yield
    _guard.is_on = False
    assert not _guard.tried, f"the test reached for {', '.join(_guard.tried)}"


@pytest.fixture(autouse=True)
def _own_home(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runtime_folder: Path,
    engine_cache: Path,
) -> None:
    """Give every test a home and caches of its own; tests with real engines share the environments made for them."""
    for name in list(os.environ):
        if name.startswith(_SETTINGS) or name in _DISPLAY:
            monkeypatch.delenv(name)
    is_engine = request.node.get_closest_marker("engine") is not None
    home = tmp_path / "home"
    folders = {
        "HOME": home,
        "XDG_CACHE_HOME": home / ".cache",
        "XDG_CONFIG_HOME": home / ".config",
        "XDG_DATA_HOME": home / ".local/share",
        "XDG_STATE_HOME": home / ".local/state",
        "XDG_RUNTIME_DIR": runtime_folder,
        "HF_HOME": home / "huggingface",
        "MODELSCOPE_CACHE": home / "modelscope",
        "LAUNCH_CACHE": engine_cache if is_engine else home / "launch",
    }
    home.mkdir()
    for name, folder in folders.items():
        monkeypatch.setenv(name, str(folder))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Return both hubs on this machine, with the clients' variables pointing at them."""
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.huggingface_url)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.modelscope_url)
        yield server


@pytest.fixture(scope="session")
def trials() -> Iterator[Trials[Trial]]:
    """Return the record of what was tried against the downloads, which docs/generated/faults.md shows."""
    kept = Trials(Trial, "faults.json")
    yield kept
    kept.write()


@pytest.fixture(scope="session")
def launch_trials() -> Iterator[Trials[LaunchTrial]]:
    """Return the record of what was tried against launches, which docs/generated/faults-launches.md shows."""
    kept = Trials(LaunchTrial, "faults-launches.json")
    yield kept
    kept.write()


@pytest.fixture
def runtime_folder() -> Iterator[Path]:
    """Return a folder with a short path: a Unix socket's path may have 100 bytes, pytest's folders are longer."""
    folder = Path(tempfile.mkdtemp(prefix="launch-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the cache folder that all tests with real engines of one run share; its environments are kept for others.

    What a test removes is made anew, with uv's own cache, by whoever needs it next.
    """
    kept = KEPT / "launch" / "environments"
    kept.mkdir(parents=True, exist_ok=True)
    folder = tmp_path_factory.mktemp("engine-cache")
    (folder / "environments").symlink_to(kept)
    return folder


@pytest.fixture(scope="session")
def built_weights() -> BuiltWeights:
    """Return the weights for real engines by the names in `tests/weights/build.py`; built when first asked for."""
    return BuiltWeights()
