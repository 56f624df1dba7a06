"""The endpoint's certificate: whether its files can serve, said in words, and the context that serves with them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from registry.errors import ExposureError

if TYPE_CHECKING:
    from launcher.exposure import Certificate


def check_certificate(certificate: Certificate) -> None:
    """Raise ExposureError if clients could not trust what these files make: they must match and be valid today."""
    _try_handshake(serving_context(certificate), certificate)


def serving_context(certificate: Certificate) -> ssl.SSLContext:
    """Return what serves with this certificate; raises ExposureError where the files are not that."""
    for path in certificate:
        _check_readable(path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(*certificate, password=lambda: _refuse_password(certificate.private_key))
    except ssl.SSLError as error:
        raise _mismatch(certificate, error) from error
    return context


def _check_readable(path: Path) -> None:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ExposureError(f"`{path}` cannot be read: {error.strerror}") from error
    if b"-----BEGIN " not in data:
        raise ExposureError(f"`{path}` is not a PEM file", hint=f"openssl x509 -inform der -in {path} -out {path}.pem")


def _refuse_password(path: Path) -> NoReturn:
    # OpenSSL would ask for it on the terminal, also where nobody sits.
    raise ExposureError(f"The key in `{path}` has a password", hint=f"openssl pkey -in {path} -out {path}.plain")


def _mismatch(certificate: Certificate, error: ssl.SSLError) -> ExposureError:
    chain, private_key = certificate
    if error.reason == "KEY_VALUES_MISMATCH":
        return ExposureError(f"The key in `{private_key}` is not that of the certificate in `{chain}`")
    what = (error.reason or str(error)).lower().replace("_", " ")
    return ExposureError(f"`{chain}` and `{private_key}` are not a certificate and its key: {what}")


def _try_handshake(server: ssl.SSLContext, certificate: Certificate) -> None:
    """Let a client that trusts this certificate shake hands with it, in memory: Python has no other way to read one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # whoever issued it is not at question
    context.load_verify_locations(certificate.chain)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = context.wrap_bio(to_client, to_server)
    try:
        while not all([_step(theirs), _step(ours)]):
            pass
    except ssl.SSLCertVerificationError as error:
        raise ExposureError(f"No client trusts `{certificate.chain}`: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise _mismatch(certificate, error) from error


def _step(side: ssl.SSLObject) -> bool:
    """Do what one side can do now; return whether it is done."""
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
