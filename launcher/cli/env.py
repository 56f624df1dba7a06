"""`launch env`: lines to eval, so that clients of OpenAI and Anthropic talk to the endpoint."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from launcher.cli.options import Printing, UsageError, option

Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="The model; else the first that is served.")]
Shell = Annotated[str, option("--shell", "NAME", "sh, fish or powershell: whose words the lines are in.")]


def _line_of_sh(name: str, value: str) -> str:
    return f"export {name}={shlex.quote(value)}"


def _line_of_fish(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"set -gx {name} '{escaped}'"


def _line_of_powershell(name: str, value: str) -> str:
    # It takes typographic quotation marks for its own.
    escaped = re.sub("(['‘’‚‛])", r"\1\1", value)
    return f"$env:{name} = '{escaped}'"


_LINES: Mapping[str, Callable[[str, str], str]] = {
    "sh": _line_of_sh,
    "fish": _line_of_fish,
    "powershell": _line_of_powershell,
}
_USES = {
    "sh": 'eval "$(launch env)"',
    "fish": "launch env --shell fish | source",
    "powershell": "launch env --shell powershell | Out-String | Invoke-Expression",
}


def command(printing: Printing, name: Name = None, shell: Shell = "sh") -> None:
    from launcher.endpoint import client_variables, download_model_name, endpoint_address
    from launcher.output import is_terminal

    if shell not in _LINES:
        raise UsageError(f"`--shell` must be one of {', '.join(_LINES)}, not `{shell}`")
    address = endpoint_address(model=name)
    variables = client_variables(address, name or download_model_name(address))
    output = printing.output()
    if output.as_json:
        output.result("env", {"variables": variables})
        return
    output.lines([_LINES[shell](*each) for each in variables.items()])
    if is_terminal(sys.stdout):
        output.say(f"to set them here: {_USES[shell]}")
