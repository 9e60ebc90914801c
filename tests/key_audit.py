"""The audit after each Redis test: every key is a row of the key table, has the row's type, and
expires as the row says. The table itself is ``stores/redis/key_table.json``."""

from __future__ import annotations

import json
import re
import time
import zlib
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from murmur_streams.core.model.errors import EmbeddedServerError
from murmur_streams.core.rules.decide import LIVE_GRACE_MS
from murmur_streams.embedded import server_status

TABLE = Path(__file__).parent / "stores" / "redis" / "key_table.json"
TOMBSTONE_MS = 60_000
CLOCKS_APART_MS = 1_000
ENDED = {"completed", "failed", "cancelled"}
HOLES = {
    "prefix": r"(?P<prefix>.+?)",
    "run_id": r"(?P<run_id>[A-Za-z0-9][A-Za-z0-9._:-]{0,127})",
    "target": r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}",
    "tenant": r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
    "state": r"(pending|running|completed|failed|cancelled)",
    "task_id": r"[^:]+",
    "worker_id": r"[^:]+",
    "reader_id": r"[^:]+",
    "producer_id": r"[^:]+",
    "name": r"[^:{}]+",
    "digest": r"[0-9a-f]{64}",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the key table."""

    key: str
    """The pattern, as in ``<prefix>:{p}:run:<run_id>``."""
    type: str
    expires: str
    """``run``: when its run does; ``never``; ``own``: at a time of its own."""

    def matches(self, key: str) -> re.Match[str] | None:
        pattern = re.escape(self.key).replace(re.escape("{p}"), r"(?P<tag>\{[0-9]+\})")
        for name, hole in HOLES.items():
            pattern = pattern.replace(re.escape(f"<{name}>"), hole)
        return re.fullmatch(pattern, key)


def key_table() -> list[Row]:
    """The golden table."""
    return [Row(**row) for row in json.loads(TABLE.read_text(encoding="utf-8"))["rows"]]


@dataclass(frozen=True, slots=True)
class Found:
    """A key on the server."""

    key: str
    type: str
    expires_at: int
    """Unix milliseconds; -1 never."""


def audit_server(url: str, **options: Any) -> None:
    """Assert that nothing is wrong with the keys of this server; see ``audit_keys``."""
    with Redis.from_url(url) as client:
        problems = audit_keys(client, **options)
    assert problems == [], f"the key audit: {problems}"


def audit_folder(folder: Path, **options: Any) -> None:
    """The same for the embedded server of this folder, if there is one that runs."""
    try:
        server = server_status(folder)
    except EmbeddedServerError:
        return  # No server can run there.
    if server is not None:
        audit_server(server.url, **options)


def left_by_hand(request: pytest.FixtureRequest) -> list[str]:
    """The keys that a test leaves on purpose: ``@pytest.mark.leaves(key, ...)``."""
    return [str(key) for mark in request.node.iter_markers("leaves") for key in mark.args]


def audit_keys(
    client: Redis,
    prefix: str | None = None,
    others: Collection[str] = (),
    apart_ms: int = 0,
) -> list[str]:
    """List the problems of the keys on a server.

    Args:
        client: a client that returns bytes.
        prefix: every key must have this one; by default any.
        others: keys (or ``fnmatch`` patterns) that a test leaves on purpose.
        apart_ms: how far the expiry of a key may be from its run's; keys whose slot was moved.
    """
    rows, problems = key_table(), list[str]()
    of_run: dict[tuple[str, str, str], list[Found]] = defaultdict(list)
    for found in _found(client):
        if any(fnmatchcase(found.key, pattern) for pattern in others):
            continue
        row, match = _row_of(found.key, rows)
        if row is None or match is None or prefix not in {None, match["prefix"]}:
            problems.append(f"{found.key}: is not in the key table")
            continue
        if found.type != row.type:
            problems.append(f"{found.key}: is a {found.type}, not a {row.type}")
        if row.expires == "run":
            of_run[match["prefix"], match["tag"], match["run_id"]].append(found)
        elif (found.expires_at != -1) != (row.expires == "own"):
            problems.append(f"{found.key}: expires at {found.expires_at}, not {row.expires}")
    for (of_prefix, tag, run_id), keys in of_run.items():
        run_key = f"{of_prefix}:{tag}:run:{run_id}"
        problems += _run_problems(client, run_key, keys, apart_ms)
        hashed, numbers = zlib.crc32(run_id.encode()), _partitions(client, of_prefix)
        # A tombstone outlives a change of the number of partitions.
        if client.exists(run_key) and tag not in {f"{{{hashed % each}}}" for each in numbers}:
            problems.append(f"{run_key}: is in no partition of {numbers}")
    return problems


def expiry_times(client: Redis, names: list[bytes] | list[str]) -> list[int]:
    """When each key expires, Unix milliseconds; -1 never, -2 no such key."""
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            cast("Any", pipeline).pexpiretime(name)
        replies: list[Any] = pipeline.execute(raise_on_error=False)
    if not any(isinstance(reply, ResponseError) for reply in replies):
        return replies
    # PEXPIRETIME exists since Redis 7.0.
    return [int(cast("Any", client).eval(_EXPIRY_TIME, 1, name)) for name in names]


# Exact: both readings of the clock are the same millisecond, so PTTL was read in it as well.
_EXPIRY_TIME = """
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
while true do
  local before = clock()
  local rest = redis.call('PTTL', KEYS[1])
  if clock() == before then
    return rest < 0 and rest or before + rest
  end
end
"""


def dump_keys(client: Redis) -> dict[str, object]:
    """The type, expiry and serialised content of every key."""
    names = sorted(client.scan_iter(count=1000))
    with client.pipeline() as pipeline:
        for name in names:
            pipeline.type(name)
            pipeline.dump(name)
        replies = pipeline.execute()
    return {
        name.decode(): (kind, expires_at, content)
        for name, kind, expires_at, content in zip(
            names, replies[::2], expiry_times(client, names), replies[1::2], strict=True
        )
    }


def _found(client: Redis) -> list[Found]:
    names = sorted(client.scan_iter(count=1000))
    with client.pipeline() as pipeline:
        for name in names:
            pipeline.type(name)
        types: list[bytes] = pipeline.execute()
    found = [
        Found(name.decode(), kind.decode(), expires_at)
        for name, kind, expires_at in zip(names, types, expiry_times(client, names), strict=True)
    ]
    return [each for each in found if each.expires_at != -2]


def _partitions(client: Redis, prefix: str) -> list[int]:
    stored: Any = client.hget(f"{prefix}:meta", "partitions")
    return [int(each) for each in (stored or b"1").split(b",")]


def _row_of(key: str, rows: list[Row]) -> tuple[Row | None, re.Match[str] | None]:
    for row in rows:
        match = row.matches(key)
        if match:
            return row, match
    return None, None


def _run_problems(client: Redis, run_key: str, keys: list[Found], apart_ms: int) -> list[str]:
    row: Any = client.hmget(run_key, "state", "live_until", "expire_at")
    state, live_until, expire_at = row
    if state is None:
        return _tombstone_problems(client, run_key, keys)
    deadline = expire_at if state.decode() in ENDED else live_until
    wanted = int(deadline or 0) or -1
    if wanted != -1 and state.decode() not in ENDED:
        wanted += LIVE_GRACE_MS
    return [
        f"{found.key}: expires at {found.expires_at}, the run at {wanted}"
        for found in keys
        if (found.expires_at == -1) != (wanted == -1) or abs(found.expires_at - wanted) > apart_ms
    ]


def _tombstone_problems(client: Redis, run_key: str, keys: list[Found]) -> list[str]:
    now_ms = time.time_ns() // 1_000_000
    if any(not re.search(r":(journal|producers):", found.key) for found in keys):
        if not client.exists(*(found.key for found in keys)):
            return []  # The run expired while it was looked at.
        return [f"{run_key}: is gone, but {[found.key for found in keys]} are not"]
    if {found.expires_at for found in keys} <= set(
        range(now_ms - 5_000, now_ms + TOMBSTONE_MS + 5)
    ):
        return []
    return [f"{found.key}: a tombstone that expires at {found.expires_at}" for found in keys]
