"""What the hubs that are spoken to over HTTP have in common."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from registry.cache import is_true
from registry.errors import DownloadError, GatedRepoError, NotOnHubError
from registry.hubs.base import Listing, RemoteFile
from registry.progress import Told
from registry.spec import Source

if TYPE_CHECKING:
    from registry.tar_header import Readable


class HttpHub:
    """A hub whose files have addresses; the fetcher brings them."""

    name: str
    title: str
    default_branch: str
    login_hint: str  # the rest of a sentence that begins with `log in with`
    timeout_variable: str  # of its own client: the longest silence during a download, in seconds
    account_path: str  # what tells a token's owner who that is, and is refused to others
    reach_hint: str  # what to do where it is out of reach
    offline_variables: tuple[str, ...] = ()  # each of them forbids it the network

    def address(self) -> str:
        """Return where the hub is, by the user's settings."""
        raise NotImplementedError

    def is_offline(self) -> bool:
        return any(map(is_true, self.offline_variables))

    def headers(self) -> Mapping[str, str]:
        """Return what authorizes a request, or nothing."""
        raise NotImplementedError

    def page(self, repo_id: str) -> str:
        """Return the address where people read about a repo, and ask for access to it."""
        raise NotImplementedError

    def bring(self, listing: Listing, file: RemoteFile, target: Path, report: Told) -> None:
        from registry.fetcher import fetch
        from registry.remote_bytes import Download, Limits, RefusedError

        if file.url is None or file.size_bytes is None:
            raise DownloadError(f"{self.title} does not say how large `{file.path}` of `{listing.repo_id}` is")
        try:
            download = Download(file.path, file.url, target, file.size_bytes, file.digest, self.headers())
            fetch(download, report, Limits(timeout_s=self._timeout_s() or Limits().timeout_s))
        except RefusedError as error:
            raise self.refused(error.status, listing.repo_id, f"file `{file.path}`") from error

    @contextmanager
    def peek(self, listing: Listing, file: RemoteFile) -> Iterator[Readable | None]:
        from registry.ranges import RangeReader

        def refused(status: int) -> DownloadError:
            return self.refused(status, listing.repo_id, f"file `{file.path}`")

        if file.url is None:
            yield None
            return
        with RangeReader(file.url, self.headers(), refused) as remote:
            yield remote if remote.has_ranges else None

    def _timeout_s(self) -> float | None:
        asked = os.environ.get(self.timeout_variable, "")
        return float(asked) if re.fullmatch(r"\d{1,6}(\.\d+)?", asked) else None

    def reference(self, source: Source) -> str:
        return source.revision or self.default_branch

    def refused(self, status: int, repo_id: str, what: str) -> DownloadError:
        """Return what an HTTP status says about a repo, and what to do about it."""
        if status in (401, 403):
            return self._closed(status, repo_id)
        if status in (404, 410):
            return NotOnHubError(f"{self.title} has no {what} in `{repo_id}`")
        return DownloadError(f"{self.title} answered HTTP {status} for {what} of `{repo_id}`")

    def no_repo(self, repo_id: str, others: Iterable[str]) -> NotOnHubError:
        """Return that there is no such repo as far as one can see, with the near ones of those that there are."""
        hidden = "your token does not open it" if self.headers() else f"log in with {self.login_hint}"
        return NotOnHubError(
            f"{self.title} has no repo `{repo_id}`, or it is private",
            details=_near(repo_id, others, "there is"),
            hint=f"check the name; if it is private, {hidden}",
        )

    def no_revision(self, repo_id: str, reference: str, others: Iterable[str]) -> NotOnHubError:
        """Return that a repo has no such branch, tag or commit, with the near ones of those that there are."""
        return NotOnHubError(
            f"{self.title} has no revision `{reference}` of `{repo_id}`",
            details=_near(reference, others, "it has"),
            hint=f"{self.page(repo_id)} shows its branches and tags",
        )

    def _closed(self, status: int, repo_id: str) -> GatedRepoError:
        page = self.page(repo_id)
        if status == 403:
            hint = f"ask for access at {page}, with the account that your token belongs to"
            return GatedRepoError(f"{self.title} has not granted you access to `{repo_id}`", hint=hint)
        if self.headers():
            hint = f"log in anew with {self.login_hint}"
            return GatedRepoError(f"{self.title} does not accept your token for `{repo_id}`", hint=hint)
        hint = f"ask for access at {page}, then log in with {self.login_hint}"
        return GatedRepoError(f"{self.title} wants a login for `{repo_id}`", hint=hint)


def _near(name: str, others: Iterable[str], words: str) -> list[str]:
    import difflib

    known = {other.lower(): other for other in others}
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    return [f"{words} `{known[each]}`" for each in near]


def is_commit(revision: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None
