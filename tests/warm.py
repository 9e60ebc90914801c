"""Processes that begin as copies of one that has imported the package already.

A short command spends most of its time on Python's imports. A copy is a process like any other,
with its own id, signals, exit code and files, and its module runs as by ``python -m``; but it
begins in milliseconds. ``python -m tests.warm FD`` is the process that is copied. Each process of a
test run has one; it ends when that process does.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from murmur_streams.stores.redis.scripts import load_scripts

ROOT = Path(__file__).resolve().parents[1]
_NUMBER = struct.Struct("!i")
IMPORTED = (
    *("murmur_streams.cli.shell.app", "murmur_streams.fleet.worker", "murmur_streams.testing"),
    *("murmur_streams.server.app", "murmur_streams.client", "uvicorn", "uvloop"),
)
_COLOURS = ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS")
"""Libraries read these variables once, at their import, so the original must not have them."""


class WarmProcess:
    """``python -W error -m MODULE ARGUMENTS ...``, copied, with the part of Popen that tests use.

    Args:
        module: the module to run.
        arguments: the arguments of the command line.
        cwd: its folder, in which it also looks for modules first.
        env: its whole environment.
        stdin: a file or pipe with a descriptor, as are the next two.
        stdout: the same.
        stderr: the same.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        cwd: Path,
        env: Mapping[str, str],
        stdin: IO[Any],
        stdout: IO[Any],
        stderr: IO[Any],
    ) -> None:
        self._lock = threading.Lock()
        self._reports, report = os.pipe()
        order = {"module": module, "arguments": arguments, "cwd": str(cwd), "env": dict(env)}
        text = json.dumps(order).encode()
        files = [stdin.fileno(), stdout.fileno(), stderr.fileno(), report]
        original = _original()
        with original.lock:
            socket.send_fds(original.line, [_NUMBER.pack(len(text))], files)
            original.line.sendall(text)
        os.close(report)
        self.returncode: int | None = None
        self.pid = self._number()

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        with self._lock:
            if self.returncode is None:
                ended = select.poll()
                ended.register(self._reports, select.POLLIN)
                if not ended.poll(None if timeout is None else timeout * 1000):
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
                self.returncode = self._number()
                os.close(self._reports)
            return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def _number(self) -> int:
        return _NUMBER.unpack(os.read(self._reports, _NUMBER.size))[0]


class StartedProcess(WarmProcess):
    """A copy that goes on beside the test, with pipes from its stdout and stderr, as Popen has."""

    def __init__(self, module: str, *arguments: str, cwd: Path, env: Mapping[str, str]) -> None:
        (out, its_out), (err, its_err) = os.pipe(), os.pipe()
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(err)
        self._texts: dict[IO[str], str] = {}
        self._readers: list[threading.Thread] = []
        with (
            Path(os.devnull).open("rb") as stdin,
            os.fdopen(its_out, "wb") as stdout,
            os.fdopen(its_err, "wb") as stderr,
        ):
            files = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
            super().__init__(module, *arguments, cwd=cwd, env=env, **files)

    def terminate(self) -> None:
        """SIGTERM, unless it has ended."""
        self.send_signal(signal.SIGTERM)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; the rest of what it wrote on stdout and stderr."""
        if not self._readers:
            self._readers = [
                threading.Thread(target=self._read, args=(file,), daemon=True)
                for file in (self.stdout, self.stderr)
            ]
            for reader in self._readers:
                reader.start()
        for reader in self._readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        self.wait(timeout)
        return self._texts[self.stdout], self._texts[self.stderr]

    def _read(self, file: IO[str]) -> None:
        # A test that reads no more has closed it.
        self._texts[file] = "" if file.closed else file.read()
        file.close()


class _Original:
    """The process that is copied, and the socket that carries the orders to it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.line, its_end = socket.socketpair()
        with its_end:
            command = [sys.executable, "-W", "error", "-m", "tests.warm", str(its_end.fileno())]
            env = {name: text for name, text in os.environ.items() if name not in _COLOURS}
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=env, pass_fds=[its_end.fileno()], stdin=subprocess.DEVNULL
            )


@functools.cache
def _original() -> _Original:
    return _Original()


class _Copier:
    """Copies this process at each order, and reports how the copies end."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._copies: dict[int, int] = {}
        self._wakes, wake = socket.socketpair()
        self._wakes.setblocking(False)
        wake.setblocking(False)
        self._wake = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)

    def close(self) -> None:
        """Copy no more."""
        signal.set_wakeup_fd(-1)
        for each in (self._line, self._wakes, self._wake):
            each.close()

    def serve(self) -> dict[str, Any] | None:
        """Copy this process until the line is closed. Returns in a copy, with its order."""
        while True:
            readable, _, _ = select.select([self._line, self._wakes], [], [])
            if self._wakes in readable:
                self._wakes.recv(4096)
                self._report_ends()
            if self._line in readable:
                head, files, _, _ = socket.recv_fds(self._line, _NUMBER.size, 4)
                if not head:
                    self.close()
                    return None
                order = self._line.recv(_NUMBER.unpack(head)[0], socket.MSG_WAITALL)
                if self._is_copy(files):
                    return json.loads(order)

    def _is_copy(self, files: list[int]) -> bool:
        *standard, report = files
        pid = os.fork()
        if pid:
            self._copies[pid] = report
            os.write(report, _NUMBER.pack(pid))
        else:
            self.close()
            # A shell's background job ignores SIGINT, one of nohup SIGHUP; so would all its copies.
            for number in (signal.SIGCHLD, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            for number, file in enumerate(standard):
                os.dup2(file, number)
        for file in standard if pid else [*files, *self._copies.values()]:
            os.close(file)
        return not pid

    def _report_ends(self) -> None:
        for pid, report in list(self._copies.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                os.write(report, _NUMBER.pack(os.waitstatus_to_exitcode(status)))
                os.close(self._copies.pop(pid))


def main() -> None:
    """Import what the copies need, then make copies; each copy runs the module of its order."""
    for module in IMPORTED:
        importlib.import_module(module)
    load_scripts()
    # A collection in a copy would copy the memory of all that was imported.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    order = _Copier(socket.socket(fileno=int(sys.argv[1]))).serve()
    if order is not None:
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["env"])
        sys.path[0] = order["cwd"]
        sys.argv = [order["module"], *order["arguments"]]
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
