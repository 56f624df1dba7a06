"""That conftest keeps its promises."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.conftest import NetworkGuard


@pytest.fixture
def guard() -> NetworkGuard:
    guard = NetworkGuard()
    guard.is_on = True
    return guard


@pytest.mark.parametrize("address", [("192.0.2.1", 443), ("2001:db8::1", 443, 0, 0), ("example.org", 80)])
def test_an_address_beyond_this_machine_is_refused(guard: NetworkGuard, address: tuple[object, ...]) -> None:
    with pytest.raises(RuntimeError, match="marker `index`"):
        guard("socket.connect", (None, address))
    assert guard.tried == [address[0]]


@pytest.mark.parametrize("address", [("127.0.0.1", 80), ("::1", 80, 0, 0), ("localhost", 80), "/tmp/e.sock", ""])
def test_loopback_and_unix_sockets_are_allowed(guard: NetworkGuard, address: object) -> None:
    guard("socket.connect", (None, address))
    assert guard.tried == []


def test_the_guard_hears_of_real_connections() -> None:
    with socket.socket() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())


def test_home_and_caches_are_the_test_s_own(tmp_path: Path) -> None:
    assert Path.home().is_relative_to(tmp_path)
    assert Path(os.environ["LAUNCH_CACHE"]).is_relative_to(tmp_path)
    assert len(os.environ["XDG_RUNTIME_DIR"]) < 40
