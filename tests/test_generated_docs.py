"""That the generated pages are what the code and the catalogue make of them, and that their commands work."""

from __future__ import annotations

import re
import shlex

import pytest

from docs.generate import main, pages
from engines.index import CAPABILITIES
from registry.catalogue import read_catalogue
from registry.resolution import resolve
from registry.spec import Machine, Request, parse_size

COMMAND = re.compile(r"^\$ (launch --model-name .*)$", re.MULTILINE)
MACHINE = Machine("Linux", "x86_64", cores=8, memory_bytes=64_000_000_000)


def test_the_pages_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in pages() if name.startswith("models/") and name != "models/index.md"])
def test_every_command_of_a_model_s_page_resolves_for_every_quantization(name: str) -> None:
    model = read_catalogue().find(name.removeprefix("models/").removesuffix(".md")).model
    commands = COMMAND.findall(pages()[name])
    assert len(commands) == len(model.specs)
    for command, spec in zip(commands, model.specs, strict=True):
        for quantization in spec.quantizations:
            request = _request(command.replace("${quantization}", quantization))
            found = resolve(request, model, capabilities=CAPABILITIES, machine=MACHINE)
            assert (found.spec, found.quantization) == (spec, quantization)


def _request(command: str) -> Request:
    _, *words = shlex.split(command)
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert set(options) == {"--model-name", "--size-in-billions", "--model-format", "--quantization"}
    return Request(
        options["--model-name"],
        model_format=options["--model-format"],
        quantization=options["--quantization"],
        size_in_billions=parse_size(options["--size-in-billions"]),
    )


def test_every_key_of_the_schema_and_every_engine_is_described() -> None:
    described = pages()
    for key in ("size_in_billions", "quantization_config", "engine_packages", "sha256", "hybrid", "part_file"):
        assert f"| `{key}`" in described["generated/schema.md"]
    for capability in CAPABILITIES:
        assert f"| `{capability.engine}` |" in described["generated/engines.md"]


def test_tables_have_the_same_number_of_cells_in_every_row() -> None:
    for page in pages().values():
        for table in re.findall(r"(?:^\|.*\|\n)+", page, re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1
