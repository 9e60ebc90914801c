"""The server stops when no process uses it, and starts again with its data after any kill."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from murmur_streams.embedded import (
    ensure_server,
    is_keep_set,
    launch,
    server_status,
    set_keep,
    stop_server,
)
from murmur_streams.embedded.keeper import END_SECONDS, TICK_SECONDS
from murmur_streams.embedded.server import IDLE_SECONDS, LONGEST_IDLE_SECONDS

if TYPE_CHECKING:
    from tests.embedded.conftest import Stage

PROMISE_SECONDS = 60


def log_of(folder: Path) -> list[str]:
    """All words pushed so far."""
    url = ensure_server(folder).url
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return [str(argument) for argument in client.lrange("log", 0, -1)]


def test_idle_ends_the_server_after_its_last_client_was_killed(stage: Stage, folder: Path) -> None:
    """Its data is there at the next start."""
    clients = [stage.connected(folder, idle_seconds=1) for _ in range(2)]
    for client in clients:
        client.push("word")
        client.kill()
    stage.wait_until(lambda: stage.gone(folder), "the idle server and its keeper are gone")
    assert server_status(folder) is None
    assert log_of(folder) == ["word", "word"]


def test_a_client_killed_during_the_start_leaves_nothing(stage: Stage, folder: Path) -> None:
    """Server and keeper end by themselves."""
    for _ in range(5):
        client = stage.client(folder, idle_seconds=0.3)
        client.begin()
        stage.wait_until(lambda: bool(stage.keepers(folder)), "the start has begun")
        client.kill()
        stage.wait_until(lambda: stage.gone(folder), "the unwanted server is gone")
    assert log_of(folder) == []


@pytest.mark.slow
def test_the_default_idle_time_keeps_the_promise(stage: Stage, folder: Path) -> None:
    """It is gone within the promised minute."""
    stage.connected(folder).kill()
    stage.wait_until(lambda: stage.gone(folder), "the idle server is gone", PROMISE_SECONDS)


def test_the_idle_times_keep_the_promise() -> None:
    """All waits of the shutdown add up to less than the promised minute."""
    # One look to notice that the last client has gone, one to find the time over, and the end.
    assert IDLE_SECONDS <= LONGEST_IDLE_SECONDS
    assert LONGEST_IDLE_SECONDS + 2 * TICK_SECONDS + END_SECONDS < PROMISE_SECONDS


@pytest.mark.parametrize("seconds", [0, -1, 41, float("nan"), float("inf")])
def test_an_idle_time_that_breaks_the_promise_is_refused(folder: Path, seconds: float) -> None:
    """It raises ValueError before anything is created."""
    with pytest.raises(ValueError, match="idle_seconds"):
        ensure_server(folder, idle_seconds=seconds)
    assert not folder.exists()


@pytest.mark.parametrize("watched_by", ["kernel", "guard"])
@pytest.mark.fault("F39")
def test_killing_the_keeper_ends_the_server_and_keeps_the_data(
    stage: Stage, folder: Path, monkeypatch: pytest.MonkeyPatch, watched_by: str
) -> None:
    """The kernel's signal or the guard ends the server."""
    monkeypatch.setattr(launch, "WATCHED_BY", watched_by)
    first = ensure_server(folder)
    stage.connected(folder).push("word")
    # The guard is a fork of the keeper, and so the younger of the two.
    keeper = min(stage.keepers(folder), key=lambda process: process.create_time())
    keeper.kill()
    second = ensure_server(folder)
    while second.pid == first.pid:  # It may have answered once more before it ended.
        second = ensure_server(folder)
    assert log_of(folder) == ["word"]
    stage.wait_until(lambda: len(stage.servers(folder)) == 1, "the first server is gone")


def test_a_guard_goes_with_a_server_that_ends_in_order(
    stage: Stage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process is left."""
    monkeypatch.setattr(launch, "WATCHED_BY", "guard")
    ensure_server(folder)
    assert len(stage.keepers(folder)) == 2
    assert stop_server(folder)
    stage.wait_until(lambda: stage.gone(folder), "server, keeper and guard are gone")


def test_a_keeper_that_is_terminated_shuts_the_server_down(stage: Stage, folder: Path) -> None:
    """The data is there at the next start."""
    ensure_server(folder)
    stage.connected(folder).push("word")
    for keeper in stage.keepers(folder):
        keeper.terminate()
    stage.wait_until(lambda: stage.gone(folder), "the server was shut down with its keeper")
    assert log_of(folder) == ["word"]


@pytest.mark.fault("F9")
def test_killing_the_server_ends_the_keeper_and_loses_no_write(stage: Stage, folder: Path) -> None:
    """A hundred acknowledged writes are there."""
    client = stage.connected(folder)
    for number in range(100):
        client.push(str(number))
    os.kill(ensure_server(folder).pid, signal.SIGKILL)
    stage.wait_until(lambda: stage.gone(folder), "the keeper has nothing to keep")
    assert log_of(folder) == [str(number) for number in range(100)]


@pytest.mark.fault("F39")
def test_killing_all_at_once_keeps_acknowledged_writes(stage: Stage, folder: Path) -> None:
    """Keeper and server are killed; the next start finds the data."""
    client = stage.connected(folder)
    client.push("word")
    for process in (*stage.keepers(folder), *stage.servers(folder)):
        process.kill()
    assert log_of(folder) == ["word"]


def test_starting_while_the_idle_shutdown_is_under_way(stage: Stage, folder: Path) -> None:
    """Never two servers, and no lost write."""
    for number in range(15):
        server = ensure_server(folder, idle_seconds=0.2)
        with redis.Redis.from_url(server.url) as client:
            client.rpush("log", number)
        stage.wait_until(lambda: not (folder / "server.sock").exists(), "the shutdown has begun")
        assert len(stage.servers(folder)) <= 1
    assert log_of(folder) == [str(number) for number in range(15)]


def test_a_server_with_keep_stays_until_it_is_stopped(stage: Stage, folder: Path) -> None:
    """The keeper does not end it though it is idle."""
    set_keep(folder, True)
    server = ensure_server(folder, idle_seconds=0.2)
    (keeper,) = stage.keepers(folder)
    before = keeper.num_ctx_switches().voluntary
    # Each wait of the keeper is a switch, four waits are the idle time.
    stage.wait_until(lambda: keeper.num_ctx_switches().voluntary > before + 20, "it has looked")
    assert server_status(folder) == server
    assert is_keep_set(folder)
    assert stop_server(folder)
    assert not is_keep_set(folder)


def test_a_server_without_keep_ends_when_idle(stage: Stage, folder: Path) -> None:
    """The mark can be removed while it runs."""
    set_keep(folder, True)
    ensure_server(folder, idle_seconds=0.2)
    set_keep(folder, False)
    stage.wait_until(lambda: stage.gone(folder), "the idle server is gone")


def test_stopping_waits_until_all_is_gone(stage: Stage, folder: Path) -> None:
    """A second stop finds nothing."""
    stage.connected(folder).push("word")
    assert stop_server(folder)
    stage.wait_until(lambda: stage.gone(folder), "no process is left", within_seconds=1)
    assert not stop_server(folder)
    assert log_of(folder) == ["word"]


def test_there_is_nothing_to_stop_or_see_where_nothing_ran(folder: Path) -> None:
    """Both calls say so, and create no folder."""
    assert not stop_server(folder)
    assert server_status(folder) is None
    assert not folder.exists()


@pytest.mark.parametrize("what", ["server.sock", "lock"])
def test_a_server_that_others_cannot_find_any_more_goes(
    stage: Stage, folder: Path, what: str
) -> None:
    """It ends when its socket or lock was deleted."""
    client = stage.connected(folder, idle_seconds=1)
    client.push("word")
    (folder / what).unlink()
    stage.wait_until(lambda: stage.gone(folder), "the hidden server is gone")
    assert log_of(folder) == ["word"]


def test_a_server_whose_folder_was_removed_goes(stage: Stage, folder: Path) -> None:
    """It does not run for ever."""
    stage.connected(folder, idle_seconds=1)
    shutil.rmtree(folder)
    stage.wait_until(lambda: stage.gone(folder), "the server without a folder is gone")
