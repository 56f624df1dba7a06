"""A unit for systemd that serves a model, or the models of a file, for one user."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

TEMPLATE = """\
[Unit]
Description=launch {name}
After=network-online.target

[Service]
{key}ExecStart={command}
WorkingDirectory={folder}
Environment=PYTHONUNBUFFERED=1
Restart=on-failure
RestartSec=5
# A line that makes no sense makes none the second time.
RestartPreventExitStatus=2
TimeoutStartSec=infinity
TimeoutStopSec=30

[Install]
WantedBy=default.target
"""
# Without the file the service does not start: it would ask nobody for a key.
KEY = """\
# The key that may ask, as LAUNCH_API_KEY='KEY', in a file that only its owner can read.
EnvironmentFile=%h/{file}
"""


def unit(name: str, command: Sequence[str], folder: Path, key_file: str | None = None) -> str:
    """Return the text of a unit whose service runs a command in a folder; systemd ends it by TERM, which drains it.

    The key that clients need is in `key_file`, which is named from the user's home, and never in the unit itself.
    """
    words = " ".join(_quoted(word) for word in command)
    key = "" if key_file is None else KEY.format(file=key_file)
    return TEMPLATE.format(name=_plain(name), key=key, command=words, folder=_plain(str(folder)))


def unit_name(model: str) -> str:
    """Return the file's name for a model's unit."""
    return f"launch-{re.sub(r'[^A-Za-z0-9:_.-]', '-', model)}.service"


def _plain(text: str) -> str:
    """Return a value as it stands, but for specifiers; systemd reads it to the end of its line, without quotes."""
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """Return a word as systemd.syntax has it: specifiers and variables as they stand, white space in quotes."""
    word = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace("\n", "\\n").replace("\r", "\\r")
    if re.fullmatch(r"[^\s\"';]+", word):
        return word
    escaped = word.replace('"', '\\"')
    return f'"{escaped}"'
