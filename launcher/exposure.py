"""Where the endpoint answers and whom: read and checked as one value, before anything is fetched or started."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from launcher.authority import Authority, is_loopback, is_wildcard, read_authority
from launcher.keys import Key, make_key_hint, read_key_file
from registry.errors import ExposureError, LaunchError, PortInUseError

HOST = "127.0.0.1"


class Limits(NamedTuple):
    """What a client may take up: bytes, and seconds for what it has to do."""

    body_bytes: int = 32 * 1024**2
    body_within_s: float = 60.0
    # Reverse proxies keep idle connections for a minute; a shorter time would close those that they use again.
    headers_within_s: float = 75.0
    answer_taken_within_s: float = 60.0


class Certificate(NamedTuple):
    """The files of the endpoint's certificate, with those of whoever issued it, and of its private key."""

    chain: Path
    private_key: Path


class Exposure(NamedTuple):
    """Where the endpoint answers (a `port` of 0 is any that is free) and who may ask; `warnings` are for the user."""

    host: str = HOST
    port: int = 0
    keys: tuple[Key, ...] = ()
    allowed_hosts: tuple[Authority, ...] = ()
    certificate: Certificate | None = None
    limits: Limits = Limits()
    warnings: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        """Return whether only this machine can reach it."""
        return is_loopback(self.host)

    def url(self, port: int) -> str:
        """Return the address for clients, which ends in `/v1`; that of this machine where it answers on all."""
        scheme = "http" if self.certificate is None else "https"
        host = HOST if is_wildcard(self.host) else self.host
        return f"{scheme}://{Authority(host, port)}/v1"

    def listen(self) -> socket.socket:
        """Return a socket that listens; raises PortInUseError, and LaunchError for an address that is not here."""
        try:
            return self._limited(_open_socket(self.host, self.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                message = f"Port {self.port} of {self.host} is in use by another program"
                raise PortInUseError(message, host=self.host, port=self.port, hint="--port 0") from error
            message = f"Nothing can listen on port {self.port} of `{self.host}`: {error.strerror}"
            raise LaunchError(message) from error

    def _limited(self, listener: socket.socket) -> socket.socket:
        """Let the system end connections, which inherit this, whose client reads no more: it would keep its slot."""
        if sys.platform == "linux":
            limit_ms = round(self.limits.answer_taken_within_s * 1000)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)
        return listener

    def check(self) -> None:
        """Raise what `listen` raises: better before a download than after it."""
        self.listen().close()


ON_LOOPBACK = Exposure()


def read_exposure(
    *,
    host: str = HOST,
    port: int = 0,
    keys: Sequence[Key] = (),
    key_file: Path | None = None,
    without_key: bool = False,
    allowed_hosts: Iterable[str] = (),
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
) -> Exposure:
    """Return who may ask, from what was said; reads the files, never the network.

    `without_key` says that nobody is asked for a key though others can reach it. Raises ExposureError.
    """
    all_keys = (*keys, *(() if key_file is None else read_key_file(key_file)))
    exposure = Exposure(
        host=_read_host(host),
        port=port,
        keys=all_keys,
        allowed_hosts=tuple(map(_read_allowed, allowed_hosts)),
        certificate=_read_certificate(tls_cert, tls_key),
    )
    _check_keys(exposure, without_key=without_key)
    return exposure._replace(warnings=tuple(_warnings(exposure, key_file)))


def _open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens, on both kinds of addresses where `host` is all of them; a name is its IPv4 one."""
    if ":" not in host:
        return socket.create_server((host, port))
    is_both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=is_both)


def _read_host(text: str) -> str:
    authority = read_authority(f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text)
    if authority is None:
        raise ExposureError(f"`{text}` is not an address to listen on" if text.strip() else "`--host` is empty")
    if authority.port is not None:
        raise ExposureError(f"`--host` has a port: `{text}`", hint=f"--host {authority.host} --port {authority.port}")
    return authority.host


def _read_allowed(text: str) -> Authority:
    authority = read_authority(f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text)
    if authority is None:
        raise ExposureError(
            f"`--allowed-host` takes a name, perhaps with a port, not `{text}`", hint="--allowed-host example.com"
        )
    return authority


def _read_certificate(chain: Path | None, private_key: Path | None) -> Certificate | None:
    if chain is None and private_key is None:
        return None
    if chain is None or private_key is None:
        given, missing = ("--tls-key", "--tls-cert") if chain is None else ("--tls-cert", "--tls-key")
        raise ExposureError(f"`{given}` needs `{missing}` too", hint=f"{missing} FILE")
    from launcher.tls import check_certificate

    certificate = Certificate(chain.expanduser(), private_key.expanduser())
    check_certificate(certificate)
    return certificate


def _check_keys(exposure: Exposure, *, without_key: bool) -> None:
    if without_key and exposure.keys:
        raise ExposureError("`--no-api-key` says that nobody is asked for a key, and a key is given")
    if not (exposure.is_local or exposure.keys or without_key):
        raise ExposureError(
            f"`{exposure.host}` can be reached by other machines, and nobody would be asked for a key",
            details=(
                "`--api-key-file FILE` has the keys that may ask, one a line",
                "`--no-api-key` if everybody who can reach it may ask",
            ),
            hint=f"{make_key_hint('launch.key')}, then the same with --api-key-file launch.key",
        )


def _warnings(exposure: Exposure, key_file: Path | None) -> Iterable[str]:
    if not (exposure.is_local or exposure.keys):
        yield f"everybody who can reach `{exposure.host}` may ask: no key is wanted"
    if key_file is not None and key_file.stat().st_mode & 0o077:
        yield f"others on this machine can read the keys in `{key_file}`: chmod 600 {key_file}"
