"""What an examination finds, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from registry.errors import LaunchError

State = Literal["ok", "warning", "error"]
_NO_FACTS: Mapping[str, Any] = {}


class Finding(NamedTuple):
    """One thing that was looked at: `text` is for people, `facts` for programs; what is not ok has a `remedy`."""

    area: str
    name: str
    state: State
    text: str
    remedy: str | None = None
    facts: Mapping[str, Any] = _NO_FACTS

    @classmethod
    def of_error(cls, area: str, name: str, error: LaunchError) -> Finding:
        """Return an error as a finding: its cause and facts in one line, its hint as the remedy."""
        text = ": ".join((error.message, *error.details[:1]))
        return cls(area, name, "error", text, error.hint, {"kind": error.kind})

    def as_dict(self) -> dict[str, Any]:
        return {**self._asdict(), "facts": dict(self.facts)}


def made_public(value: Any, home: Path) -> Any:
    """Return a value, and all that is in it, without logins in addresses, and with the home folder as `~`."""
    if isinstance(value, str):
        return _without_home(without_logins(value), home)
    if isinstance(value, Mapping):
        return {name: made_public(each, home) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [made_public(each, home) for each in value]
    return value


def without_logins(text: str) -> str:
    """Return a text whose addresses have lost the users and passwords that stood before their hosts."""
    return re.sub(r"://\S*@", "://***@", text)


def _without_home(text: str, home: Path) -> str:
    if home == Path(home.anchor):
        return text
    return re.sub(rf"(?<![\w./-]){re.escape(str(home))}(?![\w.-])", "~", text)
