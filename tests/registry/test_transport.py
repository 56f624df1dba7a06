"""Certificates and proxies: the user's variables are honoured, and named where they are in the way."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from registry.digest import Digest
from registry.errors import DownloadError, OfflineError
from registry.fetcher import fetch
from registry.remote_bytes import Download, Limits
from registry.transport import Proxy, proxy_of, same_origin, without_secrets

CONTENT = b"weights" * 1000
LIMITS = Limits(attempts=2, first_pause_s=0.01, timeout_s=2)


class Secure(NamedTuple):
    """A server whose certificate only `certificate` vouches for."""

    url: str
    certificate: Path

    def fetch(self, folder: Path) -> Path:
        digest = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())
        download = Download("x", self.url, folder / "x", len(CONTENT), digest)
        fetch(download, lambda *told: None, LIMITS)
        return download.target


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: a client that does not trust it hangs up."""


def write_certificate(folder: Path) -> Path:
    """Write a key and a certificate that it signed itself, for 127.0.0.1, into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "here")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "certificate.pem"
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Secure]:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    path = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with Quiet(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield Secure(f"https://127.0.0.1:{server.server_port}/x", path)
        server.shutdown()


def test_a_certificate_that_nobody_here_trusts(secure: Secure, tmp_path: Path) -> None:
    with pytest.raises(OfflineError, match=r"The certificate of `127\.0\.0\.1` is not trusted") as caught:
        secure.fetch(tmp_path)
    assert "SSL_CERT_FILE=" in str(caught.value.hint)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_certificate_that_the_user_names(
    secure: Secure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(secure.certificate))
    assert secure.fetch(tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_variable_that_names_no_certificates(
    secure: Secure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    path = tmp_path / "corporate.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(DownloadError, match=r"`SSL_CERT_FILE` names `.*`, which holds no certificates"):
        secure.fetch(tmp_path)


# --- proxies ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("no_proxies")
def test_a_proxy_is_read_as_every_other_program_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_of("https://hub.example/x") is None
    monkeypatch.setenv("ALL_PROXY", "proxy.example:3128")
    assert proxy_of("https://hub.example/x") == Proxy("http://proxy.example:3128", "ALL_PROXY")
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy.example:8080")
    found = proxy_of("https://hub.example/x")
    assert found is not None
    assert (found.variable, found.shown) == ("https_proxy", "http://proxy.example:8080")
    monkeypatch.setenv("no_proxy", ".example")
    assert proxy_of("https://hub.example/x") is None


@pytest.mark.usefixtures("no_proxies")
def test_a_proxy_of_another_kind_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")
    with pytest.raises(DownloadError, match=r"`socks5://127\.0\.0\.1:9` is none of HTTP") as caught:
        fetch(Download("x", "http://hub.example/x", tmp_path / "x", 1, None), lambda *told: None, LIMITS)
    assert "http_proxy" in str(caught.value.hint)


class Locked(Handler):
    def do_GET(self) -> None:
        self.send_response(407)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.mark.usefixtures("no_proxies")
def test_a_proxy_that_wants_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Quiet(("127.0.0.1", 0), Locked) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(OfflineError, match="wants a login") as caught:
            fetch(Download("x", "http://hub.example/x", tmp_path / "x", 1, None), lambda *told: None, LIMITS)
        server.shutdown()
    assert "`http_proxy` names it" in caught.value.details


def test_origins_and_secrets() -> None:
    assert same_origin("https://hub.example/a", "https://hub.example:443/b")
    assert not same_origin("https://hub.example/a", "http://hub.example/a")
    assert not same_origin("https://hub.example/a", "https://cdn.hub.example/a")
    assert without_secrets({"Authorization": "x", "cookie": "y", "Range": "z"}) == {"Range": "z"}
