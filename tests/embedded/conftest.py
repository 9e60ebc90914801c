"""Real processes for the tests of the embedded server; whatever a test starts is ended with it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.key_audit import audit_folder, left_by_hand

ROOT = Path(__file__).resolve().parents[2]

CLIENT = """
import sys
from pathlib import Path
import redis
from murmur_streams.embedded import ensure_server

print("loaded", flush=True)
sys.stdin.readline()
server = ensure_server(Path(sys.argv[1]), idle_seconds=float(sys.argv[2]))
client = redis.Redis.from_url(server.url)
client.ping()
print(server.pid, flush=True)
for line in sys.stdin:
    client.rpush("log", line.strip())
    print("acknowledged", flush=True)
"""


class Client:
    """A process, in a session of its own, that attaches to a folder's server and pushes words."""

    def __init__(self, folder: Path, idle_seconds: float) -> None:
        command = (sys.executable, "-c", CLIENT, str(folder), str(idle_seconds))
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
            start_new_session=True,
        )

    def loaded(self) -> None:
        """Wait until it has imported what it needs."""
        assert self._line() == "loaded"

    def begin(self) -> None:
        """Let it call ensure_server."""
        self._write_line("go")

    def server_pid(self) -> int:
        """Wait until it is connected; the pid of the server that it found."""
        return int(self._line())

    def push(self, argument: str) -> None:
        """Have it push a word, and wait until the server has acknowledged that."""
        self._write_line(argument)
        assert self._line() == "acknowledged"

    def kill(self) -> None:
        """Kill -9, and close our ends of its pipes."""
        self.process.kill()
        self.close()

    def close(self) -> None:
        """Wait for its end and close our ends of its pipes."""
        self.process.communicate()

    def _write_line(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


class Stage:
    """The processes of one test."""

    def __init__(self) -> None:
        self.clients: list[Client] = []

    def client(self, folder: Path, idle_seconds: float = 30.0) -> Client:
        """A client process that waits for its begin()."""
        client = Client(folder, idle_seconds)
        self.clients.append(client)
        client.loaded()
        return client

    def connected(self, folder: Path, idle_seconds: float = 30.0) -> Client:
        """A client process that has connected to the folder's server."""
        client = self.client(folder, idle_seconds)
        client.begin()
        client.server_pid()
        return client

    def servers(self, folder: Path) -> list[psutil.Process]:
        """The live server processes whose working folder is this one."""
        return [process for process in living() if working_folder(process) == str(folder)]

    def keepers(self, folder: Path) -> list[psutil.Process]:
        """The live keepers (and guards) of this folder."""
        return [process for process in living() if is_keeper(process, folder)]

    def gone(self, folder: Path) -> bool:
        """Whether no process of the folder's server is left."""
        return not self.servers(folder) and not self.keepers(folder)

    def wait_until(
        self, condition: Callable[[], bool], why: str, within_seconds: float = 15.0
    ) -> None:
        """Poll the condition; fail, saying what was waited for, when it never holds."""
        deadline = time.monotonic() + within_seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {within_seconds} s in vain: {why}"
            time.sleep(0.005)


def living() -> Iterator[psutil.Process]:
    """All processes that are not zombies."""
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:
            continue


def is_alive(process: psutil.Process) -> bool:
    """Whether the process runs; a zombie that init has yet to reap does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def working_folder(process: psutil.Process) -> str:
    """The process's working folder; "" if the system does not show it."""
    try:
        return process.cwd().removesuffix(" (deleted)")
    except (psutil.Error, OSError):
        return ""


def is_keeper(process: psutil.Process, folder: Path) -> bool:
    """Whether the process is a keeper of this folder."""
    try:
        argv = process.cmdline()
    except (psutil.Error, OSError):
        return False
    return str(folder) in argv and any(argument.endswith("keeper.py") for argument in argv)


def belongs_to(process: psutil.Process, root: Path) -> bool:
    """Whether the process is a server or keeper of a folder below ``root``."""
    try:
        argv = process.cmdline()
    except (psutil.Error, OSError):
        return False
    is_keeper = any(argument.endswith("keeper.py") for argument in argv)
    inside = any(argument.startswith(f"{root}/") for argument in argv)
    return working_folder(process).startswith(f"{root}/") or (is_keeper and inside)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A private folder whose path leaves room for a socket's name, which tmp_path's may not."""
    with tempfile.TemporaryDirectory(prefix="emb-", dir="/tmp") as root:
        yield Path(root).resolve()


@pytest.fixture
def stage(tmp_path: Path, short_folder: Path) -> Iterator[Stage]:
    """The processes of the test; all of them, and all servers in its folders, end with it."""
    stage = Stage()
    yield stage
    for client in stage.clients:
        client.kill()
    roots = (short_folder, tmp_path.resolve())
    left = [process for process in living() if any(belongs_to(process, at) for at in roots)]
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    stage.wait_until(lambda: not any(is_alive(process) for process in left), "all were killed")


@pytest.fixture
def folder(request: pytest.FixtureRequest, short_folder: Path, stage: Stage) -> Iterator[Path]:
    """A data folder that does not exist yet; its server ends with the test, its keys audited."""
    folder = short_folder / "data"
    yield folder
    audit_folder(folder, others=["log", *left_by_hand(request)])
