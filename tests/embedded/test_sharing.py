"""One server serves all processes of a folder, for any starter and any path of the folder."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from murmur_streams.core.model.errors import EmbeddedServerError
from murmur_streams.embedded import (
    ensure_server,
    ensure_server_async,
    server_status,
    stop_server,
)
from murmur_streams.embedded.folder import LONGEST_SOCKET_PATH

if TYPE_CHECKING:
    from tests.embedded.conftest import Stage


def push(url: str, argument: str) -> None:
    """Push a word through a connection of its own."""
    with redis.Redis.from_url(url) as client:
        client.rpush("log", argument)


def log_of(url: str) -> list[str]:
    """All words pushed so far."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return [str(argument) for argument in client.lrange("log", 0, -1)]


@pytest.mark.fault("F39")
def test_eight_processes_at_the_same_moment_share_one_server(stage: Stage, folder: Path) -> None:
    """The losers of the race end their own."""
    clients = [stage.client(folder) for _ in range(8)]
    for client in clients:
        client.begin()
    pids = {client.server_pid() for client in clients}
    assert pids == {process.pid for process in stage.servers(folder)}
    assert len(pids) == 1
    stage.wait_until(lambda: len(stage.keepers(folder)) == 1, "the losers of the race are gone")


def test_killing_every_client_leaves_the_server_and_its_data(stage: Stage, folder: Path) -> None:
    """The next process finds both."""
    clients = [stage.connected(folder) for _ in range(3)]
    for number, client in enumerate(clients):
        client.push(str(number))
        client.kill()
    assert log_of(ensure_server(folder).url) == ["0", "1", "2"]
    assert len(stage.servers(folder)) == 1


def test_the_server_outlives_its_starter_while_others_use_it(stage: Stage, folder: Path) -> None:
    """It does not belong to the process that started it."""
    starter = stage.connected(folder, idle_seconds=0.4)
    other = stage.connected(folder, idle_seconds=0.4)
    starter.kill()
    (keeper,) = stage.keepers(folder)
    before = keeper.num_ctx_switches().voluntary
    # Each wait of the keeper is a switch, four waits are the idle time.
    stage.wait_until(lambda: keeper.num_ctx_switches().voluntary > before + 20, "it has looked")
    other.push("still there")


def test_attaching_names_the_same_server(stage: Stage, folder: Path) -> None:
    """Each call returns the same value."""
    first = ensure_server(folder)
    assert ensure_server(folder) == first
    assert server_status(folder) == first
    assert [process.pid for process in stage.servers(folder)] == [first.pid]


def test_attaching_starts_no_process_and_loads_no_module(stage: Stage, folder: Path) -> None:
    """It is only a connection."""
    ensure_server(folder)
    program = (
        "import sys; from pathlib import Path; from murmur_streams.embedded import ensure_server;"
        "before = set(sys.modules); ensure_server(Path(sys.argv[1]));"
        "sys.exit(repr(set(sys.modules) - before) if set(sys.modules) - before else 0)"
    )
    done = subprocess.run(
        (sys.executable, "-c", program, str(folder)),
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_async_call_gives_the_same_server(stage: Stage, folder: Path) -> None:
    """ensure_server_async returns what ensure_server returns."""
    assert asyncio.run(ensure_server_async(folder)) == ensure_server(folder)


@pytest.mark.fault("F39")
def test_ctrl_c_in_the_terminal_does_not_reach_the_server(stage: Stage, folder: Path) -> None:
    """It has a session of its own."""
    starter = stage.connected(folder)
    starter.push("before")
    (server,) = stage.servers(folder)
    os.killpg(starter.process.pid, signal.SIGINT)
    starter.close()
    assert ensure_server(folder).pid == server.pid
    assert log_of(ensure_server(folder).url) == ["before"]


def test_the_server_has_no_port_and_keeps_a_journal_of_writes(stage: Stage, folder: Path) -> None:
    """It listens on a socket, writes an append-only file and evicts nothing."""
    with redis.Redis.from_url(ensure_server(folder).url, decode_responses=True) as client:
        answer = client.config_get("port", "appendonly", "save", "maxmemory-policy", "appendfsync")
    assert answer == {
        "port": "0",
        "appendonly": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "appendfsync": "everysec",
    }


def test_nothing_in_the_folder_is_open_to_others(stage: Stage, folder: Path) -> None:
    """All modes are for the owner alone."""
    folder.mkdir(mode=0o755)
    folder.chmod(0o777)
    push(ensure_server(folder).url, "word")
    for path in (folder, *folder.rglob("*")):
        assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0, path


@pytest.mark.fault("F41")
def test_a_stale_socket_is_replaced(stage: Stage, folder: Path) -> None:
    """A socket that a dead server has left does not stop the start."""
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "server.sock"))
    push(ensure_server(folder).url, "word")
    assert log_of(ensure_server(folder).url) == ["word"]


@pytest.mark.parametrize(
    "name",
    ["with space", "quote'\"quote", "ünï→cödé", "back\\slash\\n", "new\nport 6399", "hash #%3Fx?y"],
)
@pytest.mark.fault("F41")
def test_any_folder_name_serves_and_injects_nothing(
    stage: Stage, tmp_path: Path, name: str
) -> None:
    """Quotes, newlines and more are part of the path."""
    server = ensure_server(tmp_path / name)
    push(server.url, "word")
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        assert client.config_get("port", "dir") == {"port": "0", "dir": str(server.data_dir)}
    assert stop_server(tmp_path / name)
    assert log_of(ensure_server(tmp_path / name).url) == ["word"]


@pytest.mark.parametrize("has_runtime_dir", [True, False])
@pytest.mark.fault("F41")
def test_a_long_path_has_its_socket_elsewhere(
    stage: Stage,
    tmp_path: Path,
    short_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_runtime_dir: bool,
) -> None:
    """Sockets have short paths only."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_folder) if has_runtime_dir else "")
    folder = tmp_path / ("long" * 30) / "data"
    server = ensure_server(folder)
    assert len(os.fsencode(server.socket_path)) <= LONGEST_SOCKET_PATH
    assert (server.socket_path.parent == short_folder) == has_runtime_dir
    push(server.url, "word")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert ensure_server(folder) == server, "another environment finds the same server"
    assert stop_server(folder)
    assert not server.socket_path.exists()


def test_a_runtime_folder_that_others_can_enter_is_not_used(
    stage: Stage, tmp_path: Path, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket is in a private folder instead."""
    short_folder.chmod(0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_folder))
    server = ensure_server(tmp_path / ("long" * 30))
    assert server.socket_path.parent == Path(f"/tmp/murmur-{os.geteuid()}")
    assert stop_server(server.data_dir)


def test_a_link_to_the_folder_is_the_folder(stage: Stage, folder: Path, tmp_path: Path) -> None:
    """Both lead to one server."""
    server = ensure_server(folder)
    (tmp_path / "link").symlink_to(folder)
    assert ensure_server(tmp_path / "link") == server


def test_a_copied_folder_has_a_server_of_its_own(stage: Stage, tmp_path: Path) -> None:
    """Though the copy names the socket of the first."""
    original, copy = tmp_path / ("a" * 120), tmp_path / ("b" * 120)
    first = ensure_server(original)
    copy.mkdir(mode=0o700)
    record = "server.sock.path"
    (copy / record).write_text((original / record).read_text())
    assert ensure_server(copy).pid != first.pid
    assert stop_server(copy)
    assert stop_server(original)


def test_a_foreign_holder_of_the_lock_is_named_after_the_timeout(
    stage: Stage, folder: Path
) -> None:
    """The start does not wait for ever."""
    import fcntl

    folder.mkdir(mode=0o700)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(EmbeddedServerError, match="another process holds the folder's lock"):
            ensure_server(folder, timeout_seconds=0.3)
