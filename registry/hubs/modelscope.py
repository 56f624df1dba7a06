"""ModelScope: its cache on disk as its own client lays it out, and its listings by its own slim client."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from registry.cache import cache_folder, fresh_name, read_json, user_cache_folder, write_json
from registry.digest import Digest
from registry.errors import DownloadError, LaunchError
from registry.hubs.base import Listing, RemoteFile
from registry.hubs.http import HttpHub, is_commit
from registry.spec import Source

if TYPE_CHECKING:
    from modelscope_hub import HubApi

T = TypeVar("T")


class ModelScope(HttpHub):
    """ModelScope, or another site of its kind at MODELSCOPE_ENDPOINT.

    Its cache knows no commits: a branch's folder is replaced in place. Where the hub names the commit, files go to
    the commit's own folder, and a listing of ours remembers which that was.
    """

    name = "modelscope"
    title = "ModelScope"
    default_branch = "master"
    timeout_variable = "MODELSCOPE_DOWNLOAD_TIMEOUT"
    login_hint = "MODELSCOPE_API_TOKEN, which its site shows under access tokens"
    account_path = "/openapi/v1/users/me"
    reach_hint = "check the network, or name another site with MODELSCOPE_ENDPOINT"

    # --- disk only

    def read_listing(self, source: Source, quantization: str) -> Listing | None:
        repo_id, reference = source.repo_for(quantization), self.reference(source)
        kept = read_json(_listing_path(repo_id, reference))
        if kept is None:
            return None
        files = tuple(RemoteFile(path, **facts) for path, facts in kept["files"].items())
        return Listing(self.name, repo_id, kept["revision"], reference, files)

    def snapshot(self, source: Source, quantization: str) -> Path:
        listing = self.read_listing(source, quantization)
        revision = self.reference(source) if listing is None else listing.revision
        return _repo_folder(source.repo_for(quantization)) / "snapshots" / revision

    def kept(self, listing: Listing, file: RemoteFile) -> tuple[Path, ...]:
        folder = _repo_folder(listing.repo_id)
        names = dict.fromkeys((listing.revision, listing.reference, self.default_branch))
        return (
            *(folder / "snapshots" / name / file.path for name in names),
            *(old / file.path for old in _old_folders(listing.repo_id)),
        )

    def place(self, listing: Listing, file: RemoteFile, kept: Path) -> Path:
        path = _repo_folder(listing.repo_id) / "snapshots" / listing.revision / file.path
        if path != kept:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = fresh_name(path)
            _link_or_copy(kept.resolve(), fresh)
            fresh.replace(path)
        return path

    def vouched(self, path: Path) -> Digest | None:
        return None

    def record(self, listing: Listing) -> None:
        files = {file.path: {"size_bytes": file.size_bytes, "sha256": file.sha256} for file in listing.files}
        write_json(_listing_path(listing.repo_id, listing.revision), {"revision": listing.revision, "files": files})

    def record_reference(self, listing: Listing) -> None:
        if listing.reference != listing.revision:
            kept = read_json(_listing_path(listing.repo_id, listing.revision))
            write_json(_listing_path(listing.repo_id, listing.reference), kept)

    # --- network

    def list_files(self, source: Source, quantization: str) -> Listing:
        repo_id, reference = source.repo_for(quantization), self.reference(source)
        try:
            endpoint = _open_api().resolve_endpoint_for_read(repo_id, repo_type="model")
            commit = reference if is_commit(reference) else self._resolve(endpoint, repo_id, reference)
            files = _list(endpoint, repo_id, commit or reference)
        except Exception as error:
            raise self._translated(error, repo_id, reference) from error
        return Listing(self.name, repo_id, commit or reference, reference, files)

    def address(self) -> str:
        return endpoint()

    def headers(self) -> Mapping[str, str]:
        token = _token()
        # Its older routes read the cookie, its newer ones the header; its client sends both.
        return {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"} if token else {}

    def _resolve(self, endpoint: str, repo_id: str, reference: str) -> str | None:
        """Return the commit that a branch stands at, or None where the hub does not say: its client has no call."""
        import httpx2

        parameters = {"Ref": reference, "PageNumber": "1", "PageSize": "1"}
        try:
            response = httpx2.get(
                f"{endpoint}/api/v1/models/{repo_id}/commits", params=parameters, headers=self.headers(), timeout=10
            )
            commit = response.raise_for_status().json()["Data"]["Commit"][0]["Id"]
        except (httpx2.HTTPError, ValueError, LookupError, TypeError):
            return None
        return commit if isinstance(commit, str) and is_commit(commit) else None

    def page(self, repo_id: str) -> str:
        return f"{endpoint()}/models/{repo_id}"

    def _translated(self, error: Exception, repo_id: str, reference: str) -> LaunchError:
        import requests
        from modelscope_hub import errors

        from registry.trouble import out_of_reach

        if isinstance(error, LaunchError):
            return error
        if isinstance(error, errors.AuthenticationError | errors.PermissionDeniedError):
            return self.refused(401 if isinstance(error, errors.AuthenticationError) else 403, repo_id, "it")
        if isinstance(error, errors.NotExistError):
            references = _references(repo_id)
            if references is None:
                return self.no_repo(repo_id, _repos_beside(repo_id))
            return self.no_revision(repo_id, reference, references)
        if isinstance(error, errors.NetworkError | requests.RequestException):
            return out_of_reach(endpoint(), error, title=self.title, hint=self.reach_hint)
        return DownloadError(f"{self.title} could not list `{repo_id}`", details=[str(error)])


def endpoint() -> str:
    """Return the site's address, as its client finds it."""
    domain = os.environ.get("MODELSCOPE_DOMAIN", "").strip()
    named = os.environ.get("MODELSCOPE_ENDPOINT") or (f"https://{domain}" if domain else "")
    return (named or "https://www.modelscope.cn").rstrip("/")


def hub_cache() -> Path:
    """Return the folder of ModelScope's own cache, as its client finds it."""
    named = os.environ.get("MODELSCOPE_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "modelscope"


def _repo_folder(repo_id: str) -> Path:
    return hub_cache() / "models" / repo_id.replace("/", "--")


def _old_folders(repo_id: str) -> tuple[Path, ...]:
    """Return where clients up to 1.37 kept a repo; newer ones still use what is there."""
    owner, _, name = repo_id.partition("/")
    return tuple(base / "models" / owner / name.replace(".", "___") for base in (hub_cache(), hub_cache() / "hub"))


def _listing_path(repo_id: str, reference: str) -> Path:
    folder = cache_folder() / "listings" / "modelscope" / repo_id.replace("/", "--")
    return folder / f"{reference.replace('/', '--')}.json"


def _link_or_copy(source: Path, target: Path) -> None:
    # A hard link keeps these bytes when the client replaces the branch's file with a newer one.
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _token() -> str:
    return os.environ.get("MODELSCOPE_API_TOKEN", "")


def _open_api(endpoint: str | None = None) -> HubApi:
    import logging

    log = logging.getLogger("modelscope_hub")
    if not log.handlers:  # else it puts one on stderr, and each of its tries again is a line there
        log.addHandler(logging.NullHandler())
    from modelscope_hub import HubApi, HubConfig

    # A token that is given, even an empty one, keeps the client from unpickling a saved login, and a folder of its own
    # from writing an identifier into the user's home. Not in LAUNCH_CACHE: what it keeps is for one user alone.
    own = user_cache_folder() / "model-launcher" / "modelscope"
    return HubApi(HubConfig(endpoint=endpoint, token=_token(), config_dir=own))


def _references(repo_id: str) -> list[str] | None:
    """Return the branches and tags of a repo, or None where there is no such repo, as far as one can see."""
    return _if_told(lambda: [each["Revision"] for each in _open_api().list_repo_revisions(repo_id, "model")])


def _repos_beside(repo_id: str) -> list[str]:
    """Return the repos of the same owner, the most popular ones where there are many."""
    owner = repo_id.partition("/")[0]
    found = _if_told(lambda: _open_api().list_repos("model", owner=owner, sort="downloads", page_size=100))
    return [] if found is None else [f"{each.owner}/{each.name}" for each in found.items]


def _if_told(ask: Callable[[], T]) -> T | None:
    """Return what the hub answers to a question that only makes an error better, or None."""
    import requests
    from modelscope_hub.errors import HubError

    try:
        return ask()
    except (HubError, requests.RequestException, OSError, ValueError, LookupError):
        return None


def _list(endpoint: str, repo_id: str, revision: str) -> tuple[RemoteFile, ...]:
    api = _open_api(endpoint)
    return tuple(
        RemoteFile(
            path=entry.path,
            size_bytes=entry.size,
            sha256=entry.sha256,
            url=api.legacy.get_download_url(repo_id, "model", entry.path, revision),
        )
        for entry in api.list_repo_files(repo_id, "model", revision=revision)
        if not entry.is_dir
    )
