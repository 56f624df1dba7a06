"""Hugging Face: its cache on disk, read and written as its own client does, and its listings by its own client."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.cache import fresh_name, is_true, read_json, user_cache_folder, write_atomically, write_json
from registry.digest import Digest
from registry.errors import DownloadError, LaunchError, NotOnHubError
from registry.hubs.base import Listing, RemoteFile
from registry.hubs.http import HttpHub, is_commit
from registry.spec import Source

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TREE_FORMAT_VERSION = 1  # of trees/<commit>.json, as huggingface_hub 2.4 writes it


class HuggingFace(HttpHub):
    """Hugging Face, or a mirror of it at HF_ENDPOINT."""

    name = "huggingface"
    title = "Hugging Face"
    default_branch = "main"
    timeout_variable = "HF_HUB_DOWNLOAD_TIMEOUT"
    login_hint = "`hf auth login` or HF_TOKEN"
    account_path = "/api/whoami-v2"
    reach_hint = "check the network, or name a mirror with HF_ENDPOINT"
    offline_variables = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")

    # --- disk only

    def read_listing(self, source: Source, quantization: str) -> Listing | None:
        repo_id, reference = source.repo_for(quantization), self.reference(source)
        commit = self._commit(repo_id, reference)
        tree = read_json(_repo_folder(repo_id) / "trees" / f"{commit}.json")
        if commit is None or tree is None or tree.get("format_version") != TREE_FORMAT_VERSION:
            return None
        files = tuple(_file_of_tree(path, facts) for path, facts in tree["files"].items())
        return Listing(self.name, repo_id, commit, reference, files)

    def snapshot(self, source: Source, quantization: str) -> Path:
        repo_id, reference = source.repo_for(quantization), self.reference(source)
        return _repo_folder(repo_id) / "snapshots" / (self._commit(repo_id, reference) or reference)

    def kept(self, listing: Listing, file: RemoteFile) -> tuple[Path, ...]:
        folder = _repo_folder(listing.repo_id)
        in_snapshot = folder / "snapshots" / listing.revision / file.path
        name = file.sha256 or file.git_sha1
        return (in_snapshot,) if name is None else (folder / "blobs" / name, in_snapshot)

    def place(self, listing: Listing, file: RemoteFile, kept: Path) -> Path:
        link = _repo_folder(listing.repo_id) / "snapshots" / listing.revision / file.path
        if link != kept and not (link.exists() and link.samefile(kept)):
            link.parent.mkdir(parents=True, exist_ok=True)
            fresh = fresh_name(link)
            fresh.symlink_to(os.path.relpath(kept, link.parent))
            fresh.replace(link)
        return link

    def vouched(self, path: Path) -> Digest | None:
        if not path.is_symlink():
            return None
        # One link only: its client may keep a blob in a store of all repos, by another kind of hash.
        name = path.readlink().name
        if re.fullmatch(r"[0-9a-f]{64}", name):
            return Digest("sha256", name)
        return Digest("git-sha1", name) if is_commit(name) else None

    def record(self, listing: Listing) -> None:
        files = {file.path: _tree_of_file(file) for file in sorted(listing.files, key=lambda file: file.path)}
        path = _repo_folder(listing.repo_id) / "trees" / f"{listing.revision}.json"
        if not path.exists():  # a commit's tree never changes, and the client's own says more
            write_json(path, {"format_version": TREE_FORMAT_VERSION, "files": files})

    def record_reference(self, listing: Listing) -> None:
        if listing.reference != listing.revision:
            path = _repo_folder(listing.repo_id) / "refs" / listing.reference
            write_atomically(path, listing.revision.encode())

    def _commit(self, repo_id: str, reference: str) -> str | None:
        if is_commit(reference):
            return reference
        try:
            return (_repo_folder(repo_id) / "refs" / reference).read_text().strip()
        except OSError:
            return None

    # --- network

    def list_files(self, source: Source, quantization: str) -> Listing:
        # Before the import that reads it: the client would also ask the hub which program it runs under.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from huggingface_hub import HfApi

        repo_id, reference = source.repo_for(quantization), self.reference(source)
        api = HfApi(endpoint=endpoint(), token=_token() or False, library_name="model-launcher")
        try:
            commit = reference if is_commit(reference) else _resolve(api, repo_id, reference)
            files = _list(api, repo_id, commit)
        except Exception as error:
            raise self._translated(api, error, repo_id, reference) from error
        return Listing(self.name, repo_id, commit, reference, files)

    def address(self) -> str:
        return endpoint()

    def headers(self) -> Mapping[str, str]:
        token = _token()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def page(self, repo_id: str) -> str:
        return f"{endpoint()}/{repo_id}"

    def _translated(self, api: HfApi, error: Exception, repo_id: str, reference: str) -> LaunchError:
        import httpx2
        from huggingface_hub import errors

        from registry.trouble import out_of_reach

        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, LaunchError):
            return error
        if isinstance(error, errors.RevisionNotFoundError):
            return self.no_revision(repo_id, reference, _if_told(lambda: _references(api, repo_id)))
        if isinstance(error, errors.GatedRepoError) or "Invalid credentials" in str(error):
            return self.refused(status or 401, repo_id, "it")
        # Behind an http endpoint the client does not recognise a missing repo, which the hub hides as 401.
        if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
            return self.no_repo(repo_id, _if_told(lambda: _repos_beside(api, repo_id)))
        if isinstance(error, errors.HFValidationError):
            return NotOnHubError(f"`{repo_id}` cannot be the name of a repo", hint="names are like `owner/name`")
        if isinstance(error, httpx2.TransportError | ConnectionError):
            return out_of_reach(endpoint(), error, title=self.title, hint=self.reach_hint)
        if status is not None:
            return self.refused(status, repo_id, "listing")
        return DownloadError(f"{self.title} could not list `{repo_id}`", details=[str(error)])


def endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def hub_cache() -> Path:
    """Return the folder of Hugging Face's own cache, as its client finds it."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if named := os.environ.get(name):
            return Path(os.path.expandvars(named)).expanduser()
    home = os.environ.get("HF_HOME")
    return (Path(os.path.expandvars(home)).expanduser() if home else user_cache_folder() / "huggingface") / "hub"


def _token() -> str | None:
    from huggingface_hub import get_token

    return None if is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") else get_token()


def _repo_folder(repo_id: str) -> Path:
    return hub_cache() / f"models--{repo_id.replace('/', '--')}"


def _resolve(api: HfApi, repo_id: str, reference: str) -> str:
    # Not resolve_revision: it writes refs/ before any file is here.
    commit = api.model_info(repo_id, revision=reference, timeout=20).sha
    if commit is None or not is_commit(commit):
        raise DownloadError(f"{endpoint()} does not say which commit `{reference}` of `{repo_id}` is")
    return commit


def _list(api: HfApi, repo_id: str, commit: str) -> tuple[RemoteFile, ...]:
    from huggingface_hub import RepoFile, hf_hub_url

    return tuple(
        RemoteFile(
            path=entry.path,
            size_bytes=entry.size if entry.lfs is None else entry.lfs.size,
            sha256=None if entry.lfs is None else entry.lfs.sha256,
            git_sha1=entry.blob_id,
            url=hf_hub_url(repo_id, entry.path, revision=commit, endpoint=endpoint()),
        )
        for entry in api.list_repo_tree(repo_id, recursive=True, revision=commit)
        if isinstance(entry, RepoFile)
    )


def _references(api: HfApi, repo_id: str) -> list[str]:
    found = api.list_repo_refs(repo_id)
    return [reference.name for reference in (*found.branches, *found.tags)]


def _repos_beside(api: HfApi, repo_id: str) -> list[str]:
    """Return the repos of the same owner, the most popular ones where there are many."""
    found = api.list_models(author=repo_id.partition("/")[0], sort="downloads", limit=100)
    return [model.id for model in found]


def _if_told(ask: Callable[[], Iterable[str]]) -> Iterable[str]:
    """Return what the hub answers to a question that only makes an error better, or nothing."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return ask()
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError, LookupError):
        return ()


def _file_of_tree(path: str, facts: Mapping[str, Any]) -> RemoteFile:
    return RemoteFile(path, facts["size"], facts.get("lfs_sha256"), facts["blob_id"])


def _tree_of_file(file: RemoteFile) -> dict[str, object]:
    facts: dict[str, object] = {"size": file.size_bytes, "blob_id": file.git_sha1}
    if file.sha256 is not None:
        facts |= {"lfs_sha256": file.sha256, "lfs_size": file.size_bytes}
    return facts
