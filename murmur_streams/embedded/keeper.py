"""The keeper: a detached process that starts the server of one folder, and ends it when idle.

Executed by file path (``python -I -S keeper.py BINARY FOLDER SOCKET CONFIG IDLE_SECONDS GUARD``,
where CONFIG is the text of the config file), so that it starts in milliseconds and stays small:
one file, standard library only, nothing of this package. The package in turn takes the file names
and the :class:`ServerConnection` from here.

Guarantees, even when any of the processes is killed:

- The holder of ``flock(FOLDER/lock)`` is the only one to start a server. The server inherits the
  lock, so the next keeper cannot start one while an orphaned server still shuts down.
- The server ends when the keeper does: by PR_SET_PDEATHSIG on Linux, by a guard process elsewhere.
- The keeper ends when the server does.

Standard output carries one verdict to the process that started the keeper: ``busy`` (the lock is
taken), ``ready``, ``gone`` (ended cleanly before it was ready), ``failed`` (the server ended, see
its log from the byte that follows) or ``blocked`` (the reason follows).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time

LOCK = "lock"
LOG = "server.log"
CONFIG = "server.conf"
KEEP = "keep"
SOCKET_RECORD = "server.sock.path"

TICK_SECONDS = 2.0
ANSWER_SECONDS = 5.0
END_SECONDS = 10.0
LOG_BYTES = 1_000_000
PR_SET_PDEATHSIG = 1
EXIT_BUSY = 75  # EX_TEMPFAIL of sysexits.h


class ServerConnection:
    """One blocking connection to the server, for the few commands of this package.

    Raises OSError (TimeoutError included) when the server cannot be reached, hangs or goes away.
    """

    def __init__(self, socket_path: str, seconds: float = ANSWER_SECONDS) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.settimeout(seconds)
            self.socket.connect(socket_path)
        except BaseException:
            self.socket.close()
            raise
        self._replies = self.socket.makefile("rb")

    def ask(self, command: str) -> str:
        """The reply to an inline ``command``; an error reply is returned with its ``-``."""
        self.socket.sendall(command.encode() + b"\r\n")
        line = self._replies.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server closed the connection")
        if line.startswith(b"$"):
            return self._replies.read(int(line[1:]) + 2).decode(errors="replace")
        return line.decode(errors="replace").rstrip()

    def close(self) -> None:
        """Close the connection; never raises."""
        with contextlib.suppress(OSError):
            self._replies.close()
            self.socket.close()


def field(info: str, name: str) -> int | None:
    """The number that ``name`` has in the answer to an INFO command; None: it is not there."""
    value = info.partition(f"\n{name}:")[2].partition("\r")[0]
    return int(value) if value.isdigit() else None


def take_lock(folder: str) -> int | None:
    """A descriptor that holds the folder's lock, inheritable; None: another process holds it."""
    import fcntl  # Not on Windows, where this module is imported but never executed.

    lock = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    os.set_inheritable(lock, True)
    return lock


def write_whole(path: str, text: str) -> None:
    """Replace the file in one step, so that no reader and no crash sees a half of it."""
    with open(path + ".new", "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    os.replace(file.name, path)


def open_log(folder: str) -> int:
    """Append to the folder's log from here on; a long one is set aside first."""
    path = os.path.join(folder, LOG)
    with contextlib.suppress(FileNotFoundError):
        if os.path.getsize(path) > LOG_BYTES:
            os.replace(path, path + ".1")
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(log, f"{os.getpid()}:K * keeper of {folder!r} starts the server\n".encode())
    return log


def say(verdict: str) -> None:
    """Report to the process that started this one, if it still reads."""
    with contextlib.suppress(OSError):
        os.write(1, verdict.encode(errors="replace") + b"\n")


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process (SIGTERM) when ``parent`` ends. Linux only."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # It ended before prctl was called.
        os._exit(1)


def start_server(binary: str, config: str, log: int, by_kernel: bool) -> int:
    """Fork and execute the server, and return its pid; ``by_kernel``: see die_with_parent."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if by_kernel:
            die_with_parent(parent)
        # A locale that the machine does not have would keep some servers from starting.
        os.execve(binary, [binary, config], {**os.environ, "LC_ALL": "C"})
    except OSError as error:
        os.write(log, f"{os.getpid()}:K # cannot run {binary!r}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def start_guard(server: int, lock: int) -> int:
    """Fork a process that ends the server when this one is gone: PDEATHSIG for other systems.

    Returns a descriptor: a byte written to it dismisses the guard (the server's pid is void then).
    """
    ear, mouth = os.pipe()
    if os.fork():
        os.close(ear)
        return mouth
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for descriptor in (mouth, lock, 1, 2):
        os.close(descriptor)
    if not os.read(ear, 1):
        with contextlib.suppress(ProcessLookupError):
            os.kill(server, signal.SIGTERM)
    os._exit(0)


class Keeper:
    """One server, from its start to its end. Single-threaded; holds the folder's lock."""

    def __init__(self, folder: str, socket_path: str, idle_seconds: float, lock: int) -> None:
        self.folder, self.socket_path, self.lock = folder, socket_path, lock
        self.idle_seconds = idle_seconds
        self.tick_seconds = min(TICK_SECONDS, idle_seconds / 4)
        self.connection: ServerConnection | None = None
        self.ready, self.wanted_at = False, time.monotonic()
        self.connections_ever = self.guard = -1
        self.server = self.log_start = 0

    def run(self, binary: str, config: str, guard: bool) -> None:
        """Start the server, watch it until it ends or is idle, and wait for its end."""
        try:
            self.start(binary, config, guard)
            while not self.server_ended():
                if not self.ready:
                    self.report_when_ready()
                elif not self.is_reachable():
                    return
                if not self.is_wanted() and self.closed_the_door():
                    return
                self.pause()
        finally:
            self.end_server()

    def start(self, binary: str, config: str, guard: bool) -> None:
        """Write what the server needs and start it, held by the kernel or by a guard."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket_path)  # Stale: its server would hold the lock.
        write_whole(self.path(SOCKET_RECORD), self.socket_path)
        write_whole(self.path(CONFIG), config)
        log = open_log(self.folder)
        self.log_start = os.fstat(log).st_size
        self.server = start_server(binary, self.path(CONFIG), log, by_kernel=not guard)
        if guard:
            self.guard = start_guard(self.server, self.lock)
        os.dup2(log, 2)
        os.close(log)

    def path(self, name: str) -> str:
        """The path of a file of the folder."""
        return os.path.join(self.folder, name)

    def server_ended(self) -> bool:
        """Whether the server has ended; reports an end before it was ready."""
        pid, status = os.waitpid(self.server, os.WNOHANG)
        if pid == 0:
            return False
        self.server = 0
        if not self.ready:
            say(f"failed {self.log_start}" if status else "gone")
        return True

    def report_when_ready(self) -> None:
        """Say ``ready``, once, when the server has read its data and answers."""
        reply = self.ask("PING")
        if reply is None or reply.startswith("-LOADING"):
            return
        say("ready")
        self.ready = True
        os.dup2(2, 1)  # Closes the pipe, so that its reader stops waiting.

    def ask(self, command: str) -> str | None:
        """The server's reply; None: it gave none now."""
        try:
            if self.connection is None:
                self.connection = ServerConnection(self.socket_path)
            return self.connection.ask(command)
        except OSError:
            self.hang_up()
            return None

    def hang_up(self) -> None:
        """Drop the connection; the next question opens another."""
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def is_reachable(self) -> bool:
        """Whether others still find this server; without its folder, lock or socket it is hidden.

        A hidden server must end, since the next process would start another one.
        """
        try:
            mine, there = os.fstat(self.lock), os.stat(self.path(LOCK))
            return os.path.samestat(mine, there) and os.path.exists(self.socket_path)
        except OSError:
            return False

    def has_visitors(self) -> bool:
        """Whether clients are connected, or were since the last look. Unknown counts as yes."""
        others = field(self.ask("INFO clients") or "", "connected_clients")
        ever = field(self.ask("INFO stats") or "", "total_connections_received")
        if others is None or ever is None:
            return True
        came, self.connections_ever = ever != self.connections_ever, ever
        return came or others > 1

    def is_wanted(self) -> bool:
        """Whether the server should go on: a keep marker, clients now, or clients recently."""
        now = time.monotonic()
        if os.path.exists(self.path(KEEP)) or self.has_visitors():
            self.wanted_at = now
        return now - self.wanted_at < self.idle_seconds

    def closed_the_door(self) -> bool:
        """Rename the socket, then check once more for clients; True: the server may be stopped.

        Without the rename: the keeper sees no clients and decides to stop the server; a client
        connects; the server shuts down, and the client loses its connection at its first command.
        After the rename no client can connect any more. One that connected just before is found
        by the checks. There are two, since the server may answer the first one before it has
        accepted a connection that was made earlier. If a client is found, the name is restored.
        """
        closed = self.socket_path + ".closed"
        try:
            os.rename(self.socket_path, closed)
        except OSError:
            return True
        if not self.has_visitors() and not self.has_visitors():
            return True
        with contextlib.suppress(OSError):
            os.rename(closed, self.socket_path)
        return False

    def pause(self) -> None:
        """Wait for the next look; the end of the server ends the wait at once."""
        seconds = self.tick_seconds if self.ready else 0.01
        if self.connection is None:
            time.sleep(min(seconds, 0.05))
        elif select.select([self.connection.socket], [], [], seconds)[0]:
            self.hang_up()

    def end_server(self) -> None:
        """Shut the server down cleanly (SIGTERM is its SHUTDOWN), by force if it hangs."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.hang_up()
        deadline = time.monotonic() + END_SECONDS
        if self.server:
            os.kill(self.server, signal.SIGTERM)
        while self.server and not self.server_ended():
            if time.monotonic() > deadline:
                os.kill(self.server, signal.SIGKILL)
            time.sleep(0.01)
        for path in (self.socket_path, self.socket_path + ".closed"):
            with contextlib.suppress(OSError):
                os.unlink(path)
        if self.guard >= 0:
            with contextlib.suppress(OSError):
                os.write(self.guard, b"x")


def reset_signals() -> None:
    """Undo what the starting process did to its signals; SIGTERM becomes an orderly end."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # It leaves by an exception, so that the server is shut down on the way out.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))


def main(arguments: list[str]) -> int:
    """Keep one server, in the background; returns the exit code of this process."""
    binary, folder, socket_path, config, idle_seconds, guard = arguments
    os.umask(0o077)
    try:
        lock = take_lock(folder)
        if lock is None:
            say("busy")
            return EXIT_BUSY
        if os.fork():  # The starter reaps this process now, and never has a zombie of ours.
            os._exit(0)
        reset_signals()
        Keeper(folder, socket_path, float(idle_seconds), lock).run(binary, config, guard == "guard")
    except OSError as error:
        say(f"blocked {error.filename or folder!r}: {error.strerror}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
