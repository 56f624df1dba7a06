"""Stands between a launcher and an engine, and leaves nothing behind when either ends.

    python -I -S guard.py [--grace SECONDS] [--socket PATH] [--handles PATH] [--keep SECONDS] PARENT_PID -- COMMAND...

PARENT_PID is the process that starts the guard. The guard starts COMMAND in a session of its own and ends with
COMMAND's exit code, 128 + n after signal n. When nobody uses it any more, or on TERM, INT or HUP, every process that
COMMAND started gets TERM, and after the grace (1 s) KILL, whatever session or group it moved to. Where there is no
/proc (macOS), that is the engine's process group instead. Last of all the guard removes the Unix sockets: the one that
COMMAND listened at, its own, and the folder that they alone were in. Standard library only: it must start in a few
milliseconds.

The parent uses COMMAND until it ends, and whoever is connected to the socket of `--handles` until it closes its end, or
ends. The parent may connect, too, and then counts by that alone. After the last one the guard waits for `--keep`
seconds (0) whether another comes; `keep SECONDS` sent over a connection makes that longer. Where the engine goes on, a
connection that was closed is answered by `+` and closed at once; the last one is closed when all is over. Descriptors
that come with `hold` stay open as long as the guard runs, and with them the locks that they hold.

What remains: where the guard itself is killed by KILL, only COMMAND is killed with it, not what COMMAND started.
"""

from __future__ import annotations

# The C part of `signal`, whose Python part imports enum: 6 of the 24 ms that a launch waits for the guard.
import _signal as signal  # type: ignore[import-not-found]

# Likewise: `socket` would take 8 ms.
import _socket as socket
import ctypes
import os
import select
import sys
import time

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
IS_LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
PARENT_POLL_MS = 200
# Some tens of descriptors may come with what users say.
DESCRIPTORS_BYTES = 256
KILL_POLL_S, KILL_LIMIT_S = 0.02, 5.0


def main(arguments: list[str]) -> int:
    options = {"--grace": "1", "--socket": "", "--handles": "", "--keep": "0"}
    while arguments[0] in options:
        options[arguments[0]], arguments = arguments[1], arguments[2:]
    parent, command = int(arguments[0]), arguments[2:]
    wakeup = catch_signals()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    code = 128 + int(signal.SIGTERM)
    if os.getppid() == parent:
        users = Users(parent, options["--handles"], float(options["--keep"]))
        engine = start(command)
        code = end(engine, wait(engine, users, wakeup), wakeup, float(options["--grace"]))
    remove(options["--socket"], options["--handles"])
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


def wait(engine: int, users: Users, wakeup: int) -> int | None:
    """Return the engine's exit code when it ended, or None when it shall be ended."""
    users.poller.register(wakeup, select.POLLIN)
    while True:
        code = reap(engine)
        if code is not None or users.are_gone():
            return code
        ready = [descriptor for descriptor, _ in users.poller.poll(users.wait_ms())]
        if wakeup in ready and set(os.read(wakeup, 4096)) & set(STOP_SIGNALS):
            return None
        users.look_at(ready)


class Users:
    """Who uses the engine: the parent, and every connection to the socket at `path`, if there is one."""

    def __init__(self, parent: int, path: str, keep_s: float) -> None:
        self.poller = select.poll()
        self._parent = parent
        self._is_parent_one = True
        self._keep_s = keep_s
        self._kept_since = time.monotonic()
        self._connections: dict[int, socket.socket] = {}
        self._processes: dict[int, int] = {}  # by the descriptor that tells of a process's end
        self._last: list[socket.socket] = []
        self._can_watch = self._watch(parent)
        self._listener = _listen(path) if path else None
        if self._listener is not None:
            self.poller.register(self._listener.fileno(), select.POLLIN)

    def are_gone(self) -> bool:
        """Return whether there is none any more, and has been none for as long as the engine is to be kept."""
        if self._is_parent_one and os.getppid() != self._parent:
            self._is_parent_one = False
            self._kept_since = time.monotonic()
        return not self._are_there() and time.monotonic() >= self._kept_since + self._keep_s

    def wait_ms(self) -> float | None:
        """Return for how long nothing can change unless the poller says so."""
        if not self._are_there():
            return max(0.0, self._kept_since + self._keep_s - time.monotonic()) * 1000 + 1
        return None if self._can_watch else PARENT_POLL_MS

    def look_at(self, ready: list[int]) -> None:
        """Take note of who came and went."""
        for descriptor in ready:
            if self._listener is not None and descriptor == self._listener.fileno():
                self._welcome()
            elif descriptor in self._connections:
                self._hear(descriptor)
            elif descriptor in self._processes:
                self._mourn(descriptor)

    def _are_there(self) -> bool:
        return self._is_parent_one or bool(self._connections)

    def _welcome(self) -> None:
        assert self._listener is not None
        descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]
        connection = socket.socket(fileno=descriptor)
        connection.setblocking(False)
        self._connections[descriptor] = connection
        self.poller.register(descriptor, select.POLLIN)
        process = _peer(connection)
        if process == self._parent:
            self._is_parent_one = False
        elif process:
            self._watch(process)

    def _hear(self, descriptor: int) -> None:
        try:
            said = self._connections[descriptor].recvmsg(64, DESCRIPTORS_BYTES)[0]  # what comes with it stays open
        except OSError:
            said = b""
        if not said:
            self._part(descriptor)
        elif said.startswith(b"keep ") and said[5:].strip().isdigit():
            self._keep_s = max(self._keep_s, int(said[5:]))

    def _mourn(self, descriptor: int) -> None:
        """Forget a process that ended: copies of its connections may be open in what it forked."""
        self.poller.unregister(descriptor)
        os.close(descriptor)
        process = self._processes.pop(descriptor)
        for each in [each for each, connection in self._connections.items() if _peer(connection) == process]:
            self._part(each)

    def _part(self, descriptor: int) -> None:
        self.poller.unregister(descriptor)
        connection = self._connections.pop(descriptor)
        self._kept_since = time.monotonic()
        if not self._are_there() and not self._keep_s:
            self._last.append(connection)  # closed by this process's end
            return
        try:
            connection.send(b"+")
        except OSError:
            return  # it was killed, and hears nothing
        finally:
            connection.close()

    def _watch(self, process: int) -> bool:
        """Let the poller wake when a process ends; False where the system cannot, or its end came before."""
        if process in self._processes.values():
            return True
        try:
            descriptor = os.pidfd_open(process)
        except (AttributeError, OSError):
            return False
        self._processes[descriptor] = process
        self.poller.register(descriptor, select.POLLIN)
        return True


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    return listener


def _peer(connection: socket.socket) -> int:
    """Return the process at the other end, 0 where the system does not tell."""
    if not IS_LINUX:
        return 0
    credentials: bytes = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], sys.byteorder)


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


def remove(*sockets: str) -> None:
    """Remove sockets and the folder of the first, as far as they are there."""
    for remove_, path in (*((os.unlink, path) for path in sockets), (os.rmdir, os.path.dirname(sockets[0]))):
        try:
            remove_(path)
        except OSError:
            continue


def _prctl(option: int, value: int) -> None:
    if IS_LINUX:
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # sys.exit would first give the signals back to the system: a late TERM would kill
