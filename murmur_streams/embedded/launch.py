"""Starts a keeper, and explains in one error why a server did not start."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from pathlib import Path

from murmur_streams.core.model.errors import EmbeddedServerError
from murmur_streams.embedded import keeper
from murmur_streams.embedded.address import new_socket
from murmur_streams.embedded.binary import find_binary
from murmur_streams.embedded.config_file import config_text

# What ends the server when its keeper was killed: the kernel on Linux, elsewhere a guard process.
WATCHED_BY = "kernel" if sys.platform == "linux" else "guard"
_LOG_LINES = 4
_LOG_TAIL_BYTES = 64_000
_NOISE = ("oO0OoO0Oo", "overcommit", "Transparent Huge", "Configuration loaded", "TCP backlog")


def launch_keeper(folder: Path, idle_seconds: float, deadline: float) -> None:
    """Start a keeper for the folder; back when it is ready, lost a race, or ``deadline`` is over.

    ``deadline`` is of time.monotonic(). Raises EmbeddedServerError when the server cannot start.
    """
    socket_path = new_socket(folder, os.environ)
    binary = find_binary()
    command = (*_interpreter(), str(Path(keeper.__file__).absolute()))
    config = config_text(folder, socket_path)
    arguments = (str(binary), str(folder), str(socket_path), config, str(idle_seconds), WATCHED_BY)
    said = _run_until_verdict((*command, *arguments), deadline)
    verdict, _, rest = said.partition(" ")
    if verdict == "failed":
        raise _failed_start(folder, int(rest))
    if verdict == "blocked":
        raise EmbeddedServerError(
            f"the embedded server in {str(folder)!r} cannot start: {rest}; free the disk or "
            "correct the permissions, or choose another folder with MURMUR_DATA_DIR"
        )
    if verdict not in ("", "ready", "busy", "gone"):
        raise EmbeddedServerError(
            f"the process that starts the embedded server broke down ({said.splitlines()[-1]}): "
            "set MURMUR_URL to a running Redis or Valkey, or to sqlite:runs.db"
        )


def _interpreter() -> tuple[str, ...]:
    """The command that runs a Python file, isolated from the environment and site-packages."""
    if not sys.executable or getattr(sys, "frozen", False):
        raise EmbeddedServerError(
            "the embedded server needs a Python interpreter to watch it, and a frozen program has "
            "none: set MURMUR_URL to a running Redis or Valkey, or to sqlite:runs.db"
        )
    return (sys.executable, "-I", "-S")


def _run_until_verdict(command: tuple[str, ...], deadline: float) -> str:
    """Start the detached process and return what it said; "" when it was silent till the end."""
    import subprocess  # Heavy, and needed only here, when a server is to be started.

    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,  # Ctrl-C is for the caller's group: it must not reach it.
        )
    except OSError as error:
        raise EmbeddedServerError(
            f"cannot run {command[0]!r} to start the embedded server: {error.strerror}; "
            "set MURMUR_URL to a running Redis or Valkey, or to sqlite:runs.db"
        ) from None
    with process:  # It puts itself into the background and is reaped here: no zombie stays.
        return _read_until(process.stdout.fileno(), deadline) if process.stdout else ""


def _read_until(descriptor: int, deadline: float) -> str:
    said = b""
    while (left := deadline - time.monotonic()) > 0:
        poll = select.poll()  # select() fails on descriptors over 1023.
        poll.register(descriptor, select.POLLIN)
        if poll.poll(left * 1000):
            part = os.read(descriptor, 4096)
            said += part
            if not part:
                break
    return said.decode(errors="replace").strip()


def _failed_start(folder: Path, log_start: int) -> EmbeddedServerError:
    """The error of a server that ended while it started, with what its log says."""
    log = folder / keeper.LOG
    lines = relevant_lines(_log_from(log, log_start))
    return EmbeddedServerError(
        f"the embedded server in {str(folder)!r} cannot start; its log says:\n"
        + "".join(f"  {line}\n" for line in lines)
        + f"The whole log: {str(log)!r}. Your data was left as it is: restore a backup of the "
        "folder, or make a copy and repair it with valkey-check-aof --fix (of a Valkey "
        "installation), or move the folder away to start empty."
    )


def _log_from(log: Path, start: int) -> str:
    with contextlib.suppress(OSError), log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(start, size - _LOG_TAIL_BYTES))
        return file.read().decode(errors="replace")
    return ""


def relevant_lines(log: str) -> list[str]:
    """The last lines of a server's log that say why it ended: its warnings, else any."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    lines = [line for line in lines if not any(noise in line for noise in _NOISE)]
    warnings = [line for line in lines if " # " in line or not line[0].isdigit()]
    return (warnings or lines or ["(nothing)"])[-_LOG_LINES:]
