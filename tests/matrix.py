"""``python -m tests.matrix``: the tests that a server's version can break, on every other server.

A line ``NOT RUN`` names each server that is not available here, and why.
``python -m tests.matrix redis-6.2`` runs on one of them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.server_choice import (
    BINARIES,
    CLUSTER,
    DOCKER,
    EMBEDDED,
    SENTINEL,
    VARIABLE,
    WITHOUT_FUNCTIONS,
    NoServerError,
    server_binary,
)

IMAGES = ("redis:8", "valkey/valkey:9")
"""Servers for a machine with a container engine."""
SERVICES = (f"{SENTINEL}{EMBEDDED}", f"{SENTINEL}redis-7.0")
"""Services of Sentinels: the tests that go through a store's connections."""
CLUSTERS = (f"{CLUSTER}{EMBEDDED}", f"{CLUSTER}redis-7.0")
"""Three primaries with a replica each: the contract in 16 partitions, and what wakes workers."""
ON_CLUSTERS = (
    "tests/stores/test_contract.py::TestValkey",
    "tests/stores/redis/test_lua_is_the_core.py",
)
SCRIPTED = (f"{EMBEDDED}{WITHOUT_FUNCTIONS}", f"redis-8.2{WITHOUT_FUNCTIONS}")
"""Servers with functions, on which the store has to load scripts nevertheless."""
TESTS = (
    "tests/stores/test_contract.py::TestValkey",
    "tests/stores/redis",
    "tests/fleet/test_queue.py",
)
"""The contract, properties with 200 sequences, expiry, slots, audit; claim, heartbeat, reclaim."""
SCRIPTS = (
    "tests/lua/test_half_writes.py",
    "tests/lua/test_every_inner_call.py",
    "tests/lua/test_isolation.py",
    "tests/lua/test_library.py",
)
"""What the scripts do inside of a server. A service's servers are among the others."""
OWN_SERVERS = (
    "tests/stores/faults/test_permissions.py",
    "tests/stores/faults/test_roles.py",
    "tests/stores/faults/test_full_server.py",
    "tests/stores/faults/test_loading.py",
)
"""These tests start servers with settings of their own, so they do not run in containers."""
TOGETHER = 2
"""So many servers are tested at a time: one works while the tests of the other begin or end."""
_TOTAL = re.compile(r"\d+ (?:passed|failed|error).* in .*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the tests went on one server."""

    server: str
    summary: str
    ok: bool


def main(names: list[str]) -> int:
    """Run the tests on each server and print a summary; the exit code is 1 when one failed."""
    everything = [*BINARIES, *SCRIPTED, *SERVICES, *CLUSTERS, *(DOCKER + image for image in IMAGES)]
    with ThreadPoolExecutor(TOGETHER) as pool:
        outcomes = [*pool.map(run_on, names or everything)]
    print("\nThe server matrix; fakeredis and Valkey 9 are part of `make test`:")
    for outcome in outcomes:
        print(f"  {outcome.server:24} {outcome.summary}")
    return 0 if all(outcome.ok for outcome in outcomes) else 1


def run_on(name: str) -> Outcome:
    """Run the tests on one server."""
    missing = unavailable(name)
    if missing is not None:
        shown = name.replace(":", " ", 1) if name.startswith(DOCKER) else name.replace("-", " ")
        print(f"NOT RUN: {shown} ({missing})", flush=True)
        return Outcome(name, f"NOT RUN: {missing}", ok=True)
    tests = TESTS if name.startswith(SENTINEL) else TESTS + SCRIPTS
    tests += () if name.startswith((DOCKER, SENTINEL)) else OWN_SERVERS
    tests = ON_CLUSTERS if name.startswith(CLUSTER) else tests
    command = [sys.executable, "-m", "pytest", *tests, "--hypothesis-profile=matrix", "-q"]
    command += ["-n", os.environ.get("WORKERS", "2"), "--maxfail=10"]
    command += ["-p", "no:cacheprovider", "-p", "tests.matrix_selection", "--timeout=60"]
    began = time.monotonic()
    done = subprocess.run(
        command,
        env=os.environ | {VARIABLE: name},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    total = (_TOTAL.findall(done.stdout) or ["no summary was printed"])[-1]
    if done.returncode:
        print(done.stdout)
    print(f"{name}: {total} ({time.monotonic() - began:.0f} s)", flush=True)
    return Outcome(name, total, ok=done.returncode == 0)


def unavailable(name: str) -> str | None:
    """Why a server is not available here; None when it is."""
    if name.startswith(DOCKER):
        return None if _docker_answers() else "no container engine answers"
    try:
        server_binary(name)
    except NoServerError as error:
        return str(error)
    return None


def _docker_answers() -> bool:
    import docker
    from docker.errors import DockerException

    try:
        engine = docker.from_env(timeout=5)
    except DockerException:
        return False
    try:
        return bool(engine.ping())
    except DockerException:
        return False
    finally:
        engine.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
