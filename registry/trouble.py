"""What stands between this machine and a hub, or between a download and the disk, in the user's words."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.errors import CacheNotWritableError, DiskFullError, OfflineError
from registry.transport import NotReachedError, Proxy, host_of, proxy_of

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
ELSEWHERE = "name a cache folder on another disk with HF_HUB_CACHE, MODELSCOPE_CACHE or LAUNCH_CACHE"


def out_of_reach(url: str, error: BaseException, *, title: str | None = None, hint: str | None = None) -> OfflineError:
    """Return why a server cannot be spoken to: its certificate, the user's proxy, or it is simply not there."""
    host, said = host_of(url), in_words(error)
    if _is_untrusted(error):
        hint = "if a proxy reads the traffic here, name its certificates: SSL_CERT_FILE=/path/to/certificates.pem"
        hint += " (for ModelScope also REQUESTS_CA_BUNDLE)"
        return OfflineError(f"The certificate of `{host}` is not trusted", details=[said], hint=hint)
    if (proxy := proxy_of(url)) is not None:
        return _proxy_trouble(proxy, host, said, wants_login="407" in _chain(error))
    return OfflineError(f"{title or f'`{host}`'} is out of reach", details=[f"{host}: {said}"], hint=hint)


def is_refused(error: BaseException) -> bool:
    """Return whether trying again cannot help: a certificate is not trusted, or a proxy wants a login."""
    return _is_untrusted(error) or (isinstance(error, NotReachedError) and "407" in str(error))


def _is_untrusted(error: BaseException) -> bool:
    return "CERTIFICATE_VERIFY_FAILED" in _chain(error)


def _proxy_trouble(proxy: Proxy, host: str, said: str, *, wants_login: bool) -> OfflineError:
    asked = "wants a login" if wants_login else "does not let us through"
    return OfflineError(
        f"The proxy `{proxy.shown}` {asked}",
        details=[f"`{proxy.variable}` names it", f"{host}: {said}"],
        hint=f"correct or unset {proxy.variable}, or name the host in NO_PROXY",
    )


def in_words(error: BaseException) -> str:
    """Return what went wrong between here and a server: by what the system said, where a client wraps that."""
    import socket  # both take a while, and are seldom needed
    import ssl

    for link in _links(error):
        if isinstance(link, ssl.SSLCertVerificationError):
            return link.verify_message
        if isinstance(link, socket.gaierror):
            return f"no address is known for this name ({link.strerror})"
        if isinstance(link, TimeoutError):
            return "it did not answer in time"
        if isinstance(link, OSError) and link.errno is not None and not isinstance(link, ssl.SSLError):
            return os.strerror(link.errno)
    return _chain(error)


def _chain(error: BaseException) -> str:
    """Return what an error says; some clients say nothing themselves, but what they met does."""
    return next((str(link) for link in _links(error) if str(link)), type(error).__name__)


def _links(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what it was raised from, and so on."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def check_room(folder: Path, needed_bytes: int) -> None:
    """Raise DiskFullError unless the disk of `folder`, which need not exist yet, has room for so many bytes."""
    existing = _existing(folder)
    if shutil.disk_usage(existing).free < needed_bytes:
        raise _disk_full(existing, needed_bytes)


def prepare(folder: Path, needed_bytes: int) -> None:
    """Make a folder that is to take so many bytes; raises CacheNotWritableError, or DiskFullError before any comes."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):  # it would count as full where the whole disk is read-only
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    check_room(folder, needed_bytes)


@contextmanager
def writing(folder: Path, needed_bytes: int = 0) -> Iterator[None]:
    """Say in the user's words what the disk of `folder` refuses: DiskFullError or CacheNotWritableError."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise _disk_full(_existing(folder), needed_bytes) from error
        if error.errno in _READ_ONLY:
            raise _not_writable(Path(error.filename or folder), error) from error
        raise


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _disk_full(folder: Path, needed_bytes: int) -> DiskFullError:
    free = shutil.disk_usage(folder).free
    return DiskFullError(
        f"The disk of `{folder}` has {_size(free)} free, {_size(needed_bytes)} are needed",
        needed_bytes=needed_bytes,
        free_bytes=free,
        hint=f"make room, or {ELSEWHERE}; what came so far is kept",
    )


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 10_000_000 else f"{size_bytes / 1e6:.2f} MB"


def _not_writable(path: Path, error: OSError) -> CacheNotWritableError:
    return CacheNotWritableError(f"`{path}` cannot be written: {error.strerror}", path=str(path), hint=ELSEWHERE)
