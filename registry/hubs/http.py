"""What the hubs that are spoken to over HTTP have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from registry.errors import DownloadError, GatedRepoError, NotOnHubError
from registry.hubs.base import Listing, RemoteFile
from registry.progress import Told
from registry.spec import Source


class HttpHub:
    """A hub whose files have addresses; the fetcher brings them."""

    name: str
    title: str
    default_branch: str
    login_hint: str

    def headers(self) -> Mapping[str, str]:
        """Return what authorizes a request, or nothing."""
        raise NotImplementedError

    def bring(self, listing: Listing, file: RemoteFile, target: Path, report: Told) -> None:
        from registry.fetcher import fetch
        from registry.remote_bytes import Download, RefusedError

        if file.url is None or file.size_bytes is None:
            raise DownloadError(f"{self.title} does not say how large `{file.path}` of `{listing.repo_id}` is")
        try:
            fetch(Download(file.path, file.url, target, file.size_bytes, file.digest, self.headers()), report)
        except RefusedError as error:
            raise self.refused(error.status, listing.repo_id, f"file `{file.path}`") from error

    def reference(self, source: Source) -> str:
        return source.revision or self.default_branch

    def refused(self, status: int, repo_id: str, what: str) -> DownloadError:
        """Return what an HTTP status says about a repo, and what to do about it."""
        if status in (401, 403):
            reason = "wants a login" if status == 401 else "has not granted you access"
            return GatedRepoError(f"{self.title} {reason} for `{repo_id}`", hint=self.login_hint)
        if status in (404, 410):
            return NotOnHubError(f"{self.title} has no {what} in `{repo_id}`")
        return DownloadError(f"{self.title} answered HTTP {status} for {what} of `{repo_id}`")

    def not_there(self, repo_id: str, *details: str) -> NotOnHubError:
        return NotOnHubError(
            f"{self.title} has no repo `{repo_id}`, or it is private",
            details=details,
            hint=f"check the name; for a private repo: {self.login_hint}",
        )


def is_commit(revision: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None
