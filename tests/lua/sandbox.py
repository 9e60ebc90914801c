"""A state of the server that one script call can be tried on again and again."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest
from redis import Redis
from redis.exceptions import RedisError

from murmur_streams.core.model.errors import MurmurError
from murmur_streams.stores.redis.connection.failures import ScriptError
from murmur_streams.stores.redis.scripts import HOT_COMMIT, load_library, load_scripts
from tests.lua.scenarios import CaughtError, Scenario, Script, Stage
from tests.server_choice import WITHOUT_FUNCTIONS, chosen
from tests.servers import Space

SCRIPT, EVENTS, FUNCTION = "script", "script of events", "function"
"""The ways of calling: the second is that of the commands of events alone."""
HAS_FUNCTIONS = chosen() != "redis-6.2" and not chosen().endswith(WITHOUT_FUNCTIONS)
WAYS = (SCRIPT, FUNCTION) if HAS_FUNCTIONS else (SCRIPT,)
"""Those of this server for all scripts."""
COMMAND_AT = 13
"""Where the first command's name stands in the arguments of a commit."""
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
    """The outcome of a call: of a commit that of its only command."""

    answer: list[str]
    error: RedisError | None
    has_record: bool = False
    """It is a commit that answered for its commands, so its producer's record was written."""

    @property
    def is_ok(self) -> bool:
        return self.error is None


class Sandbox:
    """The moment before a scenario's call, which can be brought back."""

    def __init__(self, space: Space, script: Script, way: str) -> None:
        self.space = space
        self.script, self.keys, self.args = script
        self.is_commit = self.script == "commit"
        self.name = str(self.args[COMMAND_AT]) if self.is_commit else self.script
        """The script, or the command that the commit executes."""
        self._way = way
        self._admin: Any = space.admin
        self._limited: Any = Redis.from_url(space.server_url, username="limited", password=SECRET)
        self.permit()
        self._saved = [
            (name, max(0, expires_at), content)
            for name, (_, expires_at, content) in cast("Any", space.dump()).items()
        ]
        self._load()

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
        if re.search(r":(input|result|checkpoint|sweeper|producer)\b", key):
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
        """Call the script, which is a commit of one command or none."""
        try:
            texts = self.send()
        except RedisError as error:
            return Reply([], error)
        if not self.is_commit or texts[0] != "OK":
            return Reply(texts, None)
        _, text = texts
        if text.startswith("ERROR "):
            return Reply([], ScriptError(text[6:]), has_record=True)
        return Reply([text], None, has_record=True)

    def send(self) -> list[str]:
        """Call the script, whatever it answers."""
        call = [len(self.keys), *self.keys, *self.args]
        if self._way == FUNCTION:
            answer = self._limited.fcall(load_library().function(self.script), *call)
        else:
            name = HOT_COMMIT if self._way == EVENTS else self.script
            answer = self._limited.evalsha(load_scripts()[name].sha, *call)
        return [part.decode(errors="replace") for part in answer]

    def dump(self) -> Dump:
        """All that is on the server."""
        return self._admin.eval(_DUMP, 0)

    def is_unchanged(self, before: Dump, found: Reply) -> bool:
        """Whether a refused call has changed nothing; a commit that answers writes its record."""
        record = self.space.keys.producer(str(self.args[0]), 0).encode()
        now = self.dump()
        if found.has_record:
            at = now.index(record)
            now = now[:at] + now[at + 3 :]
        return now == before

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

    def _load(self) -> None:
        if self._way == FUNCTION:
            self._admin.function_load(load_library().text, replace=True)
            return
        for each in load_scripts().values():
            self._admin.script_load(each.text)


async def sandbox(stage: Stage, play: Scenario, way: str) -> Sandbox:
    """Play a scenario up to its call, which is recorded and not sent."""
    return Sandbox(stage.space, await caught_call(stage, await play(stage)), way)


async def caught_call(stage: Stage, call: Awaitable[Any]) -> Script:
    """The script that a call would send, with its keys and arguments."""
    loader, caught = stage.store._server.nodes.all[0].loader, list[Script]()
    command = loader.command

    def catch(name: str, keys: Sequence[str], args: Sequence[Any]) -> tuple[object, ...]:
        if name == stage.allowed:
            return command(name, keys, args)
        caught.append((name, [*keys], [*args]))
        raise CaughtError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "command", catch)
        # The store's own writer would send the call again.
        patch.setattr(stage.store._writer, "write", stage.hand().write)
        # How the store treats that is tested elsewhere.
        with contextlib.suppress(CaughtError, MurmurError):
            await call
    return caught[0]
