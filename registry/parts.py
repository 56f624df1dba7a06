"""Weights in numbered parts, `…-00001-of-00003…`, and the choice of one set where a repo holds the same in several."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from registry.errors import NotOnHubError

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")


def one_set(paths: Iterable[str], repo_id: str) -> tuple[str, ...]:
    """Return one file, or all parts of one, in order: the least deep, of those the shortest name, whole before parts.

    Raises NotOnHubError if a part of it is missing.
    """
    sets: dict[str, list[str]] = {}
    for path in sorted(paths):
        sets.setdefault(_whole_name(path), []).append(path)
    name = min(sets, key=lambda name: (name.count("/"), len(name), name))
    if name in sets[name]:
        return (name,)
    _check_complete(sets[name], repo_id)
    return tuple(sets[name])


def is_part(path: str) -> bool:
    """Return whether a name says that the file is one of several."""
    return _PART.fullmatch(path) is not None


def _whole_name(path: str) -> str:
    part = _PART.fullmatch(path)
    return path if part is None else part["stem"] + part["suffix"]


def _check_complete(parts: Sequence[str], repo_id: str) -> None:
    last = _PART.fullmatch(parts[-1])
    assert last is not None
    wanted = [f"{last['stem']}-{n:05}-of-{last['count']}{last['suffix']}" for n in range(1, int(last["count"]) + 1)]
    if missing := [name for name in wanted if name not in parts]:
        raise NotOnHubError(
            f"`{repo_id}` has {len(parts)} of the {len(wanted)} parts of `{_whole_name(parts[-1])}`",
            details=[f"`{name}` is missing" for name in missing[:5]],
            hint="its upload may not have ended: try again later, or name another hub with --hub",
        )
