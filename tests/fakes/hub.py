"""A hub on this machine: speaks Hugging Face's and ModelScope's protocols to their unmodified clients, and to ours.

Two origins, as in life: the hub on 127.0.0.1, and a CDN on localhost that large files are redirected to. What a
repo holds, who may see it and what goes wrong on the way is said by the test; what was asked is in `requests`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Literal, NamedTuple, NoReturn, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

CHUNK_BYTES = 1 << 16
FAST_BYTES = 1 << 18  # what is sent at once of a file on disk
LATE_S = 0.01
LFS_SUFFIXES = (".gguf", ".safetensors", ".bin", ".pt")


@dataclass(frozen=True)
class Fault:
    """What goes wrong when a file's bytes are asked for, the next `times` times (None: always).

    `cut`, `reset`, `stall` and `drip` (a byte now and then) happen `after_bytes` of the answer's body; `flip` sends the
    byte there wrong; `status` answers with that status instead, and with `retry_after`; `norange` sends the whole file
    whatever range was asked for, or its first `after_bytes` where there are any; `misrange` sends another range than
    that; `redirect` sends the client to `location`.
    """

    kind: Literal["cut", "reset", "stall", "drip", "flip", "status", "norange", "misrange", "redirect"]
    times: int | None = 1
    after_bytes: int = 0
    status: int = 503
    retry_after: str | None = None
    location: str = ""


class File(NamedTuple):
    """One file of a repo. `flipped` is the position of a byte that is sent wrong."""

    content: bytes | Path
    size_bytes: int
    sha256: str
    git_sha1: str
    is_lfs: bool
    flipped: int | None = None

    @property
    def sent_size_bytes(self) -> int:
        """The size of what is sent, which need not be what the listing says."""
        return len(self.content) if isinstance(self.content, bytes) else self.size_bytes

    def read(self, start: int, end: int) -> Iterator[bytes]:
        for position in range(start, end, CHUNK_BYTES):
            chunk = bytearray(self._slice(position, min(end, position + CHUNK_BYTES)))
            if self.flipped is not None and position <= self.flipped < position + len(chunk):
                chunk[self.flipped - position] ^= 0x01
            yield bytes(chunk)

    def _slice(self, start: int, end: int) -> bytes:
        if isinstance(self.content, bytes):
            return self.content[start:end]
        with self.content.open("rb") as file:
            file.seek(start)
            return file.read(end - start)


@dataclass
class Repo:
    """One repo at one commit."""

    repo_id: str
    files: dict[str, File]
    commit: str
    branches: tuple[str, ...]
    gated: bool
    private: bool
    token: str | None

    def has(self, revision: str) -> bool:
        return revision == self.commit or revision in self.branches


@dataclass
class LoggedRequest:
    """One request that was answered; `sent_bytes` counts the body."""

    origin: Literal["hub", "cdn"]
    method: str
    path: str
    headers: dict[str, str]
    status: int = 0
    sent_bytes: int = 0


@dataclass
class HubServer:
    """Both hubs at once; `with HubServer() as hub:` starts and stops it."""

    requests: list[LoggedRequest] = field(default_factory=list)
    repos: dict[str, Repo] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    knows_commits: bool = True
    bytes_per_s: int | None = None  # of each connection to the CDN
    cuts_listings: bool = False  # in the middle of their JSON
    has_etags: bool = True  # on the CDN
    on_sent: Callable[[int], None] | None = None  # told of each piece of a file that was sent
    _older: dict[tuple[str, str], Repo] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self._servers = [_Server(self, "hub"), _Server(self, "cdn")]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def huggingface_url(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    @property
    def modelscope_url(self) -> str:
        return self.huggingface_url

    @property
    def cdn_url(self) -> str:
        return f"http://localhost:{self._servers[1].server_port}"

    @property
    def sent_bytes(self) -> int:
        """The bytes of all file contents and listings that were sent."""
        return sum(request.sent_bytes for request in self.requests)

    @property
    def sent_of_files(self) -> int:
        """The bytes of large files' contents that were sent."""
        is_file = ("cdn", 200), ("cdn", 206)
        return sum(request.sent_bytes for request in self.requests if (request.origin, request.status) in is_file)

    def add_repo(
        self,
        repo_id: str,
        files: Mapping[str, bytes | Path],
        *,
        commit: str | None = None,
        branches: tuple[str, ...] = ("main", "master"),
        gated: bool = False,
        private: bool = False,
        token: str | None = None,
    ) -> str:
        """Publish files as the newest commit of a repo, and return that; older commits can still be asked for."""
        held = {path: _file(path, content) for path, content in files.items()}
        commit = commit or hashlib.sha1(repr(sorted((p, f.sha256) for p, f in held.items())).encode()).hexdigest()
        self.repos[repo_id] = Repo(repo_id, held, commit, branches, gated, private, token)
        self._older[repo_id, commit] = self.repos[repo_id]
        return commit

    def repo_at(self, repo_id: str, revision: str) -> Repo | None:
        newest = self.repos.get(repo_id)
        return newest if newest is None or newest.has(revision) else self._older.get((repo_id, revision))

    def sha256(self, repo_id: str, path: str) -> str:
        return self.repos[repo_id].files[path].sha256

    def flip_byte(self, path: str) -> None:
        """Send one wrong byte in the middle of a file from now on; the listings keep saying the right hash."""
        for repo in self.repos.values():
            if path in repo.files:
                repo.files[path] = repo.files[path]._replace(flipped=repo.files[path].size_bytes // 2)

    def swap(self, repo_id: str, path: str, content: bytes) -> None:
        """Send other bytes from now on; the listings keep saying what they said."""
        held = self.repos[repo_id].files[path]
        self.repos[repo_id].files[path] = held._replace(content=content)

    def breaks(self, path: str, *faults: Fault) -> None:
        """Let things go wrong with a file from now on, one after the other."""
        self.faults[path] = list(faults)

    def take_fault(self, path: str) -> Fault | None:
        with self._lock:
            faults = self.faults.get(path)
            if not faults:
                return None
            fault = faults[0]
            if fault.times is not None:
                faults[:1] = [replace(fault, times=fault.times - 1)] if fault.times > 1 else []
            return fault


def _file(path: str, content: bytes | Path) -> File:
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    sha256, git_sha1 = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size)
    for chunk in File(content, size, "", "", False).read(0, size):
        sha256.update(chunk)
        git_sha1.update(chunk)
    return File(content, size, sha256.hexdigest(), git_sha1.hexdigest(), path.endswith(LFS_SUFFIXES))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, hub: HubServer, origin: Literal["hub", "cdn"]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self.origin = origin

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: clients that leave are part of the tests."""


class _Answered(Exception):
    """An answer was sent before the end of the route was reached."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        self.log = LoggedRequest(self.server.origin, self.command, self.path, dict(self.headers.items()))
        self.server.hub.requests.append(self.log)
        self.query = {name: values[0] for name, values in parse_qs(address.query).items()}
        with contextlib.suppress(_Answered):
            self._route(unquote(address.path))

    do_HEAD = do_GET

    def _route(self, path: str) -> None:
        for pattern, answer in _CDN_ROUTES if self.server.origin == "cdn" else _HUB_ROUTES:
            if (found := re.fullmatch(pattern, path)) is not None:
                answer(self, **found.groupdict())
                return
        self._refuse(404, "EntryNotFound", "no such route")

    # --- Hugging Face

    def hf_revision(self, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_id, revision)
        self._json({"id": repo_id, "sha": repo.commit, "siblings": [{"rfilename": path} for path in repo.files]})

    def hf_references(self, repo_id: str) -> None:
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": ""} for name in self._references(repo_id)
        ]
        self._json({"branches": branches, "tags": [], "converts": []})

    def hf_models(self) -> None:
        self._json([{"id": repo_id, "tags": []} for repo_id in self._repos_of(self.query["author"])])

    def hf_tree(self, repo_id: str, revision: str) -> None:
        files = self._repo(repo_id, revision).files
        self._listing([_hf_entry(path, file) for path, file in files.items()])

    def hf_resolve(self, repo_id: str, revision: str, path: str) -> None:
        repo = self._repo(repo_id, revision)
        file = self._file(repo, path)
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{file.git_sha1}"'}
        if not file.is_lfs:
            location = f"/api/resolve-cache/models/{repo_id}/{repo.commit}/{quote(path)}"
            self._redirect(307, location, headers)
        linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size_bytes)}
        self._redirect(302, self._cdn_address(repo, path), headers | linked)

    def hf_resolve_cache(self, repo_id: str, revision: str, path: str) -> None:
        repo = self._repo(repo_id, revision)
        file = self._file(repo, path)
        self._send_file(path, file, {"X-Repo-Commit": repo.commit, "ETag": f'"{file.git_sha1}"'})

    # --- ModelScope

    def ms_files(self, repo_id: str) -> None:
        files = self._repo(repo_id, self.query.get("Revision", "master")).files
        self._listing({"Code": 200, "Data": {"Files": [_ms_entry(path, file) for path, file in files.items()]}})

    def ms_references(self, repo_id: str) -> None:
        branches = [{"Revision": name} for name in self._references(repo_id)]
        self._json({"Code": 200, "Data": {"RevisionMap": {"Branches": branches, "Tags": []}}})

    def ms_models(self) -> None:
        models = [{"id": repo_id} for repo_id in self._repos_of(self.query["owner"])]
        self._json({"success": True, "data": {"models": models, "total_count": len(models)}})

    def ms_commits(self, repo_id: str) -> None:
        if not self.server.hub.knows_commits:
            self._refuse(404, "", "no such route")
        repo = self._repo(repo_id, self.query["Ref"])
        self._json({"Code": 200, "Data": {"Commit": [{"Id": repo.commit}], "TotalCount": 1}})

    def ms_file(self, repo_id: str) -> None:
        path = self.query["FilePath"]
        repo = self._repo(repo_id, self.query.get("Revision", "master"))
        file = self._file(repo, path)
        if file.is_lfs:
            self._redirect(302, self._cdn_address(repo, path), {})
        self._send_file(path, file, {})

    def ms_acceleration(self) -> None:
        self._json({"Code": 200, "Data": {"InternalRegionQueryAddress": ""}})

    # --- the CDN

    def cdn_file(self, repo_id: str, revision: str, path: str) -> None:
        hub = self.server.hub
        file = (hub.repo_at(repo_id, revision) or hub.repos[repo_id]).files[path]
        self._send_file(path, file, {"ETag": f'"{file.sha256}"'} if hub.has_etags else {})

    def account(self) -> None:
        """Say on either hub whose token it is: that of any repo is somebody's."""
        if self._token() is None or self._token() not in [repo.token for repo in self.server.hub.repos.values()]:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        self._json({"name": "somebody"})

    # --- parts

    def _references(self, repo_id: str) -> tuple[str, ...]:
        return self._repo(repo_id, None).branches

    def _repos_of(self, owner: str) -> list[str]:
        repos = self.server.hub.repos.values()
        return [repo.repo_id for repo in repos if repo.repo_id.startswith(f"{owner}/") and not repo.private]

    def _repo(self, repo_id: str, revision: str | None) -> Repo:
        repo = self.server.hub.repos.get(repo_id)
        if self._token() not in (None, *(held.token for held in self.server.hub.repos.values())):
            self._refuse(401, "", "Invalid credentials in Authorization header")
        if repo is None or (repo.private and self._token() != repo.token):
            is_hidden = self._token() is None and "/api/v1/" not in self.path
            self._refuse(401 if is_hidden else 404, "RepoNotFound", "Repository not found")
        found = repo if revision is None else self.server.hub.repo_at(repo_id, revision)
        if found is None:
            self._refuse(404, "RevisionNotFound", "Invalid rev id")
        return found

    def _file(self, repo: Repo, path: str) -> File:
        if repo.gated and self._token() != repo.token:
            self._refuse(401 if self._token() is None else 403, "GatedRepo", "Access to this model is restricted")
        if path not in repo.files:
            self._refuse(404, "EntryNotFound", "Entry not found")
        return repo.files[path]

    def _token(self) -> str | None:
        header = self.headers.get("Authorization", "")
        return header.removeprefix("Bearer ") if header.startswith("Bearer ") else None

    def _cdn_address(self, repo: Repo, path: str) -> str:
        return f"{self.server.hub.cdn_url}/{repo.repo_id}/{repo.commit}/{quote(path)}?Signature=signed"

    def _refuse(self, status: int, code: str, message: str, more: Mapping[str, str] = MappingProxyType({})) -> NoReturn:
        headers = {"X-Error-Code": code, "X-Error-Message": message, **more}
        self._send(status, json.dumps({"Code": status, "Message": message}).encode(), headers)
        raise _Answered

    def _redirect(self, status: int, location: str, headers: Mapping[str, str]) -> NoReturn:
        self._send(status, b"", {**headers, "Location": location})
        raise _Answered

    def _listing(self, value: object) -> None:
        if not self.server.hub.cuts_listings:
            self._json(value)
            return
        body = json.dumps(value).encode()
        self._head(200, len(body), {"Content-Type": "application/json"})
        self.wfile.write(body[: len(body) // 2])
        self.close_connection = True

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self._head(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)
            self.log.sent_bytes += len(body)

    def _head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.log.status = status
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_file(self, path: str, file: File, headers: Mapping[str, str]) -> None:
        fault = self.server.hub.take_fault(path) if self.command == "GET" else None
        if fault is not None and fault.kind == "status":
            self._refuse(fault.status, "", "a fault", {"Retry-After": fault.retry_after} if fault.retry_after else {})
        if fault is not None and fault.kind == "redirect":
            self._redirect(302, fault.location, {})
        start, end, status = self._range(file, ignored=fault is not None and fault.kind == "norange")
        if status == 416:
            self._refuse(416, "", "Range not satisfiable")
        if status == 206 and fault is not None and fault.kind == "misrange":
            start, end = 0, end - start
        ranged = {"Content-Range": f"bytes {start}-{end - 1}/{file.sent_size_bytes}"} if status == 206 else {}
        self._head(status, end - start, {**headers, **ranged, "Accept-Ranges": "bytes"})
        if self.command != "HEAD":
            self._send_body(file, start, end, fault)

    def _range(self, file: File, *, ignored: bool) -> tuple[int, int, int]:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None or ignored:
            return 0, file.sent_size_bytes, 200
        start, end = int(asked[1]), min(int(asked[2] or file.sent_size_bytes) + 1, file.sent_size_bytes)
        return start, end, 206 if start < end else 416

    def _send_body(self, file: File, start: int, end: int, fault: Fault | None) -> None:
        stop = end
        if fault is not None and (fault.after_bytes or fault.kind in ("cut", "reset", "stall", "drip")):
            stop = min(end, start + fault.after_bytes)
        if fault is not None and fault.kind == "flip":
            file, stop = file._replace(flipped=start + fault.after_bytes), end
        self._send_range(file, start, stop)
        if stop < end:
            self.close_connection = True
            self.wfile.flush()
            self._go_wrong(fault, file, stop)

    def _send_range(self, file: File, start: int, stop: int) -> None:
        rate = self.server.hub.bytes_per_s if self.server.origin == "cdn" else None
        due = time.monotonic()
        for position in range(start, stop, FAST_BYTES):
            if rate is not None:
                time.sleep(max(0.0, due - time.monotonic()))
                # A thread that was late catches up a little, but sends no flood: no network would.
                due = max(due, time.monotonic() - LATE_S) + FAST_BYTES / rate
            self._send_piece(file, position, min(stop, position + FAST_BYTES))

    def _send_piece(self, file: File, start: int, end: int) -> None:
        if isinstance(file.content, Path) and file.flipped is None:
            with file.content.open("rb") as content:
                while start < end:
                    sent = os.sendfile(self.connection.fileno(), content.fileno(), start, end - start)
                    start += sent
                    self._count(sent)
            return
        for chunk in file.read(start, end):
            self.wfile.write(chunk)
            self._count(len(chunk))

    def _count(self, sent: int) -> None:
        self.log.sent_bytes += sent
        if self.server.hub.on_sent is not None:
            self.server.hub.on_sent(sent)

    def _go_wrong(self, fault: Fault | None, file: File, position: int) -> None:
        if fault is None:
            return
        if fault.kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        for drop in range(position, position + 600) if fault.kind == "drip" else ():
            self._send_piece(file, drop, drop + 1)
            time.sleep(0.1)
        if fault.kind == "stall":
            time.sleep(60)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


def _hf_entry(path: str, file: File) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": path, "size": file.size_bytes, "oid": file.git_sha1}
    if file.is_lfs:
        entry["lfs"] = {"oid": file.sha256, "size": file.size_bytes, "pointerSize": 134}
    return entry


def _ms_entry(path: str, file: File) -> dict[str, object]:
    facts = {"Path": path, "Name": path.rpartition("/")[2], "Type": "blob", "Revision": "", "IsLFS": file.is_lfs}
    return {**facts, "Size": file.size_bytes, "Sha256": file.sha256}


_ID = r"(?P<repo_id>[^/]+/[^/]+)"
_HUB_ROUTES = (
    (rf"/api/models/{_ID}/revision/(?P<revision>.+)", _Handler.hf_revision),
    (r"/api/models", _Handler.hf_models),
    (rf"/api/models/{_ID}/refs", _Handler.hf_references),
    (rf"/api/models/{_ID}/tree/(?P<revision>[^/]+)", _Handler.hf_tree),
    (rf"/api/resolve-cache/models/{_ID}/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.hf_resolve_cache),
    (rf"/api/v1/models/{_ID}/repo/files", _Handler.ms_files),
    (rf"/api/v1/models/{_ID}/revisions", _Handler.ms_references),
    (rf"/api/v1/models/{_ID}/commits", _Handler.ms_commits),
    (rf"/api/v1/models/{_ID}/repo", _Handler.ms_file),
    (r"/openapi/v1/models", _Handler.ms_models),
    (r"/api/whoami-v2|/openapi/v1/users/me", _Handler.account),
    (r"/api/v1/repos/internalAccelerationInfo", _Handler.ms_acceleration),
    (rf"/{_ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.hf_resolve),
)
_CDN_ROUTES = ((rf"/{_ID}/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.cdn_file),)
