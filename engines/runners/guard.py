"""Stands between a launcher and an engine, and leaves nothing behind when either ends.

    python -I -S guard.py [--grace SECONDS] [--socket PATH] PARENT_PID -- COMMAND...

PARENT_PID is the process that starts the guard. The guard starts COMMAND in a session of its own and ends with
COMMAND's exit code, 128 + n after signal n. When the parent is gone, or on TERM, INT or HUP, every process that
COMMAND started gets TERM, and after the grace (1 s) KILL, whatever session or group it moved to. Where there is no
/proc (macOS), that is the engine's process group instead. Last of all the guard removes PATH, the Unix socket that
COMMAND listened at, and the folder that it alone was in. Standard library only: it must start in a few milliseconds.

What remains: where the guard itself is killed by KILL, only COMMAND is killed with it, not what COMMAND started.
"""

from __future__ import annotations

# The C part of `signal`, whose Python part imports enum: 6 of the 24 ms that a launch waits for the guard.
import _signal as signal  # type: ignore[import-not-found]
import ctypes
import os
import select
import sys
import time

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
IS_LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
PARENT_POLL_MS = 200
KILL_POLL_S, KILL_LIMIT_S = 0.02, 5.0


def main(arguments: list[str]) -> int:
    options = {"--grace": "1", "--socket": ""}
    while arguments[0] in options:
        options[arguments[0]], arguments = arguments[1], arguments[2:]
    parent, command = int(arguments[0]), arguments[2:]
    wakeup = catch_signals()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    code = 128 + int(signal.SIGTERM)
    if os.getppid() == parent:
        engine = start(command)
        code = end(engine, wait(engine, parent, wakeup), wakeup, float(options["--grace"]))
    remove(options["--socket"])
    return code


def catch_signals() -> int:
    """Return a descriptor that the number of each signal is written to, a byte each."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (*STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return reader


def start(command: list[str]) -> int:
    """Return the process id of `command`, which leads a session and is killed when the guard dies."""
    guard = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        if os.getppid() == guard:
            os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot start `{command[0]}`: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def wait(engine: int, parent: int, wakeup: int) -> int | None:
    """Return the engine's exit code when it ended, or None when it shall be ended."""
    poller = select.poll()
    poller.register(wakeup, select.POLLIN)
    can_watch = _watch(parent, poller)
    while True:
        code = reap(engine)
        if code is not None or os.getppid() != parent:
            return code
        ready = dict(poller.poll(None if can_watch else PARENT_POLL_MS))
        if wakeup in ready and set(os.read(wakeup, 4096)) & set(STOP_SIGNALS):
            return None


def _watch(parent: int, poller: select.poll) -> bool:
    """Let `poller` wake when `parent` ends; False where the system cannot, or its end came before."""
    try:
        poller.register(os.pidfd_open(parent), select.POLLIN)
    except (AttributeError, OSError):
        return False
    return True


def end(engine: int, code: int | None, wakeup: int, grace_s: float) -> int:
    """Return the engine's exit code once none of its processes is left: TERM, after the grace KILL."""
    kill_at = time.monotonic() + grace_s
    if is_anything_left(engine):
        send(engine, signal.SIGTERM)
    while True:
        ended = reap(engine)
        code = ended if code is None else code
        left_s = kill_at - time.monotonic()
        if not is_anything_left(engine) or left_s < -KILL_LIMIT_S:
            return 128 + signal.SIGKILL if code is None else code
        if left_s <= 0:
            send(engine, signal.SIGKILL)
        if select.select([wakeup], [], [], left_s if left_s > 0 and IS_LINUX else KILL_POLL_S)[0]:
            os.read(wakeup, 4096)


def reap(engine: int) -> int | None:
    """Take every ended child away; return the engine's exit code if it was among them."""
    code = None
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == engine:
                code = os.waitstatus_to_exitcode(ended[1])
                code = 128 - code if code < 0 else code
    except ChildProcessError:
        pass
    return code


def is_anything_left(engine: int) -> bool:
    try:
        if IS_LINUX:  # every descendant hangs below some child, for the guard is their reaper
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        else:
            os.killpg(engine, 0)
    except (ChildProcessError, ProcessLookupError, PermissionError):
        return False
    return True


def send(engine: int, number: int) -> None:
    for pid in descendants() if IS_LINUX else [-engine]:
        try:
            os.kill(pid, number)
        except OSError:
            continue


def descendants() -> list[int]:
    """Return every process that has this one among its ancestors."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as stat:
                parent = int(stat.read().rpartition(b")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(name))
    found = [os.getpid()]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found[1:]


def remove(socket: str) -> None:
    """Remove a socket and its folder, as far as they are there."""
    for remove_, path in ((os.unlink, socket), (os.rmdir, os.path.dirname(socket))):
        try:
            remove_(path)
        except OSError:
            continue


def _prctl(option: int, value: int) -> None:
    if IS_LINUX:
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # sys.exit would first give the signals back to the system: a late TERM would kill
