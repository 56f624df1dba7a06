"""A running engine with a model in it: environment and files made ready, process started, stopped with its owner."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engines.base import Settings
from engines.index import engine_named
from engines.process import EngineProcess, new_address
from engines.running import is_healthy
from launcher.fetching import fetch
from launcher.instances import MARK, find_standing_in, forget, log_name, new_number, new_record, update
from launcher.plans import Plan
from registry.cache import cache_folder
from registry.errors import EngineNotInstalledError, GenerationError
from registry.progress import Progress
from registry.store import FileSet

if TYPE_CHECKING:
    from engines.generation import Target
    from engines.running import RunningEngine
    from launcher.cache_use import Hold
    from launcher.instances import Record

# Large models take minutes to read from a slow disk; what hangs for longer than this is broken.
READY_WITHIN_S = 1800.0
LOGS_KEPT = 20
# vLLM looks every five seconds whether its engine process is still there, and ends where it is not (0.32).
ENDS_WITHIN_S = 8.0

Report = Callable[[Progress], None]


class Instance:
    """A running engine, which others may use, too; `record` is what they can know of it.

    `stop` may be called more than once and from any thread; a forked child's call does nothing.
    """

    def __init__(self, plan: Plan, process: RunningEngine, target: Target, held: Hold, record: Record) -> None:
        self.plan = plan
        self.process = process
        self.target = target
        self.record = record
        self._held = held
        self._owner_pid = os.getpid()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The open records of what it reads, locked against removal."""
        return self._held.descriptors

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Let a request that broke because the engine ended say why that was, in a LoadError."""
        try:
            yield
        except GenerationError:
            if not is_healthy(self.process.address) and self.process.wait_ended(ENDS_WITHIN_S):
                raise self.process.failure() from None
            raise

    def stop(self) -> None:
        """Let go of the engine, which ends with everything that it started unless others use it or it is kept."""
        if os.getpid() == self._owner_pid:
            if not self.process.stop():
                forget(self.record)
            self._held.release()


def attach(plan: Plan, keep_s: float = 0) -> Instance | None:
    """Return an instance that runs already and does all that the plan asks for, or None."""
    if (found := find_standing_in(plan)) is None:
        return None
    from engines.attached import AttachedEngine
    from launcher.cache_use import hold
    from launcher.targets import target_of

    try:
        process = AttachedEngine(engine_named(plan.engine), found.address, Path(found.log), found.guard.pid)
        if keep_s:
            process.keep(keep_s)
    except OSError:  # it has just ended
        return None
    settings = plan.settings._replace(context_length=found.context_length, slots=found.concurrency)
    plan = replace(plan, settings=settings)
    files = plan.found_files if plan.needs_weights and plan.found_files.is_complete else None
    target = target_of(plan, None if files is None else files.path)
    return Instance(plan, process, target, hold(plan, files, plan.environment.python), found)


def start_instance(
    plan: Plan,
    report: Report,
    *,
    is_probed: bool = True,
    keep_s: float = 0,
    is_shared: bool = True,
    on_poll: Callable[[], None] = lambda: None,
) -> Instance:
    """Return the plan's engine, ready: it answers its health endpoint and, if `is_probed`, has generated a token.

    It stays for `keep_s` after its last user; if not `is_shared`, nobody else can use it. `on_poll` is called several
    times a second while the engine loads; what it raises ends that. Raises EngineNotInstalledError, DownloadError,
    LoadError; whatever was started is stopped then.
    """
    python = prepare_environment(plan, report)
    files = None
    if plan.needs_weights:
        plan, files = fetch(plan, report)
    instance, started = _start(plan, python, files, keep_s)
    try:
        _wait(instance, report, on_poll, is_probed=is_probed)
        if is_shared:
            started.share(instance.descriptors)
        key = instance.record.key if is_shared else ""
        instance.record = update(instance.record._replace(is_ready=True, key=key))
    except BaseException:
        instance.stop()
        raise
    return instance


def prepare_environment(plan: Plan, report: Report) -> str:
    """Return the Python of the engine's environment, which is made first where it is not there."""
    if plan.environment.is_installed or plan.requirements is None:
        return plan.environment.python
    if not plan.may_install:
        raise EngineNotInstalledError(
            f"`{plan.engine}` is not installed, and setting it up was forbidden",
            hint=f"launch engines install {plan.engine}",
        )
    from launcher.setups import install

    return install(plan.engine, plan.requirements, report).python


def _start(plan: Plan, python: str, files: FileSet | None, keep_s: float) -> tuple[Instance, EngineProcess]:
    number = new_number()
    engine = engine_named(plan.engine)
    address = new_address()
    settings = plan.settings if files is None else _with_path(plan.settings, files.path)
    process = EngineProcess.start(
        engine,
        engine.command(python, settings, address),
        address=address,
        log_path=_new_log(settings.name),
        variables={**engine.variables(settings), MARK: number},
        keep_s=keep_s,
    )
    # While the engine loads there is time to import what speaks to it, and to note what it uses.
    import engines.session  # noqa: F401
    from launcher.cache_use import hold
    from launcher.targets import target_of

    target = target_of(plan, None if files is None else files.path)
    record = new_record(plan, process, number)
    return Instance(plan, process, target, hold(plan, files, python), record), process


def _with_path(settings: Settings, path: Path) -> Settings:
    return settings if settings.model_path == path else settings._replace(model_path=path)


def _wait(instance: Instance, report: Report, on_poll: Callable[[], None], *, is_probed: bool) -> None:
    report(Progress("load", 0, None, f"loading {instance.plan.name}"))

    def tell(line: str) -> None:
        if stage := instance.process.engine.stage_of(line):
            report(Progress("load", 0, None, stage))
        report(Progress("log", 0, None, line))

    instance.process.wait_ready(READY_WITHIN_S, tell, on_poll)
    if is_probed:
        _probe(instance)
    report(Progress("load", 1, 1, "ready"))


def _probe(instance: Instance) -> None:
    """Generate one token, or a vector: a health endpoint alone does not show that the model runs."""
    from engines.session import Session

    session = Session(instance.process.address, instance.target)
    with instance.explaining():
        if "embed" in instance.target.abilities:
            session.embed(["Hello"])
        else:
            session.generate("Hello", max_tokens=1)


def _new_log(name: str) -> Path:
    """Return a log file's path, and forget the oldest logs of what has ended."""
    folder = cache_folder() / "logs"
    if len(logs := list(folder.glob("*.log"))) >= LOGS_KEPT:
        from launcher.servers import logs_being_written

        written = logs_being_written()
        ended = sorted((log for log in logs if str(log) not in written), key=lambda path: path.stat().st_mtime_ns)
        for old in ended[: len(logs) - LOGS_KEPT + 1]:
            old.unlink(missing_ok=True)
    when = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{time.monotonic_ns() % 1_000_000:06d}"
    return folder / f"{log_name(name)}-{when}.log"
