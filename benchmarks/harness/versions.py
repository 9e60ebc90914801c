"""What the results depend on: versions, machine, setting."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.harness.program import ROOT
from benchmarks.harness.session import PACKAGES, Sizes
from murmur_streams.embedded.launch import find_binary

NAMES = ("murmur-streams", "redis", "hiredis", "orjson", "pydantic", "uvloop", "rocksdict")


def versions() -> dict[str, str]:
    """The versions of everything that is measured, by name."""
    found = {"Python": platform.python_version(), "commit": commit("HEAD")}
    for name in NAMES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["server"] = _first_line(str(find_binary()), "--version")
    return found | folder_versions(PACKAGES, ("murmur-runtime",))


def folder_versions(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """The versions of packages that are installed in a folder, without those it lacks."""
    found: dict[str, str] = {}
    for name in names:
        for info in folder.glob(f"{name.replace('-', '_')}-*.dist-info"):
            found[name] = info.name.removesuffix(".dist-info").rpartition("-")[2]
    return found


def setting(sizes: Sizes) -> dict[str, str]:
    """On what, how and when the results were measured."""
    return {
        "cores": str(os.cpu_count()),
        "load at the start": f"{os.getloadavg()[0]:.1f}",
        "system": f"{platform.system()} {platform.machine()}",
        "server": "TCP on loopback, no AOF",
        "rounds": f"{sizes.rounds} after {sizes.warm_ups} warm-up",
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
    }


def commit(name: str) -> str:
    """The short hash of a revision; an empty text outside a repository."""
    return _first_line("git", "-C", str(ROOT), "rev-parse", "--short", f"{name}^{{commit}}")


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip().partition("\n")[0] if done.returncode == 0 else ""
