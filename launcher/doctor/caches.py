"""What the caches hold, and what in them is left over; whether the catalogue can be read."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from launcher.cache import Entry, bytes_of, read_inventory
from launcher.doctor.findings import Finding
from launcher.output import format_bytes, format_count
from registry.catalogue import read_layers
from registry.errors import CatalogueError

AREA = "cache"


def examine() -> Iterator[Finding]:
    """Yield how much there is of what, and every download that has not come to its end."""
    try:
        count = len(read_layers(()).models)
    except CatalogueError as error:  # without it, nobody knows what the caches hold
        yield Finding.of_error(AREA, "catalogue", error)
        return
    yield Finding(AREA, "catalogue", "ok", format_count(count, "model"), facts={"models": count})
    inventory = read_inventory()
    for name, kind in (("models", "model"), ("environments", "environment")):
        yield _sum(name, [entry for entry in inventory if entry.kind == kind])
    yield from (judge_leftover(entry) for entry in inventory if entry.kind == "leftover")


def _sum(name: str, entries: Sequence[Entry]) -> Finding:
    size_bytes = bytes_of(entries)
    text = f"{len(entries)}, {format_bytes(size_bytes)}" if entries else "none"
    return Finding(AREA, name, "ok", text, facts={"entries": len(entries), "size_bytes": size_bytes})


def judge_leftover(entry: Entry) -> Finding:
    """Return what a download that was cut short takes, and how it goes on or goes away."""
    facts = {"size_bytes": entry.size_bytes, "folder": str(entry.folder), "in_use": entry.is_running}
    text = f"{entry.name}, {format_bytes(entry.size_bytes)} of unfinished files"
    if entry.is_running:
        return Finding(AREA, "unfinished", "ok", f"{text}, which may be coming now", facts=facts)
    name = shlex.quote(entry.name)
    remedy = f"`launch pull {name}` goes on with them; `launch cache rm {name}` removes all of it"
    return Finding(AREA, "unfinished", "warning", text, remedy, facts)
