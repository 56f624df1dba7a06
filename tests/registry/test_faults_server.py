"""What servers do wrong, through both hubs' clients: ranges, broken connections, changed and wrong files, waits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from registry.digest import Digest
from registry.errors import DigestError, DownloadError
from registry.fetcher import fetch
from registry.partial import Partial
from registry.remote_bytes import Download, Limits, RefusedError
from tests.fakes.faults import Trial, Trials
from tests.fakes.hub import Fault, HubServer
from tests.fakes.weights import NAME, REPO
from tests.registry.pulls import CONTENT, GONE, LARGE, OTHER_CONTENT, Pulls, said, whole

pytestmark = pytest.mark.downloads

SOME = 700_000


@pytest.fixture(params=["huggingface", "modelscope"])
def pulls(request: pytest.FixtureRequest, hub: HubServer, trials: Trials[Trial], tmp_path: Path) -> Pulls:
    return Pulls(hub, request.param, trials, tmp_path / "home")


# --- 1: ranges -------------------------------------------------------------------------------------------------------


def test_a_server_that_knows_no_ranges_after_all(pulls: Pulls) -> None:
    pulls.interrupt(SOME)
    pulls.hub.breaks(NAME, Fault("norange", times=None))
    pulls.pull()
    assert "starting over" in " ".join(progress.text for progress in pulls.told)
    pulls.add(1, "a part is here; the rest is asked for, all is sent with status 200", whole(pulls, "started over"))


def test_a_server_without_ranges_in_a_parallel_download(pulls: Pulls) -> None:
    pulls.commit = pulls.publish(LARGE)
    pulls.hub.breaks(NAME, Fault("norange", times=None))
    pulls.pull()
    pulls.add(1, "several ranges at once, each answered with the whole file", whole(pulls, "one connection instead"))


def test_a_server_that_sends_another_range(pulls: Pulls) -> None:
    pulls.interrupt(SOME)
    pulls.hub.breaks(NAME, Fault("misrange"))
    pulls.pull()
    pulls.add(1, "the rest is asked for, another range is sent with status 206", whole(pulls, "started over"))


def test_a_server_without_ranges_that_breaks_off(pulls: Pulls) -> None:
    pulls.hub.breaks(NAME, Fault("cut", after_bytes=SOME), Fault("norange", times=None))
    pulls.pull()
    pulls.add(1, "cut in the middle, and the rest cannot be asked for", whole(pulls, "started over"))


# --- 2: connections --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cut", "reset"])
def test_a_broken_connection(pulls: Pulls, kind: str) -> None:
    how = {"cut": "closed in the middle, twice", "reset": "reset in the middle, twice"}[kind]
    pulls.hub.breaks(NAME, Fault("cut" if kind == "cut" else "reset", times=2, after_bytes=SOME))
    pulls.pull()
    assert len(pulls.retries()) == 2
    needed = len(CONTENT) if kind == "cut" else None  # a reset loses what was on its way
    pulls.add(2, how, whole(pulls, "went on where it ended"), needed_bytes=needed)


def test_a_broken_connection_of_several(pulls: Pulls) -> None:
    pulls.commit = pulls.publish(LARGE)
    pulls.hub.breaks(NAME, Fault("cut", after_bytes=SOME))
    pulls.pull()
    tried = "one of several connections closed in the middle"
    pulls.add(2, tried, whole(pulls, "its range went on where it ended"), needed_bytes=len(LARGE))


def test_a_connection_that_never_holds(pulls: Pulls, hub: HubServer) -> None:
    pulls.interrupt(SOME)
    assert not pulls.is_whole()
    pulls.pull()
    tried = "ended in the middle for good; pulled again later"
    pulls.add(2, tried, whole(pulls, "went on where it ended"), needed_bytes=len(CONTENT) - SOME)


# --- 3: partial files ------------------------------------------------------------------------------------------------


def test_a_partial_file_that_is_too_long(pulls: Pulls) -> None:
    pulls.interrupt(SOME)
    (path,) = pulls.home.rglob("*.partial")
    path.write_bytes(b"?" * (len(CONTENT) + 1))
    pulls.pull()
    pulls.add(3, "one byte longer than the file", whole(pulls, "discarded, fetched anew"), needed_bytes=len(CONTENT))


def test_a_partial_file_with_other_bytes(pulls: Pulls) -> None:
    pulls.interrupt(SOME)
    (path,) = pulls.home.rglob("*.partial")
    path.write_bytes(b"?" * SOME)
    pulls.pull()
    needed = 2 * len(CONTENT) - SOME
    pulls.add(3, "other bytes in the part that is here", whole(pulls, "found out, fetched anew"), needed_bytes=needed)


# --- 4: changes ------------------------------------------------------------------------------------------------------


def test_a_branch_that_moves_between_two_runs(pulls: Pulls) -> None:
    pulls.interrupt(SOME, revision=None)
    pulls.publish(OTHER_CONTENT)
    pulls.pull(None)
    assert pulls.is_whole()
    tried, happened = "interrupted; the branch moves on; pulled again", "the newer file, from its first byte on"
    pulls.add(4, tried, happened, needed_bytes=len(OTHER_CONTENT))


def test_a_branch_that_moves_behind_a_pin(pulls: Pulls) -> None:
    pulls.interrupt(SOME)
    pulls.publish(OTHER_CONTENT)
    pulls.pull()
    pulls.content = CONTENT
    tried = "interrupted; the branch moves on; the pinned commit is pulled again"
    pulls.add(4, tried, whole(pulls, "the pinned file, gone on with"), needed_bytes=len(CONTENT) - SOME)


def test_other_bytes_behind_the_pinned_commit(pulls: Pulls) -> None:
    pulls.interrupt(SOME)
    pulls.hub.swap(REPO, NAME, OTHER_CONTENT)
    error = pulls.fails(DigestError)
    pulls.content = CONTENT
    pulls.add(4, "interrupted; the server has other bytes for the pinned commit", said(pulls, error))


@pytest.mark.parametrize("is_interrupted", [True, False])
def test_a_file_that_nobody_vouches_for_changes(
    hub: HubServer, trials: Trials[Trial], tmp_path: Path, is_interrupted: bool
) -> None:
    hub.add_repo(REPO, {NAME: CONTENT})
    url = f"{hub.huggingface_url}/{REPO}/resolve/main/{NAME}"
    download = Download(NAME, url, tmp_path / NAME, len(CONTENT), None)
    if is_interrupted:
        hub.breaks(NAME, Fault("cut", after_bytes=SOME), GONE)
        with pytest.raises(RefusedError):
            fetch(download, lambda *told: None, Limits(first_pause_s=0))
        hub.faults.clear()
        hub.add_repo(REPO, {NAME: OTHER_CONTENT})
        tried = "no checksum is known; interrupted; another ETag with the rest"
    else:
        hub.breaks(NAME, Fault("cut", after_bytes=SOME))
        tried = "no checksum is known; another ETag in the same run"

    def told(done_bytes: int, note: str = "") -> None:
        if "retrying" in note:
            hub.add_repo(REPO, {NAME: OTHER_CONTENT})
            hub.breaks(NAME, Fault("status", status=403))  # what was signed for the older file

    fetch(download, told, Limits(first_pause_s=0.3))
    assert download.target.read_bytes() == OTHER_CONTENT
    corrupt = int(download.target.read_bytes() not in (CONTENT, OTHER_CONTENT))
    trials.add(Trial(4, "an address", tried, "started over; the newer file, whole", corrupt, None))


# --- 5: wrong bytes --------------------------------------------------------------------------------------------------


def test_a_wrong_byte_always(pulls: Pulls) -> None:
    pulls.hub.flip_byte(NAME)
    error = pulls.fails(DigestError)
    assert pulls.leftovers() == []
    pulls.add(5, "one bit is wrong, every time", said(pulls, error), needed_bytes=2 * len(CONTENT))


def test_a_wrong_byte_once(pulls: Pulls) -> None:
    pulls.hub.breaks(NAME, Fault("flip", after_bytes=SOME))
    pulls.pull()
    assert "wrong bytes" in " ".join(progress.text for progress in pulls.told)
    pulls.add(5, "one bit is wrong, once", whole(pulls, "fetched again, once"), needed_bytes=2 * len(CONTENT))


def test_a_wrong_byte_in_one_of_several_ranges(pulls: Pulls) -> None:
    pulls.commit = pulls.publish(LARGE)
    pulls.hub.breaks(NAME, Fault("flip", after_bytes=SOME))
    pulls.pull()
    tried = "one bit is wrong in one of several ranges, once"
    pulls.add(5, tried, whole(pulls, "fetched again, once"), needed_bytes=2 * len(LARGE))


def test_another_size_than_listed(pulls: Pulls) -> None:
    pulls.hub.swap(REPO, NAME, CONTENT[:-1])
    error = pulls.fails(DigestError)
    pulls.content = CONTENT
    pulls.add(5, "a byte less than the hub lists", said(pulls, error))


# --- 6: redirects ----------------------------------------------------------------------------------------------------


def test_a_redirect_carries_no_token(pulls: Pulls, monkeypatch: pytest.MonkeyPatch) -> None:
    pulls.publish(token="secret", gated=True)
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "secret")
    pulls.pull()
    asked = [request for request in pulls.hub.requests if request.origin == "hub" and NAME in request.path]
    assert any("secret" in request.headers.get("Authorization", "") for request in asked)
    elsewhere = [request for request in pulls.hub.requests if request.origin == "cdn"]
    assert elsewhere
    assert not any("secret" in f"{request.headers} {request.path}" for request in elsewhere)
    pulls.add(6, "the hub sends a client with a token to its CDN", whole(pulls, "no token and no cookie went there"))


def test_a_redirect_that_comes_back_carries_no_token(pulls: Pulls, monkeypatch: pytest.MonkeyPatch) -> None:
    pulls.publish(token="secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "secret")
    back = f"{pulls.hub.huggingface_url}/api/resolve-cache/models/{REPO}/{pulls.commit}/{NAME}"
    pulls.hub.breaks(NAME, Fault("redirect", location=back))
    pulls.pull()
    (last,) = (request for request in pulls.hub.requests if "resolve-cache" in request.path)
    assert not {"authorization", "cookie"} & {name.lower() for name in last.headers}
    pulls.add(6, "the CDN sends it back to the hub", whole(pulls, "no token and no cookie went there"))


def test_a_redirect_to_another_scheme(pulls: Pulls) -> None:
    pulls.hub.breaks(NAME, Fault("redirect", location="file:///etc/passwd", times=None))
    error = pulls.fails(DownloadError)
    pulls.add(6, "the CDN sends it to a `file:` address", said(pulls, error))


def test_an_address_that_expires(pulls: Pulls) -> None:
    pulls.hub.breaks(NAME, Fault("cut", after_bytes=SOME), Fault("status", status=403))
    pulls.pull()
    tried = "the CDN's signed address expires in the middle"
    pulls.add(6, tried, whole(pulls, "asked the hub for a fresh one"), needed_bytes=len(CONTENT))


# --- 11: waits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stall", "drip"])
def test_a_server_that_is_silent_or_slow(pulls: Pulls, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.5")
    monkeypatch.setenv("MODELSCOPE_DOWNLOAD_TIMEOUT", "0.5")
    pulls.hub.breaks(NAME, Fault("stall" if kind == "stall" else "drip", after_bytes=SOME))
    pulls.pull()
    (retry,) = pulls.retries()
    tried, seen = {
        "stall": ("silent in the middle", "retrying in 0.5 s: `localhost` was silent for 0.5 s"),
        "drip": ("10 bytes a second from the middle on", "retrying in 0.5 s: only"),
    }[kind]
    assert retry.startswith(seen)
    needed = len(CONTENT) if kind == "stall" else None  # bytes that drip while it hangs up are lost
    pulls.add(11, tried, whole(pulls, "another connection went on where it was, and said so"), needed_bytes=needed)


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_for_patience(pulls: Pulls, status: int) -> None:
    pulls.hub.breaks(NAME, Fault("status", status=status, retry_after="1"))
    pulls.pull()
    assert pulls.retries() == [f"retrying in 1 s: `localhost` answered HTTP {status}"]
    tried = f"status {status} with Retry-After"
    pulls.add(11, tried, whole(pulls, "waited as long as was asked, and said so"), needed_bytes=len(CONTENT))


def test_a_file_of_many_faults(pulls: Pulls) -> None:
    pulls.commit = pulls.publish(LARGE)
    pulls.hub.breaks(
        NAME,
        Fault("status", status=500),
        Fault("cut", after_bytes=SOME),
        Fault("status", status=403),
        Fault("cut", after_bytes=SOME, times=2),
    )
    pulls.pull()
    tried = "status 500, a cut, status 403 and two cuts more in one download"
    pulls.add(11, tried, whole(pulls, "tried again each time"), needed_bytes=len(LARGE))


def test_the_checksum_is_of_the_bytes_that_stay(hub: HubServer, tmp_path: Path) -> None:
    """A server without ranges that sends other bytes the second time must not slip them under the checksum."""
    hub.add_repo(REPO, {NAME: CONTENT})
    url = f"{hub.huggingface_url}/{REPO}/resolve/main/{NAME}"
    digest = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())
    download = Download(NAME, url, tmp_path / NAME, len(CONTENT), digest)
    partial = Partial(download.target, len(CONTENT), digest)
    partial.write(0, CONTENT[:10])
    partial.close()
    hub.breaks(NAME, Fault("norange", times=2, after_bytes=SOME), Fault("norange", times=None))

    def told(done_bytes: int, note: str = "") -> None:
        if "retrying" in note:
            hub.flip_byte(NAME)
            hub.repos[REPO].files[NAME] = hub.repos[REPO].files[NAME]._replace(flipped=SOME // 2)

    fetch(download, told, Limits(first_pause_s=0.3))
    assert download.target.read_bytes() == CONTENT
