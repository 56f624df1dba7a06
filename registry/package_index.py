"""The user's package index settings, as pip knows them, in uv's words."""

from __future__ import annotations

import configparser
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from registry.cache import is_true

DEFAULT_INDEX = "https://pypi.org/simple"
REACH_HINT = "check the network, or name a mirror with PIP_INDEX_URL or UV_DEFAULT_INDEX"

# pip's option, uv's variables (the first is written, any of them set by the user wins), and uv's separator.
_OPTIONS = (
    ("index-url", ("UV_DEFAULT_INDEX", "UV_INDEX_URL"), " "),
    ("extra-index-url", ("UV_INDEX", "UV_EXTRA_INDEX_URL"), " "),
    ("find-links", ("UV_FIND_LINKS",), ","),
    ("trusted-host", ("UV_INSECURE_HOST",), " "),
    ("cert", ("SSL_CERT_FILE",), " "),
)


def uv_variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that make uv use the package index which pip's variables and pip.conf name.

    uv reads neither. A setting that the user already made for uv is left out, so that it stands.
    """
    files = _read_configuration(environ)
    found = {}
    for option, (name, *others), separator in _OPTIONS:
        value = environ.get(f"PIP_{option.upper().replace('-', '_')}") or files.get(option)
        if value and not any(environ.get(variable) for variable in (name, *others)):
            found[name] = separator.join(value.split())
    if "UV_INDEX" in found and "UV_INDEX_STRATEGY" not in environ:
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip's way: the best version of all indexes
    return found


def index_url(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the address of the user's package index, with the login that it may hold; None where there is none."""
    if is_true("UV_NO_INDEX") or is_true("PIP_NO_INDEX"):
        return None
    named = (
        environ.get("UV_DEFAULT_INDEX"),
        environ.get("UV_INDEX_URL"),
        uv_variables(environ).get("UV_DEFAULT_INDEX"),
    )
    # uv lets an index have a name: `own=https://…`.
    return re.sub(r"^[\w.-]+=(?=http)", "", next(filter(None, named), DEFAULT_INDEX))


def _read_configuration(environ: Mapping[str, str]) -> dict[str, str]:
    """Return pip.conf's options; later files win, and `[install]` wins over `[global]`."""
    values: dict[str, str] = {}
    for path in _configuration_files(environ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                values.update(parser.items(section))
    return values


def _configuration_files(environ: Mapping[str, str]) -> Iterator[Path]:
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    home = Path(environ.get("HOME") or Path.home())
    for folder in environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":"):
        yield Path(folder) / "pip" / "pip.conf"
    yield Path("/etc/pip.conf")
    yield home / ".pip" / "pip.conf"
    if sys.platform == "darwin":
        yield home / "Library" / "Application Support" / "pip" / "pip.conf"
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"
    yield Path(sys.prefix) / "pip.conf"
    if named:
        yield Path(named)
