"""Names of hosts as they stand in headers and options: `localhost`, `example.com:8000`, `[::1]:8000`."""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import NamedTuple

_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s\[\]:/?#@\\%,*]+)(?::(?P<port>[0-9]{1,5}))?")
_ORIGIN = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/]+)/?")
_PORTS = {"http": 80, "https": 443}


class Authority(NamedTuple):
    """A host by name or address, in the one way that it is written here, and perhaps a port."""

    host: str
    port: int | None = None

    @property
    def is_loopback(self) -> bool:
        """Return whether it can only mean this machine, as browsers see it too."""
        return is_loopback(self.host)

    def covers(self, other: Authority) -> bool:
        """Return whether `other` is the same host, on the same port where this one says a port."""
        return self.host == other.host and self.port in (None, other.port)

    def on(self, port: int | None) -> Authority:
        """Return it with a port: its own, or else this one."""
        return self if self.port is not None else self._replace(port=port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


@functools.lru_cache(maxsize=64)  # each request has one, mostly the same
def read_authority(text: str) -> Authority | None:
    """Return what a Host header or an option names, or None if it is not a host and perhaps a port."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    host, port = _plain(match["host"]), match["port"]
    if host is None or (port is not None and int(port) > 65535):
        return None
    return Authority(host, None if port is None else int(port))


def read_origin(text: str) -> tuple[Authority, int | None] | None:
    """Return what an Origin header names, and the port that its scheme has; None for `null` and what is no origin."""
    match = _ORIGIN.fullmatch(text)
    authority = read_authority(match["authority"]) if match else None
    return None if match is None or authority is None else (authority, _PORTS.get(match["scheme"].lower()))


def is_loopback(host: str) -> bool:
    """Return whether a host, as `Authority` has it, can only mean this machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def is_wildcard(host: str) -> bool:
    """Return whether a host means every address of this machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _plain(host: str) -> str | None:
    """Return a host in lower case and in ASCII, an address in its shortest form; None if it cannot be one."""
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            return None
    try:
        return host.rstrip(".").lower().encode("idna").decode() or None
    except UnicodeError:
        return None
