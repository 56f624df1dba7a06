"""`launch cache`: what is on disk, whether it is right, and how it goes; nothing goes before it was shown."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from launcher.cache import Entry, bytes_of, cache_folders, read_inventory
from launcher.cache_removal import Removal, choose_named, choose_old, plan_removal, remove
from launcher.cache_use import InUseError
from launcher.cache_verify import Finding, verify
from launcher.cli.options import Printing, UsageError, grouped, option, quantity
from launcher.output import Output, format_bytes, format_count, is_terminal
from launcher.quantities import parse_size_bytes, parse_time_s
from registry.errors import DigestError
from registry.progress import with_rate

HEADINGS = ("NAME", "WHAT", "SIZE", "LAST USE", "HUB", "COMMIT")
SHORT_COMMIT = 7

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]…", help="Models; all if none.")]
Removed = Annotated[list[str], typer.Argument(metavar="NAME…", help="Models, also as NAME:Q4_K_M; engines.")]
Yes = Annotated[bool, option("-y --yes", None, "Remove without being asked.")]
OlderThan = Annotated[str | None, option("--older-than", "TIME", "What was last used longer ago: 30d, 2w, 12h.")]
Keep = Annotated[str | None, option("--keep", "SIZE", "The longest unused, until the rest takes no more: 50GB.")]


def group(settings: dict[str, Any], command_class: Any) -> typer.Typer:
    """Return the commands under `launch cache`; without one, what is there is listed."""
    app = typer.Typer(invoke_without_command=True, help="List, verify and remove what was fetched.", **settings)
    app.callback()(grouped(_list_unless_told))
    commands: dict[str, Callable[..., None]] = {
        "list": _list,
        "verify": _verify,
        "rm": _rm,
        "prune": _prune,
        "path": _path,
    }
    for name, function in commands.items():
        app.command(name, cls=command_class, context_settings=settings["context_settings"])(grouped(function))
    app.command("size", cls=command_class, hidden=True)(grouped(_list))
    return app


def _list_unless_told(context: typer.Context, printing: Printing) -> None:
    if context.invoked_subcommand is None:
        _list(printing)


def _list(printing: Printing) -> None:
    """List what is on disk, with its size and last use."""
    output = printing.output()
    inventory = read_inventory()
    output.table(HEADINGS, [_row(entry) for entry in inventory], [_record(entry) for entry in inventory])
    output.say(f"{format_bytes(bytes_of(inventory))} in all")


def _path(printing: Printing) -> None:
    """Show the folders in which files are placed."""
    folders = cache_folders()
    records = [{"name": name, "path": str(path)} for name, path in folders.items()]
    printing.output().table(("CACHE", "PATH"), [(name, str(path)) for name, path in folders.items()], records)


# --- are they right? --------------------------------------------------------------------------------------------------


def _verify(printing: Printing, names: Names = None) -> None:
    """Read every byte again; exit with 1 if one is wrong."""
    output = printing.output()
    findings: list[Finding] = []
    for finding in verify(_chosen(read_inventory(), names), with_rate(output.progress)):
        findings.append(finding)
        output.event("file", {"name": finding.entry.name, "path": str(finding.location), "state": finding.state})
    output.end_progress()
    bad = [each for each in findings if each.state in ("wrong", "missing")]
    if bad:
        raise _wrong(bad)
    unknown = [each for each in findings if each.state == "unknown"]
    for each in unknown:
        output.say(f"nobody vouches for `{each.location}`")
    right = len(findings) - len(unknown)
    output.event("verified", {"right": right, "unknown": len(unknown)})
    output.say(f"{format_count(right, 'file')} verified, {format_bytes(bytes_of(each.entry for each in findings))}")


def _wrong(bad: Sequence[Finding]) -> DigestError:
    entry, count = bad[0].entry, len(bad)
    options = {"-f": entry.model_format, "-q": entry.quantization, "--hub": entry.hub}
    again = " ".join(("launch pull", entry.name, *(f"{option} {value}" for option, value in options.items() if value)))
    error = DigestError(
        f"{format_count(count, 'file')} {'is' if count == 1 else 'are'} not what was vouched for",
        path=str(bad[0].location),
        expected=str(bad[0].expected),
        actual=str(bad[0].actual),
        hint=f"`{again}` fetches what is wrong anew; `launch cache rm {entry.name}` removes it",
    )
    error.details = tuple(f"`{each.location}` {_fault(each)}" for each in bad)
    return error


def _fault(finding: Finding) -> str:
    if finding.state == "missing":
        return "is a link to nothing"
    return f"is {finding.actual}, not {finding.expected}"


def _chosen(inventory: Sequence[Entry], names: Sequence[str] | None) -> list[Entry]:
    if not names:
        return list(inventory)
    meant = [entry for name in names for entry in choose_named(inventory, name)]
    return [entry for entry in inventory if entry in meant]


# --- what goes --------------------------------------------------------------------------------------------------------


def _rm(printing: Printing, names: Removed, yes: Yes = False) -> None:
    """Remove models or environments; ask first."""
    done = _carry_out(_chosen(read_inventory(), names), printing.output(), is_sure=yes)
    if done.kept:
        raise InUseError(
            f"`{done.kept[0].name}` is in use",
            details=[f"`{entry.folder}`" for entry in done.kept],
            hint="stop what runs it, or wait until its download has ended",
        )


def _prune(printing: Printing, older_than: OlderThan = None, keep: Keep = None, yes: Yes = False) -> None:
    """Remove what was not used for long; ask first."""
    if older_than is None and keep is None:
        raise UsageError("Nothing says what is to go", hint="--older-than 30d, --keep 50GB, or both")
    old = choose_old(
        read_inventory(),
        now=time.time(),
        older_than_s=None if older_than is None else quantity("--older-than", older_than, parse_time_s),
        keep_bytes=None if keep is None else quantity("--keep", keep, parse_size_bytes),
    )
    _carry_out(old, printing.output(), is_sure=yes)


def _carry_out(chosen: Sequence[Entry], output: Output, *, is_sure: bool) -> Removal:
    """Show what goes, and remove it once that is agreed to; return what was done, or would be."""
    plan = plan_removal(chosen)
    if plan.entries and not output.as_json and not output.quiet:
        output.table(HEADINGS, [_row(entry) for entry in plan.entries], ())
    for entry in plan.kept:
        output.say(f"{entry.name} {_what(entry)} stays: it is in use")
    if (shared_bytes := bytes_of(plan.entries) - plan.freed_bytes) > 0:
        output.say(
            f"{format_bytes(shared_bytes)} of it stay on disk: other files, or programs such as uv, keep them too"
        )
    if not plan.entries:
        output.say("there is nothing to remove")
    elif not is_sure and not _agrees(plan, output):
        output.event("planned", _removal(plan))
        output.say(f"nothing was removed; --yes frees {format_bytes(plan.freed_bytes)}")
        return plan
    done = remove(plan)
    output.event("removed", _removal(done))
    if done.entries:
        output.say(f"{format_bytes(done.freed_bytes)} freed")
    return done


def _agrees(plan: Removal, output: Output) -> bool:
    if output.as_json or output.quiet or not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        return False
    return typer.confirm(f"Remove this, {format_bytes(plan.freed_bytes)}?", err=True)


# --- in words, and for programs ---------------------------------------------------------------------------------------


def _row(entry: Entry) -> tuple[str, ...]:
    size = format_bytes(entry.size_bytes)
    return entry.name, _what(entry), size, _last_use(entry), entry.hub, _short(entry.revision)


def _what(entry: Entry) -> str:
    if entry.kind != "model":
        return entry.kind
    return f"{entry.model_format} {entry.quantization}".strip() or "other files"


def _last_use(entry: Entry) -> str:
    if entry.is_running:
        return "in use"
    return "" if entry.last_used is None else time.strftime("%Y-%m-%d", time.localtime(entry.last_used))


def _short(revision: str) -> str:
    kind, _, value = revision.rpartition(":")
    is_hash = re.fullmatch(r"[0-9a-f]{32,64}", value) is not None
    return f"{kind} {value[:SHORT_COMMIT]}".strip() if is_hash else revision


def _record(entry: Entry) -> dict[str, Any]:
    used = None if entry.last_used is None else datetime.fromtimestamp(entry.last_used, UTC).isoformat("T", "seconds")
    return {
        "name": entry.name,
        "kind": entry.kind,
        "model_format": entry.model_format or None,
        "quantization": entry.quantization or None,
        "size_bytes": entry.size_bytes,
        "last_used": used,
        "in_use": entry.is_running,
        "hub": entry.hub or None,
        "repo_id": entry.repo_id or None,
        "revision": entry.revision or None,
        "folder": str(entry.folder),
        "files": [str(path) for path in entry.files],
    }


def _removal(removal: Removal) -> dict[str, Any]:
    return {
        "entries": _records(removal.entries),
        "kept": _records(removal.kept),
        "freed_bytes": removal.freed_bytes,
    }


def _records(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    return [_record(entry) for entry in entries]
