"""What a fleet makes of its file: which names are whose, and what a changed file changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from launcher.care import Care
from launcher.fleet import Fleet
from launcher.instance import start_instance
from launcher.serve_file import read_serve_file
from registry.errors import LaunchError, SchemaError
from tests.registry.entries import yaml_entry


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "launch.yaml"


def fleet_of(path: Path, text: str) -> Fleet:
    """Return what serves a file, with nothing loaded."""
    path.write_text(text)
    file = read_serve_file(path)
    fleet = Fleet(Care(), lambda event: None)
    fleet.add_file(file)
    return fleet


def reloaded(fleet: Fleet, path: Path, text: str) -> Sequence[str]:
    """Return what a changed file changes."""

    async def reload() -> Sequence[str]:
        async with fleet.running():
            path.write_text(text)
            return await fleet.reload()

    return asyncio.run(reload())


def own(quantization: str) -> str:
    """Return a file with one entry of its own."""
    first, *rest = yaml_entry("own", quantization=quantization).splitlines()
    return "\n".join(["models: [own]", "registry:", f"  - {first}", *(f"    {line}" for line in rest)]) + "\n"


ALIAS = "models:\n  - smollm2-instruct\n  - {model: mistral-instruct-v0.2, name: SmolLM2}\n"


def test_a_name_that_the_file_gives_is_no_other_s_alias(path: Path) -> None:
    fleet = fleet_of(path, ALIAS)
    assert fleet.offers.find("smollm2").name == "SmolLM2"
    assert fleet.offers.find("smollm2-instruct").name == "smollm2-instruct"


def test_an_alias_comes_back_with_the_name_s_end(path: Path) -> None:
    fleet = fleet_of(path, ALIAS)
    assert reloaded(fleet, path, "models: [smollm2-instruct]\n") == ["removed SmolLM2"]
    assert fleet.offers.find("smollm2").name == "smollm2-instruct"


def test_an_own_entry_that_changes_changes_its_model(path: Path) -> None:
    fleet = fleet_of(path, own("Q4_K_M"))
    assert reloaded(fleet, path, own("Q8_0")) == ["changed own"]
    assert [status.quantization for status in fleet.statuses()] == ["Q8_0"]


def test_an_own_entry_that_stays_changes_nothing(path: Path) -> None:
    fleet = fleet_of(path, own("Q4_K_M"))
    assert reloaded(fleet, path, f"# a comment\n{own('Q4_K_M')}") == ["nothing has changed"]


@pytest.mark.parametrize(
    ("text", "error"),
    [("models: [own, smollm3]\n", SchemaError), ("defaults: {port: 1}\nmodels: [smollm2]\n", LaunchError)],
)
def test_a_file_that_cannot_be_changes_nothing(path: Path, text: str, error: type[LaunchError]) -> None:
    fleet = fleet_of(path, "models: [smollm2-instruct]\n")
    before = fleet.statuses()
    with pytest.raises(error):
        reloaded(fleet, path, text)
    assert fleet.statuses() == before


def test_a_model_that_has_left_comes_back_when_it_is_asked_for(path: Path) -> None:
    """Neither at once because it was to be loaded at the start, nor because the file changes elsewhere."""
    text = "models:\n  - {model: smollm2-instruct, engine: echo, load: start, keep: 0.2s}\n"
    path.write_text(text)
    file = read_serve_file(path)
    happened: list[str] = []
    fleet = Fleet(Care(), lambda event: happened.append(event.kind))
    (keeper,) = fleet.add_file(file)
    fleet.start(keeper, lambda plan: start_instance(plan, lambda progress: None))

    async def leave_and_reload() -> None:
        async with fleet.running():
            while not happened:
                await asyncio.sleep(0.02)
            path.write_text(f"{text}  - mistral-instruct-v0.2\n")
            await fleet.reload()
            await fleet.reload()

    asyncio.run(leave_and_reload())
    assert happened == ["unloaded"]
