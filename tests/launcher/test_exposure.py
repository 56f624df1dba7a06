"""Who may ask, as users say it: keys, hosts, certificates; what is wrong is refused before anything is started."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.authority import Authority, read_authority, read_origin
from launcher.exposure import Exposure, read_exposure
from launcher.keys import KeyRing, key_of, read_key_file
from registry.errors import ExposureError
from tests.fakes.certificates import make_certificate
from tests.launcher.commands import Run, processes_with, started, wait_for_event

ECHO = ("mistral-instruct-v0.2", "--engine", "echo", "--port", "0")
SECRET = "sk-abcdefghijklmnopqrstuvwxyz"


def write_keys(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "keys.txt"
    path.write_text(text)
    path.chmod(mode)
    return path


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_file_has_a_key_a_line_with_or_without_a_name(tmp_path: Path) -> None:
    path = write_keys(tmp_path, f"# for the team\n\nalice@work: {SECRET}\n  {SECRET}2  \nwith:colon-{SECRET}\n")
    assert [key.name for key in read_key_file(path)] == ["alice@work", "sk-abc…", "with:c…"]
    ring = KeyRing(read_key_file(path))
    assert ring.name_of(SECRET) == "alice@work"
    assert ring.name_of(f"with:colon-{SECRET}") == "with:c…"
    assert ring.name_of("alice@work") is None
    assert ring.name_of(f"alice@work: {SECRET}") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nobody\n", "There is no key in `{}`"),
        (f"{SECRET} {SECRET}\n", "The key from line 1 of `{}` cannot stand in a header"),
        (f"ok\nname: {SECRET}ü\n", "The key from line 2 of `{}` cannot stand in a header"),
    ],
)
def test_a_bad_file_is_named_and_no_key_shown(tmp_path: Path, text: str, message: str) -> None:
    path = write_keys(tmp_path, text)
    with pytest.raises(ExposureError, match=re.escape(message.format(path))) as raised:
        read_key_file(path)
    assert SECRET not in str(raised.value)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExposureError, match="cannot be read: No such file or directory"):
        read_key_file(tmp_path / "none")
    (tmp_path / "keys.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ExposureError, match="cannot be read: the file is not text"):
        read_key_file(tmp_path / "keys.bin")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_of_a_key_little_is_shown(secret: str) -> None:
    key = key_of(secret, origin="a test")
    assert len(key.name) <= 1 + len(secret) // 4
    assert len(key.name) <= 7
    assert secret.startswith(key.name.removesuffix("…"))
    shown = repr(Exposure(keys=(key,)))
    assert shown == repr(Exposure(keys=(key._replace(digest=b""),)))  # neither the key nor what it could be tried by


def test_others_who_can_read_the_keys_are_a_warning(tmp_path: Path) -> None:
    path = write_keys(tmp_path, SECRET, mode=0o644)
    assert read_exposure(key_file=path).warnings == (
        f"others on this machine can read the keys in `{path}`: chmod 600 {path}",
    )
    path.chmod(0o600)
    assert read_exposure(key_file=path).warnings == ()


# --- where it answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.1.1", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_this_machine_alone_needs_no_key(host: str) -> None:
    assert read_exposure(host=host).is_local
    assert read_exposure(host=host).warnings == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gpu1.example.com", "localhost.example.com"])
def test_where_others_can_ask_a_key_is_needed_or_a_second_word(host: str) -> None:
    with pytest.raises(ExposureError, match="nobody would be asked for a key"):
        read_exposure(host=host)
    assert read_exposure(host=host, keys=[key_of(SECRET, origin="a test")]).warnings == ()
    assert read_exposure(host=host, without_key=True).warnings == (
        f"everybody who can reach `{host}` may ask: no key is wanted",
    )


def test_the_hint_makes_a_key_that_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ExposureError) as raised:
        read_exposure(host="0.0.0.0")
    assert raised.value.hint is not None
    command, rest = raised.value.hint.split(", then ")
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    path = tmp_path / rest.split()[-1]
    exposure = read_exposure(host="0.0.0.0", key_file=path)
    assert (len(exposure.keys), exposure.warnings) == (1, ())
    assert KeyRing(exposure.keys).name_of(path.read_text().strip()) == exposure.keys[0].name


def test_a_key_and_the_word_that_there_is_none_contradict(tmp_path: Path) -> None:
    with pytest.raises(ExposureError, match="`--no-api-key` says that nobody is asked for a key, and a key is given"):
        read_exposure(keys=[key_of(SECRET, origin="a test")], without_key=True)


@pytest.mark.parametrize(
    ("host", "message", "hint"),
    [
        ("", "`--host` is empty", None),
        ("0.0.0.0:8000", "`--host` has a port: `0.0.0.0:8000`", "--host 0.0.0.0 --port 8000"),
        ("http://gpu1", "`http://gpu1` is not an address to listen on", None),
        ("fe80::x", "`fe80::x` is not an address to listen on", None),
    ],
)
def test_what_is_no_host_is_refused(host: str, message: str, hint: str | None) -> None:
    with pytest.raises(ExposureError, match=re.escape(message)) as raised:
        read_exposure(host=host)
    assert raised.value.hint == hint


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000/v1"),
        ("::1", "http://[::1]:8000/v1"),
        ("localhost", "http://localhost:8000/v1"),
        ("gpu1.example.com", "http://gpu1.example.com:8000/v1"),
        ("0.0.0.0", "http://127.0.0.1:8000/v1"),
        ("::", "http://127.0.0.1:8000/v1"),
    ],
)
def test_the_url_is_one_that_clients_can_use(host: str, url: str) -> None:
    assert Exposure(host=host).url(8000) == url


@pytest.mark.parametrize("text", ["", "*", "http://example.com", "example.com:99999", "a b", "example.com:"])
def test_what_is_no_allowed_host_is_refused(text: str) -> None:
    with pytest.raises(ExposureError, match=re.escape(f"takes a name, perhaps with a port, not `{text}`")):
        read_exposure(allowed_hosts=[text])


# --- names of hosts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("Example.COM.", "example.com", None),
        ("bücher.example:81", "xn--bcher-kva.example", 81),
        ("[0:0::1]:8000", "::1", 8000),
        ("host.docker.internal:8000", "host.docker.internal", 8000),
    ],
)
def test_a_name_is_read_in_one_way(text: str, host: str, port: int | None) -> None:
    assert read_authority(text) == Authority(host, port)


@given(st.text())
def test_only_names_of_this_machine_are_its_own(text: str) -> None:
    read = read_authority(text)
    if read is not None and read.is_loopback:
        assert re.fullmatch(r"(localhost\.*|127(\.\d{1,3}){3}\.*|\[[0:]*(ffff:)?[0-9a-f:.]+\])(:\d{1,5})?", text, re.I)
        assert read_authority(str(read)) == read


@given(
    st.from_regex(r"(localhost|127\.0\.0\.[0-9]|\[::1\]|\[::ffff:127\.0\.0\.1\])(:[1-9][0-9]{0,3})?", fullmatch=True)
)
def test_names_of_this_machine_are_its_own(text: str) -> None:
    for written in (text, text.upper()):
        read = read_authority(written)
        assert read is not None
        assert read.is_loopback


@given(st.sampled_from(["127.0.0.1", "localhost"]), st.text(st.characters(codec="ascii"), min_size=1))
def test_a_name_that_only_begins_so_is_foreign(own: str, more: str) -> None:
    for text in (own + more, more + own):
        read = read_authority(text)
        is_own = read is not None and read.is_loopback
        assert not is_own or re.fullmatch(r"(localhost\.*|127(\.\d{1,3}){3}\.*)(:\d{1,5})?", text, re.I)


@pytest.mark.parametrize("text", ["null", "", "file://", "example.com", "http://a/b", "http://a b"])
def test_what_is_no_origin_is_none(text: str) -> None:
    assert read_origin(text) is None


# --- certificates ----------------------------------------------------------------------------------------------------


def test_a_certificate_with_its_key_serves_https(tmp_path: Path) -> None:
    chain, private_key = make_certificate(tmp_path)
    exposure = read_exposure(tls_cert=chain, tls_key=private_key)
    assert exposure.url(8000) == "https://127.0.0.1:8000/v1"


def test_one_file_may_hold_both(tmp_path: Path) -> None:
    chain, private_key = make_certificate(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(private_key.read_bytes() + chain.read_bytes())
    assert read_exposure(tls_cert=both, tls_key=both).certificate is not None


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    chain, private_key = make_certificate(tmp_path)
    with pytest.raises(ExposureError, match="`--tls-cert` needs `--tls-key` too"):
        read_exposure(tls_cert=chain)
    with pytest.raises(ExposureError, match="`--tls-key` needs `--tls-cert` too"):
        read_exposure(tls_key=private_key)


@pytest.mark.parametrize(("days", "message"), [(-9, "certificate has expired"), (9, "certificate is not yet valid")])
def test_a_certificate_of_another_time_is_refused(tmp_path: Path, days: int, message: str) -> None:
    chain, private_key = make_certificate(tmp_path, begins_in_days=days)
    with pytest.raises(ExposureError, match=f"No client trusts `{chain}`: {message}"):
        read_exposure(tls_cert=chain, tls_key=private_key)


def test_files_that_are_no_certificate_and_its_key_are_named(tmp_path: Path) -> None:
    chain, private_key = make_certificate(tmp_path)
    other = make_certificate(tmp_path, "other")
    secret = make_certificate(tmp_path, "secret", password="word")
    binary = tmp_path / "cert.der"
    binary.write_bytes(b"\x30\x82")
    for files, message in (
        ((chain, other.private_key), f"The key in `{other.private_key}` is not that of the certificate in `{chain}`"),
        ((tmp_path / "none", private_key), f"`{tmp_path / 'none'}` cannot be read: No such file or directory"),
        ((binary, private_key), f"`{binary}` is not a PEM file"),
        ((private_key, private_key), f"`{private_key}` and `{private_key}` are not a certificate and its key"),
        ((secret.chain, secret.private_key), f"The key in `{secret.private_key}` has a password"),
    ):
        with pytest.raises(ExposureError, match=re.escape(message)):
            read_exposure(tls_cert=files[0], tls_key=files[1])


# --- on the command line ---------------------------------------------------------------------------------------------


def test_an_open_endpoint_without_a_key_is_wrong_usage(run: Run) -> None:
    done = run(*ECHO, "--host", "0.0.0.0")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "error: `0.0.0.0` can be reached by other machines, and nobody would be asked for a key\n"
        "  `--api-key-file FILE` has the keys that may ask, one a line\n"
        "  `--no-api-key` if everybody who can reach it may ask\n\n"
        "hint: (umask 077; head -c 24 /dev/urandom | base64 > launch.key),"
        " then the same with --api-key-file launch.key\n"
    )


def test_variables_say_it_too(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAUNCH_HOST", "0.0.0.0")
    assert "`0.0.0.0` can be reached by other machines" in run(*ECHO).err
    monkeypatch.setenv("LAUNCH_API_KEY", SECRET)
    monkeypatch.setenv("LAUNCH_NO_API_KEY", "1")
    done = run(*ECHO, "--json")
    assert (done.code, done.events[-1]["kind"]) == (2, "exposure")
    assert SECRET not in done.out + done.err
    monkeypatch.delenv("LAUNCH_API_KEY")
    monkeypatch.setenv("LAUNCH_ALLOWED_HOST", "good.example *")
    assert "not `*`" in run(*ECHO).err


@pytest.mark.parametrize("option", ["--api-key", "-ak"])
def test_a_key_that_cannot_be_one_is_not_shown(run: Run, option: str) -> None:
    done = run(*ECHO, option, f"{SECRET} {SECRET}")
    assert done.code == 2
    assert "The key from `--api-key` cannot stand in a header" in done.err
    assert SECRET not in done.err


def test_keys_are_shown_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_file, in_variable = f"{SECRET}-in-a-file", f"{SECRET}-in-a-variable"
    monkeypatch.setenv("LAUNCH_API_KEY", in_variable)
    arguments = ("--api-key-file", str(write_keys(tmp_path, f"alice: {in_file}")), "--access-log", "on", "--json", "-v")
    with started(*ECHO, *arguments) as process:
        url = wait_for_event(process, "ready")["url"]
        statuses = [status_of(f"{url}/models", f"Bearer {key}") for key in (in_file, in_variable, f"{SECRET}-wrong")]
        statuses.append(status_of(f"{url}/models", f"Bearer {SECRET}\x01"))
        shown = [text_of(f"/proc/{pid}/cmdline") for pid in launched()]
        shown += [text_of(f"/proc/{pid}/environ") for pid in launched() if pid != process.pid]
        process.terminate()
        out, err = process.communicate(timeout=30)
    assert statuses == [200, 200, 401, 400]
    noted = [json.loads(line).get("key") for line in err.splitlines() if line.startswith("{")]
    assert noted == ["alice", "sk-abc…", None]
    written = [path.read_text(errors="replace") for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert not [text for text in (out, err, *shown, *written) if SECRET in text]


def launched() -> list[int]:
    return processes_with("XDG_RUNTIME_DIR", os.environ["XDG_RUNTIME_DIR"])


def text_of(path: str) -> str:
    return Path(path).read_text(errors="replace")


def status_of(url: str, authorization: str) -> int:
    """Return the status of a request with this header, whose value is sent as it is."""
    address = urlsplit(url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), 10) as client:
        head = f"GET {address.path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\r\n"
        client.sendall(head.encode())
        return int(client.recv(65536).split()[1])


def test_other_programs_words_are_understood(run: Run) -> None:
    assert "it is `--tls-cert` here" in run(*ECHO, "--ssl-certfile", "x").err
    assert "put `--api-key-file` before the `--`" in run(*ECHO, "--", "--api-key-file", "x").err
