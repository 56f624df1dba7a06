"""The endpoint's keys. What is kept of a key is a digest and a name for logs, so that nothing can show it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from registry.errors import ExposureError

# What may stand in a header unchanged; a name cannot be taken for a part of a key.
_KEY = re.compile(r"[!-~]+")
_NAMED = re.compile(r"([\w.@-]+):\s+(\S.*)")
# Nobody can work out beforehand what digests are compared, so the time of a comparison tells nothing of a key.
_OWN_TO_THIS_PROCESS = os.urandom(32)
_SHOWN_AT_MOST = 6


class Key(NamedTuple):
    """A key that may ask: its name for logs, and its digest."""

    name: str
    digest: bytes

    def __repr__(self) -> str:
        return f"Key(name={self.name!r})"


def key_of(secret: str, *, origin: str, name: str | None = None) -> Key:
    """Return a key; without a name it is known by its beginning.

    Raises ExposureError, which says `origin` and nothing of the key.
    """
    if not _KEY.fullmatch(secret):
        what = "cannot stand in a header: only letters, digits and signs can, without spaces" if secret else "is empty"
        raise ExposureError(f"The key from {origin} {what}")
    return Key(name or _beginning_of(secret), _digest(secret))


def read_key_file(path: Path) -> tuple[Key, ...]:
    """Return the keys of a file with one key a line, `name: key` where it has a name; `#` begins a comment.

    Raises ExposureError.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ExposureError(f"The keys in `{path}` cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ExposureError(f"The keys in `{path}` cannot be read: the file is not text") from None
    keys = tuple(
        _key_in(line.strip(), f"line {number} of `{path}`")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    )
    if not keys:
        raise ExposureError(f"There is no key in `{path}`", hint=make_key_hint(path))
    return keys


def make_key_hint(path: str | Path) -> str:
    """Return the command that makes a file with one key, which only the user can read."""
    return f"(umask 077; head -c 24 /dev/urandom | base64 > {path})"


class KeyRing:
    """Finds the name of a key that was shown; how long that takes depends neither on the keys nor on their number."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._names = {key.digest: key.name for key in keys}

    def name_of(self, secret: str) -> str | None:
        """Return the name of the key, or None if it is none of ours."""
        return self._names.get(_digest(secret))


def _key_in(line: str, origin: str) -> Key:
    named = _NAMED.fullmatch(line)
    return key_of(named[2], origin=origin, name=named[1]) if named else key_of(line, origin=origin)


def _digest(secret: str) -> bytes:
    return hashlib.blake2b(secret.encode("utf-8", "surrogateescape"), key=_OWN_TO_THIS_PROCESS).digest()


def _beginning_of(secret: str) -> str:
    """Return what may be shown of a key: a quarter of a short one, the first few characters of a long one."""
    return f"{secret[: min(_SHOWN_AT_MOST, len(secret) // 4)]}…"
