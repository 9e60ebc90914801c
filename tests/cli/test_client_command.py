"""The redis-cli that reaches the server of a store, without its password."""

from __future__ import annotations

from typing import Any

import pytest

from murmur_streams.cli.data.keys import client_for, redis_cli
from murmur_streams.cli.shell.session import Globals, Session
from murmur_streams.settings import Settings
from murmur_streams.stores.redis.store import RedisRunStore


@pytest.mark.parametrize(
    ("given", "argv"),
    [
        ({"path": "/run/a.sock", "db": 0}, ["-s", "/run/a.sock"]),
        ({"path": "/run/a.sock", "db": 2}, ["-s", "/run/a.sock", "-n", "2"]),
        ({"host": "h", "port": 7000, "db": 1}, ["-u", "redis://h:7000/1"]),
        ({"host": "::1"}, ["-u", "redis://[::1]:6379/0"]),
        (
            {"host": "h", "username": "ann", "password": "secret"},
            ["-u", "redis://h:6379/0", "--user", "ann"],
        ),
    ],
)
def test_the_command_follows_the_settings(given: dict[str, Any], argv: list[str]) -> None:
    """It has the socket or host, the database, the user and TLS."""
    assert redis_cli(given) == ("redis-cli", *argv)


@pytest.mark.parametrize(
    ("url", "argv", "hint"),
    [
        ("redis://h:6379/0", "redis-cli -u redis://h:6379/0", "murmur-streams redis"),
        ("rediss://h:6379/0", "redis-cli -u rediss://h:6379/0", "murmur-streams redis"),
        ("redis://:secret@h", "redis-cli -u redis://h:6379/0", "export REDISCLI_AUTH"),
    ],
)
async def test_a_password_is_never_printed(url: str, argv: str, hint: str) -> None:
    """The hint names a command that has it."""
    store = RedisRunStore(url)
    client = client_for(Session(Globals(url=url), Settings()), store)
    await store.close()
    assert " ".join(client.argv) == argv
    assert hint in client.hint
    assert "secret" not in f"{client}"
