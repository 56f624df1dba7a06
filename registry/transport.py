"""Asks servers for bytes: through the user's proxies, with the certificates that the user's variables name.

urllib3 and not httpx2, whose reading of a body costs five times the processor time of everything else in a download.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

from registry.errors import DownloadError

if TYPE_CHECKING:
    import ssl

    from urllib3 import BaseHTTPResponse, PoolManager

MAX_REDIRECTS = 10
CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SECRET = ("authorization", "cookie")


class NotReachedError(Exception):
    """No connection to the server of `url`, or to the proxy before it, came about; the cause is what was met."""

    def __init__(self, url: str, said: str) -> None:
        super().__init__(said)
        self.url = url


class Answer(NamedTuple):
    """A response whose body is still to be read, and the address that it came from after redirects."""

    response: BaseHTTPResponse
    url: str

    @property
    def host(self) -> str:
        return host_of(self.url)


class Proxy(NamedTuple):
    """A proxy that the environment names for an address; `variable` is the one that does."""

    url: str
    variable: str

    @property
    def shown(self) -> str:
        """The address without the password that it may hold."""
        return f"{urlsplit(self.url).scheme}://{self.url.rpartition('@')[2].rpartition('://')[2]}"


class Transport:
    """Connections that are used again; threads share one. Close it with `close`, or as a context manager's end."""

    def __init__(self, timeout_s: float, connections: int) -> None:
        self._timeout_s = timeout_s
        self._connections = connections
        self._pools: dict[tuple[str | None, bool], PoolManager] = {}

    def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Return what a URL's redirects end at; what is secret in `headers` stays at the origin of `url`.

        Raises NotReachedError, and DownloadError for a redirect from https to anything else, or for too many; else what
        urllib3 raises.
        """
        address = url
        for _ in range(MAX_REDIRECTS):
            response = self._ask(address, headers if same_origin(address, url) else without_secrets(headers))
            location = response.get_redirect_location()
            if not location:
                return Answer(response, address)
            response.drain_conn()
            response.release_conn()
            following = urljoin(address, location)
            _check_redirect(address, following)
            # Once at another host, even a way back is that host's doing.
            headers = headers if same_origin(following, url) else without_secrets(headers)
            address = following
        raise DownloadError(f"`{host_of(url)}` redirects in a circle")

    def close(self) -> None:
        for pool in self._pools.values():
            pool.clear()

    def _ask(self, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        from urllib3 import exceptions

        pool = self._pool(proxy_of(url), is_secure=urlsplit(url).scheme == "https")
        sent = {"Accept-Encoding": "identity", "User-Agent": "model-launcher", **headers}
        try:
            response = pool.request("GET", url, headers=sent, redirect=False, retries=False, preload_content=False)
        except (exceptions.ConnectTimeoutError, exceptions.ProxyError, exceptions.SSLError) as error:
            raise NotReachedError(url, str(error)) from error
        if response.status == 407:
            response.close()
            raise NotReachedError(url, "HTTP 407 Proxy Authentication Required")
        return response

    def _pool(self, proxy: Proxy | None, *, is_secure: bool) -> PoolManager:
        key = None if proxy is None else proxy.url, is_secure
        if proxy is not None and urlsplit(proxy.url).scheme not in ("http", "https"):
            hint = f"set {proxy.variable} to an http:// or https:// address"
            raise DownloadError(f"The proxy `{proxy.shown}` is none of HTTP", hint=hint)
        if key not in self._pools:
            self._pools[key] = self._open_pool(*key)
        return self._pools[key]

    def _open_pool(self, proxy_url: str | None, is_secure: bool) -> PoolManager:
        import urllib3

        timeout, context = urllib3.Timeout(self._timeout_s), tls_context() if is_secure else None
        if proxy_url is None:
            return urllib3.PoolManager(timeout=timeout, maxsize=self._connections, ssl_context=context)
        return urllib3.ProxyManager(
            proxy_url,
            proxy_headers=urllib3.make_headers(proxy_basic_auth=_login(proxy_url)),
            timeout=timeout,
            maxsize=self._connections,
            ssl_context=context,
        )


def _login(proxy_url: str) -> str | None:
    user, password = urlsplit(proxy_url).username, urlsplit(proxy_url).password
    return None if user is None else f"{unquote(user)}:{unquote(password or '')}"


def _named_certificates() -> tuple[str, str] | None:
    return next(((name, os.environ[name]) for name in CERTIFICATE_VARIABLES if os.environ.get(name)), None)


def tls_context() -> ssl.SSLContext:
    """Return what servers' certificates are checked against, by the user's variables; raises DownloadError."""
    return _context(_named_certificates())


@functools.cache  # reading them takes as long as a small file
def _context(named: tuple[str, str] | None) -> ssl.SSLContext:
    """Return what certificates are checked against: what the user's variable names, else the system's and Mozilla's."""
    import ssl

    if named is None:
        import certifi

        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())  # slim containers have none of their own
        return context
    variable, path = named
    try:
        is_folder = os.path.isdir(path)
        return ssl.create_default_context(cafile=None if is_folder else path, capath=path if is_folder else None)
    except OSError as error:  # ssl.SSLError is one
        said = error.strerror or str(error)
        raise DownloadError(f"`{variable}` names `{path}`, which holds no certificates", details=[said]) from error


def proxy_of(url: str) -> Proxy | None:
    """Return the proxy that the environment names for a URL, as every other program reads it."""
    from urllib.request import proxy_bypass

    address = urlsplit(url)
    if proxy_bypass(address.netloc.rpartition("@")[2]):
        return None
    for name in (f"{address.scheme}_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            if found := os.environ.get(variable):
                return Proxy(found if "://" in found else f"http://{found}", variable)
    return None


def without_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _SECRET}


def same_origin(url: str, other: str) -> bool:
    return _origin(url) == _origin(other)


def whole_size(headers: Mapping[str, str], start: int) -> str | None:
    """Return the size that a part's headers tell of the whole, or None where it is not the part that was asked for."""
    told = headers.get("Content-Range", "")
    return told.rpartition("/")[2] if told.startswith(f"bytes {start}-") else None


def host_of(url: str) -> str:
    return urlsplit(url).hostname or url


def _origin(url: str) -> tuple[str, str | None, int | None]:
    address = urlsplit(url)
    default = {"http": 80, "https": 443}.get(address.scheme)
    return address.scheme, address.hostname, address.port or default


def _check_redirect(address: str, following: str) -> None:
    came, goes = urlsplit(address).scheme, urlsplit(following).scheme
    if goes != "https" and goes != came:
        shown = f"{goes}://{urlsplit(following).hostname or ''}"
        raise DownloadError(f"`{host_of(address)}` redirects to `{shown}`, which is not allowed")
