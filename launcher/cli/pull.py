"""`launch pull NAME`: fetches and verifies, starts nothing."""

from __future__ import annotations

from launcher.cli.options import Name, Network, Pinned, Printing, Which, model_of, request_of
from launcher.cli.running import announce, plan_of


def command(which: Which, network: Network, pinned: Pinned, printing: Printing, name: Name = None) -> None:
    from launcher.cache_use import record_use
    from launcher.fetching import fetch
    from launcher.settling import settle

    output = printing.output()
    plan = plan_of(model_of(name, which, pinned), request_of(which, network, pinned))
    plan = settle(plan, output.progress)
    announce(plan, output, with_engine=False)
    plan, files = fetch(plan, output.progress)
    record_use(plan, files)
    output.end_progress()
    if output.as_json:
        output.event("pulled", {"path": str(files.path), "files": [str(file.location) for file in files.files]})
    else:
        output.lines([str(files.path)])
