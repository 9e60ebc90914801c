"""``murmur-streams keys RUN``: the exact redis-cli commands that show all of a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from rich.text import Text

from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.options import RunId
from murmur_streams.cli.shell.printing import console, print_json
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.run import Run, listing_key
from murmur_streams.core.model.states import RunState
from murmur_streams.core.redaction import redacted
from murmur_streams.stores.redis.connection.maker import ConnectionMaker
from murmur_streams.stores.redis.keys import Keys, removal_row
from murmur_streams.stores.redis.store import RedisRunStore, server_of


class Inspection(NamedTuple):
    """One Redis command that shows a part of a run."""

    shows: str
    argv: tuple[str, ...]


class ClientCommand(NamedTuple):
    """The client program that sends the commands."""

    argv: tuple[str, ...]
    hint: str


@command("keys")
async def keys(session: Session, run: RunId) -> None:
    """Print the exact redis-cli lines that look inside a run.

    On the embedded server they are for `murmur-streams redis`, which needs no redis-cli.

    Examples:
        murmur-streams keys my-run
        murmur-streams keys my-run | sh
    """
    async with session.redis_store() as store:
        found, where = await store.snapshot(run), server_of(store).keys
        client = client_for(session, store)
    inspections = inspections_of(where, found)
    if session.as_json:
        commands = [{"argv": each.argv, "shows": each.shows} for each in inspections]
        known = {"run_id": found.run_id, "keys": where.of_run(found.run_id)}
        print_json(known | {"client": client.argv, "commands": commands})
        return
    screen = console()
    screen.print(Text(f"# {client.hint}", "dim"))
    for each in inspections:
        screen.print(Text(f"# {each.shows}", "dim"))
        screen.print(Text(shlex.join([*client.argv, *each.argv])))


def inspections_of(keys: Keys, run: Run) -> list[Inspection]:
    """The commands that show everything that the server stores for a run."""
    run_id, partition = run.run_id, keys.partition(run.run_id)
    journal, hash_key = keys.journal(run_id), keys.run(run_id)
    listed = listing_key(run.created_ms, run_id)
    rows = [
        ("the run: state, version, times, attempt, worker", "HGETALL", hash_key),
        ("the journal: how many entries", "XLEN", journal),
        ("its first entries", "XRANGE", journal, "-", "+", "COUNT", "10"),
        ("its last entries, newest first", "XREVRANGE", journal, "+", "-", "COUNT", "5"),
        ("the input, as JSON", "GET", keys.input(run_id)),
        ("the result, as JSON", "GET", keys.result(run_id)),
        ("milliseconds until it expires; -1: never", "PTTL", hash_key),
        ("its position in the list of runs", "ZSCORE", keys.index(partition), listed),
    ]
    if run.checkpoint_size is not None:
        rows.append(("its last checkpoint, as JSON", "GET", keys.checkpoint(run_id)))
    rows += _when_ended(keys, run) if run.state.is_terminal else _while_live(keys, run)
    return [Inspection(shows, tuple(argv)) for shows, *argv in rows]


def _when_ended(keys: Keys, run: Run) -> list[tuple[str, ...]]:
    partition = keys.partition(run.run_id)
    row = removal_row(run.target, run.created_ms, run.run_id, run.tenant)
    rows: list[tuple[str, ...]] = [
        ("when all of it expires", "ZSCORE", keys.expiring(partition), row)
    ]
    if run.state is RunState.FAILED and run.queued:
        dead = keys.dead(run.target, partition)
        rows.append(("its agent's dead letters", "XREVRANGE", dead, "+", "-", "COUNT", "5"))
    return rows


def _while_live(keys: Keys, run: Run) -> list[tuple[str, ...]]:
    run_id, partition = run.run_id, keys.partition(run.run_id)
    queue = keys.queue(run.target, partition)
    row = removal_row(run.target, run.created_ms, run_id, run.tenant)
    rows: list[tuple[str, ...]] = [
        ("its position in the queue, in milliseconds", "ZSCORE", queue, run_id),
        ("the lease: until when", "ZSCORE", keys.leases(partition), run_id),
        ("when it is failed without a new entry", "ZSCORE", keys.overdue(partition), row),
        ("the agents that are paused", "SMEMBERS", keys.paused(partition)),
    ]
    if run.worker is not None:
        rows.append(("the worker that has it", "HGETALL", keys.worker(run.worker)))
    return rows


def client_for(session: Session, store: RedisRunStore) -> ClientCommand:
    """How to reach the server from a shell; a password is never printed."""
    given = ConnectionMaker.of(store.client).settings
    cli = redis_cli(given, tls=store.where.startswith("rediss:"))
    url = ("--url", redacted(session.given.url)) if session.given.url else ()
    if "+sentinel:" in store.where:
        hint = "it asks the Sentinels for the primary: SENTINEL GET-MASTER-ADDR-BY-NAME names it"
        return ClientCommand(("murmur-streams", "redis", *url), hint)
    if "+cluster:" in store.where:
        hint = "redis-cli -c does it, too: it follows the slots to their nodes"
        return ClientCommand(("murmur-streams", "redis", *url), hint)
    if session.is_embedded:
        hint = f"redis-cli does it, too, while the server runs: {shlex.join(cli)}"
        return ClientCommand(("murmur-streams", "redis", *url), hint)
    if given.get("password"):
        return ClientCommand(cli, "the password is not shown: export REDISCLI_AUTH=... first")
    return ClientCommand(cli, "murmur-streams redis does it, too, and needs no redis-cli")


def redis_cli(given: Mapping[str, Any], *, tls: bool = False) -> tuple[str, ...]:
    """The redis-cli that connects like a client with these settings, without its password."""
    argv: list[str] = ["redis-cli"]
    database = int(given.get("db") or 0)
    if given.get("path"):
        argv += ["-s", str(given["path"])]
        argv += ["-n", str(database)] if database else []
    else:
        host = str(given.get("host", "localhost"))
        host = f"[{host}]" if ":" in host else quote(host)
        scheme = "rediss" if tls else "redis"
        argv += ["-u", f"{scheme}://{host}:{given.get('port', 6379)}/{database}"]
    # A user name without a password may be a misplaced password, as in redis://SECRET@host.
    if given.get("username") and given.get("password"):
        argv += ["--user", str(given["username"])]
    return tuple(argv)
