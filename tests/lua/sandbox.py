"""A state of the server that one script call can be tried on again and again."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Any, cast

import pytest
from redis import Redis
from redis.exceptions import RedisError

from murmur_streams.core.model.errors import MurmurError
from murmur_streams.stores.redis.scripts import load_scripts
from murmur_streams.stores.redis.writes import Arguments
from tests.lua.scenarios import CaughtError, Scenario, Script, Stage
from tests.servers import Space

SECRET = "hunter2"
_DUMP = """
local found, names = {}, redis.call('KEYS', '*')
table.sort(names)
for _, name in ipairs(names) do
  found[#found + 1] = name
  found[#found + 1] = redis.call('DUMP', name)
  found[#found + 1] = tostring(redis.call('PTTL', name) >= 0)
end
return found
"""
Dump = list[bytes]
"""Of each key its name, its content, and whether it expires."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The outcome of a call."""

    answer: list[str]
    error: RedisError | None

    @property
    def is_ok(self) -> bool:
        return self.error is None


class Sandbox:
    """The moment before a scenario's call, which can be brought back."""

    def __init__(self, space: Space, script: Script) -> None:
        self.space = space
        self.name, self.keys, self.args = script
        self._admin: Any = space.admin
        self._limited: Any = Redis.from_url(space.url, username="limited", password=SECRET)
        self.permit()
        self._saved = [
            (name, max(0, expires_at), content)
            for name, (_, expires_at, content) in cast("Any", space.dump()).items()
        ]
        for each in load_scripts().values():
            self._admin.script_load(each.text)

    def reset(self) -> None:
        """Bring the moment back."""
        with self._admin.pipeline(transaction=False) as pipeline:
            pipeline.flushall()
            for name, expires_at, content in self._saved:
                pipeline.restore(name, expires_at, content, absttl=True)
            pipeline.execute()

    def replace(self, key: str) -> None:
        """Put a key of another type in the place of a key."""
        left_ms = self._admin.pttl(key)
        self._admin.delete(key)
        if re.search(r":(input|result|checkpoint|sweeper)\b", key):
            self._admin.rpush(key, "x")
        else:
            self._admin.set(key, "x")
        if left_ms > 0:
            self._admin.pexpire(key, left_ms)

    def put_back(self, key: str) -> None:
        """Put a replaced key back, unless the script has overwritten it."""
        kind = self._admin.type(key)
        if kind == b"list" or (kind == b"string" and self._admin.get(key) == b"x"):
            left_ms = max(0, self._admin.pttl(key))
            self._admin.delete(key)
            for name, _, content in self._saved:
                if name == key:
                    self._admin.restore(name, left_ms, content)

    def permit(self, *rules: str) -> None:
        """Take rights from the user that calls; none by default."""
        self._admin.execute_command(
            "ACL", "SETUSER", "limited", "reset", "on", f">{SECRET}", "~*", "&*", "+@all", *rules
        )

    def call(self) -> Reply:
        """Call the script."""
        sha = load_scripts()[self.name].sha
        try:
            answer = self._limited.evalsha(sha, len(self.keys), *self.keys, *self.args)
        except RedisError as error:
            return Reply([], error)
        return Reply([part.decode(errors="replace") for part in answer], None)

    def dump(self) -> Dump:
        """All that is on the server."""
        return self._admin.eval(_DUMP, 0)

    def touched(self) -> tuple[set[str], set[str]]:
        """Call it; which commands the script called, and on which keys."""
        commands, keys = set[str](), set[str]()
        with self._admin.monitor() as monitor:
            found = self.call()
            assert found.is_ok, found.error
            self._admin.echo("the end")
            for each in monitor.listen():
                parts = each["command"].split(" ")
                if parts[-1] == "end":
                    break
                if each["client_type"] == "lua":
                    name = parts[0].upper()
                    commands.add(name)
                    key = parts[2] if name == "XINFO" else parts[1] if len(parts) > 1 else ""
                    keys.add(key)
        # The key with a slash is the one on which servers before 7.0 are asked for rights.
        ours = (key for key in keys if key.startswith(self.space.prefix))
        return commands, {key for key in ours if not key.endswith("/")}

    def close(self) -> None:
        self._limited.close()


async def sandbox(stage: Stage, play: Scenario) -> Sandbox:
    """Play a scenario up to its call, which is recorded and not sent."""
    call = await play(stage)
    server, writer, caught = stage.store._server, stage.store._writer, list[Script]()
    send = server.script

    async def catch(name: str, keys: list[str], args: list[str | int]) -> Any:
        if name == stage.allowed:
            return await send(name, keys, args)
        caught.append((name, keys, args))
        raise CaughtError

    async def catch_write(
        name: str, run_id: str, keys: list[str], now: int, shared: Arguments, own: Arguments
    ) -> Any:
        return await catch(name, keys, [run_id, "producer", 1, now, *shared, *own])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "script", catch)
        patch.setattr(writer, "write", catch_write)
        # How the store treats that is tested elsewhere.
        with contextlib.suppress(CaughtError, MurmurError):
            await call
    return Sandbox(stage.space, caught[0])
