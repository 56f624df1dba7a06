"""The private socket of an endpoint: what it tells, what it lets its user change, and what is left of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.control import ask_all, ask_statuses, ask_to_reload, ask_to_unload
from launcher.servers import Origin, Server, running_servers
from registry.errors import LaunchError, SchemaError, UnknownModelError
from tests.fakes.controlled import URL, Models, served


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "launch.yaml"
    path.write_text("small ready\nbig failed out of memory\n")
    return path


@pytest.fixture
def server(file: Path) -> Iterator[Server]:
    with served(Models(file), Origin("serve", log="/x.log", arguments=("a", "b"), folder="/", file=str(file))) as it:
        yield it


def test_its_record_is_on_disk_as_long_as_it_serves(file: Path) -> None:
    with served(Models(file), Origin("serve", arguments=("a",))) as server:
        assert running_servers() == [server]
        assert (server.process.pid, server.url) == (os.getpid(), URL)
        folder = Path(server.control).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert running_servers() == []
    assert not folder.exists()
    assert list(Path(os.environ["LAUNCH_CACHE"], "servers").iterdir()) == []


def test_it_tells_what_is_behind_it(server: Server) -> None:
    statuses = ask_statuses(server)
    assert statuses is not None
    assert [(each.name, each.aliases, each.state, each.cause) for each in statuses] == [
        ("small", ("small-alias",), "ready", None),
        ("big", ("big-alias",), "failed", "out of memory"),
    ]
    assert (statuses[0].running, statuses[0].waiting) == (1, 3)
    assert ask_all([server, server]) == [statuses, statuses]


def test_a_model_is_unloaded_once(server: Server) -> None:
    assert [ask_to_unload(server, "small") for _ in range(2)] == [True, False]
    statuses = ask_statuses(server)
    assert statuses is not None
    assert statuses[0].state == "unloaded"


def test_errors_are_those_of_the_endpoint(server: Server, file: Path) -> None:
    with pytest.raises(UnknownModelError, match="There is no model `other` here") as unknown:
        ask_to_unload(server, "other")
    assert (unknown.value.name, list(unknown.value.suggestions)) == ("other", ["near"])
    file.write_text("small ready\n!\n")
    with pytest.raises(SchemaError, match="`!` is no model") as schema:
        ask_to_reload(server)
    assert (schema.value.file, schema.value.line, schema.value.key) == (str(file), 2, "models")
    assert ask_statuses(server) is not None
    file.write_text("small ready\nnew unloaded\n")
    assert ask_to_reload(server) == ["new is new"]


def test_what_breaks_it_is_an_error_too(server: Server, file: Path) -> None:
    file.unlink()
    with pytest.raises(LaunchError, match="The endpoint broke over this: FileNotFoundError") as broken:
        ask_to_reload(server)
    assert type(broken.value) is LaunchError
    assert ask_statuses(server) is not None


def test_nobody_is_there_to_answer(server: Server) -> None:
    gone = server._replace(control=f"{server.control}.gone")
    assert ask_all([gone, server])[0] is None
