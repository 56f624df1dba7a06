"""Brings a plan's files from the first of its hubs that has them whole; says why where it is not the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from launcher.describe import hub_title
from launcher.planning import at_sources
from launcher.plans import Plan
from launcher.refusals import check_files
from registry import store
from registry.errors import DigestError, DownloadError, OfflineError, UnsafeFileError
from registry.hubs import open_hub
from registry.licences import restriction
from registry.progress import Progress, Report, with_rate
from registry.published import published_elsewhere
from registry.spec import Source

T = TypeVar("T")


def choose_source(plan: Plan) -> Plan:
    """Return the plan at the source to be tried first: the user's, else the first whose hub answers.

    Asks the hubs only where something is to be fetched and there is a choice.
    """
    may_choose = len(sources_of(plan)) > 1 and not plan.resolution.is_ordered
    if not may_choose or not plan.needs_weights or plan.found_files.is_complete or is_offline(plan):
        return plan
    from registry.hub_choice import reachable_first

    return at_sources(plan, reachable_first(sources_of(plan)))


def fetch(plan: Plan, report: Report) -> tuple[Plan, store.FileSet]:
    """Return the plan at the source that gave its files, and the files; at once where all of them were here.

    A branch that was asked for is looked up even so. A licence that is not open is told before the first byte. Raises
    DownloadError.
    """
    is_settled = plan.source.is_pinned or plan.source.revision is None
    if plan.found_files.is_complete and is_settled:
        _check_locked(plan, plan.found_files)
        return plan, plan.found_files
    metered = with_rate(report)
    offline = is_offline(plan)

    def pull(tried: Plan) -> store.FileSet:
        files = store.pull(tried.spec, tried.source, tried.quantization, offline=offline, progress=metered)
        _check_locked(tried, files)
        check_files(tried, files)
        return files

    if not offline and not plan.found_files.is_complete and (restricted := restriction(plan.model.license)):
        report(Progress("licence", 0, None, restricted))
    try:
        return try_sources(choose_source(plan), report, pull)
    except DigestError as error:
        if plan.locked_files:
            error.hint = f"`launch lock {plan.name}` takes what there is now"
        raise


def try_sources(plan: Plan, report: Report, act: Callable[[Plan], T]) -> tuple[Plan, T]:
    """Return what `act` returns for the first of a plan's sources that it does not fail for, and the plan at it.

    Raises the first source's DownloadError, with what was wrong with the others.
    """
    failures: list[tuple[Source, DownloadError]] = []
    for source in sources_of(plan):
        tried = _at_source(plan, source)
        _tell(report, failures, source, is_quiet=is_offline(plan))
        try:
            return tried, act(tried)
        except DownloadError as error:
            if isinstance(error, UnsafeFileError):
                error.details += tuple(published_elsewhere(tried.model, tried.spec, at=source))
            if not error.elsewhere_helps:
                raise
            failures.append((source, error))
    raise _failed_everywhere(failures)


def is_offline(plan: Plan) -> bool:
    """Return whether the network is off, for this plan or by a hub's own variable."""
    return plan.offline or any(open_hub(source.hub).is_offline() for source in sources_of(plan))


def _check_locked(plan: Plan, files: store.FileSet) -> None:
    if plan.locked_files:
        from launcher import locked

        locked.check_files(plan.locked_files, files)


def sources_of(plan: Plan) -> tuple[Source, ...]:
    """Return where the plan's files are, in the order to try."""
    return (plan.source, *plan.resolution.alternatives)


def _at_source(plan: Plan, source: Source) -> Plan:
    if source == plan.source:
        return plan
    return at_sources(plan, (source, *(other for other in sources_of(plan) if other != source)))


def _tell(report: Report, failures: list[tuple[Source, DownloadError]], source: Source, *, is_quiet: bool) -> None:
    if not failures or is_quiet:
        return
    failed, error = failures[-1]
    if isinstance(error, OfflineError):
        from registry.hub_choice import forget

        forget()
    report(Progress("fallback", 0, None, f"{_said_by(failed, error)}; trying {hub_title(source.hub)}"))


def _said_by(source: Source, error: DownloadError) -> str:
    title = hub_title(source.hub)
    return error.message if title.lower() in error.message.lower() else f"{title}: {error.message}"


def _failed_everywhere(failures: Iterable[tuple[Source, DownloadError]]) -> DownloadError:
    (_, first), *others = failures
    for source, error in others:
        first.details = (*first.details, _said_by(source, error), *(f"  {detail}" for detail in error.details))
    return first
