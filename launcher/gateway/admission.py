"""Who is let in: a request is refused by its headers before its body is read, and by its body before it is answered."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from launcher.authority import Authority, read_authority, read_origin
from launcher.exposure import Exposure
from launcher.keys import KeyRing
from registry.errors import (
    AuthenticationError,
    BodyTooLargeError,
    ForeignRequestError,
    InvalidRequestError,
    SlowClientError,
)

# The name of the key that a request came with; not there where no key is asked for.
KEY_NAME = web.RequestKey("key_name", str)
# Probes ask by an address and have no key; the answer tells nothing but that this runs.
OPEN_PATHS = frozenset({"/health"})


def admission(exposure: Exposure) -> Middleware:
    """Return the middleware that lets a request in, or raises why not."""
    checks = _Checks(exposure)

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN_PATHS:
            checks.check_names(request)
            checks.check_key(request)
        await checks.read_body(request)
        return await handler(request)

    return admit


async def expect_later(request: web.Request) -> None:
    """Leave `Expect` to whoever lets the request in: aiohttp's own handler asks for the body before that."""


class _Checks:
    """What a request must pass, one after the other."""

    def __init__(self, exposure: Exposure) -> None:
        self._is_local = exposure.is_local
        self._allowed = exposure.allowed_hosts
        self._own_port = 80 if exposure.certificate is None else 443
        self._ring = KeyRing(exposure.keys) if exposure.keys else None
        self._limits = exposure.limits

    def check_names(self, request: web.Request) -> None:
        """Raise ForeignRequestError for a name that a foreign page gave this address, and for the page itself."""
        given = request.headers.getall(hdrs.HOST, [])
        host = read_authority(given[0]) if len(given) == 1 else None
        if not self._is_own(host):
            raise _foreign(hdrs.HOST, ", ".join(given), host)
        for text in request.headers.getall(hdrs.ORIGIN, []):
            self._check_origin(text, host)

    def check_key(self, request: web.Request) -> None:
        """Note the key's name; raises AuthenticationError without a key of ours."""
        if self._ring is None:
            return
        shown = _keys_of(request)
        if not shown:
            raise AuthenticationError("A key is needed: `Authorization: Bearer KEY`, or `x-api-key: KEY`")
        name = next(filter(None, map(self._ring.name_of, shown)), None)
        if name is None:
            raise AuthenticationError("The key is not one of those that may ask here")
        request[KEY_NAME] = name

    async def read_body(self, request: web.Request) -> None:
        """Read the body, which handlers then have at once; raises where it is too large, too slow, or broken."""
        if not request.body_exists:
            return
        limits = self._limits
        if (request.content_length or 0) > limits.body_bytes:
            raise self._too_large()
        try:
            if request.content.is_eof():  # it came with the headers, so that no time needs to be watched
                await request.read()
                return
            async with asyncio.timeout(limits.body_within_s):
                await _ask_for_body(request)
                await request.read()
        except TimeoutError:
            raise SlowClientError(f"The body did not come within {limits.body_within_s:.0f} s") from None
        except web.HTTPRequestEntityTooLarge:
            raise self._too_large() from None
        except web.RequestPayloadError as error:
            raise InvalidRequestError(f"The body cannot be read: {error}", parameter="body") from error

    def _is_own(self, host: Authority | None) -> bool:
        if not self._is_local and not self._allowed:
            return True
        if host is None:
            return False
        return (self._is_local and host.is_loopback) or self._is_allowed(host.on(self._own_port))

    def _check_origin(self, text: str, host: Authority | None) -> None:
        """Raise ForeignRequestError unless the page is the endpoint's own, or of a host that was allowed."""
        read = read_origin(text)
        if read is None:
            raise _foreign(hdrs.ORIGIN, text, None)
        origin, port = read
        is_own = host is not None and origin.on(port) == host.on(port)
        if not is_own and not self._is_allowed(origin.on(port)):
            raise _foreign(hdrs.ORIGIN, text, origin)

    def _is_allowed(self, host: Authority) -> bool:
        return any(allowed.covers(host) for allowed in self._allowed)

    def _too_large(self) -> BodyTooLargeError:
        limit = self._limits.body_bytes
        return BodyTooLargeError(f"The body is larger than {limit:,} bytes", limit_bytes=limit)


async def _ask_for_body(request: web.Request) -> None:
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun


def _keys_of(request: web.Request) -> list[str]:
    """Return the keys that a request shows: as OpenAI's clients do it, and as Anthropic's do, which may do both."""
    scheme, _, bearer = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    shown = (bearer.strip() if scheme.lower() == "bearer" else "", request.headers.get("x-api-key", ""))
    return [key for key in shown if key]


def _foreign(header: str, value: str, host: Authority | None) -> ForeignRequestError:
    name = "example.com" if host is None else str(host)
    remedy = f"`--allowed-host {name}` lets it in" if host else "it names no host that could be allowed"
    said = f"`{value}`" if value else "missing"
    return ForeignRequestError(f"The header {header} is {said}, which is not this endpoint: {remedy}", parameter=header)


def quiet_logger() -> logging.Logger:
    """Return aiohttp's log of the server without what clients do: it would quote wrong headers, with keys in them."""
    logger = logging.Logger("aiohttp.server")
    logger.parent = logging.getLogger("aiohttp.server")
    logger.addFilter(_is_our_fault)
    return logger


def _is_our_fault(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | ConnectionError))
