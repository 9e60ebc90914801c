"""``murmur-streams keys RUN``: the exact redis-cli commands that show all of a run."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import typer
from rich.text import Text

from murmur_streams.cli.shell.command import RunId, command
from murmur_streams.cli.shell.printing import console, print_json
from murmur_streams.cli.shell.session import Session
from murmur_streams.core.model.pages import listing_key
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState
from murmur_streams.core.redaction import redacted
from murmur_streams.stores.redis.keys import Keys, removal_row
from murmur_streams.stores.redis.store import RedisRunStore, server_of


@dataclass(frozen=True, slots=True)
class Inspection:
    """One Redis command that shows a part of a run."""

    argv: tuple[str, ...]
    shows: str


@dataclass(frozen=True, slots=True)
class ClientCommand:
    """The client program that sends the commands."""

    argv: tuple[str, ...]
    hint: str


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(
        app, "keys", examples=("murmur-streams keys my-run", "murmur-streams keys my-run | sh")
    )
    def keys(session: Session, run: RunId) -> None:
        """Print the exact redis-cli lines that look inside a run.

        On the embedded server they are for `murmur-streams redis`, which needs no redis-cli.
        """
        found, where, client = asyncio.run(_read(session, run))
        inspections = inspections_of(where, found)
        if session.as_json:
            print_json(
                {
                    "run_id": found.run_id,
                    "keys": where.of_run(found.run_id),
                    "client": list(client.argv),
                    "commands": [
                        {"argv": list(inspection.argv), "shows": inspection.shows}
                        for inspection in inspections
                    ],
                }
            )
            return
        _print_lines(client, inspections)


async def _read(session: Session, run_id: str) -> tuple[Run, Keys, ClientCommand]:
    async with session.redis_store() as store:
        return await store.snapshot(run_id), server_of(store).keys, client_for(session, store)


def inspections_of(keys: Keys, run: Run) -> list[Inspection]:
    """The commands that show everything that the server stores for a run."""
    run_id, partition = run.run_id, keys.partition(run.run_id)
    journal = keys.journal(run_id)
    member = listing_key(run.created_ms, run_id)
    inspections = [
        Inspection(
            ("HGETALL", keys.run(run_id)), "the run: state, version, times, attempt, worker"
        ),
        Inspection(("XLEN", journal), "the journal: how many entries"),
        Inspection(("XRANGE", journal, "-", "+", "COUNT", "10"), "its first entries"),
        Inspection(
            ("XREVRANGE", journal, "+", "-", "COUNT", "5"), "its last entries, newest first"
        ),
        Inspection(("GET", keys.input(run_id)), "the input, as JSON"),
        Inspection(("GET", keys.result(run_id)), "the result, as JSON"),
        Inspection(
            ("HGETALL", keys.producers(run_id)),
            "the last write of each producer: this makes retries safe",
        ),
        Inspection(("PTTL", keys.run(run_id)), "milliseconds until it expires; -1: never"),
        Inspection(("ZSCORE", keys.index(partition), member), "its position in the list of runs"),
    ]
    if run.checkpoint_size is not None:
        inspections.append(
            Inspection(("GET", keys.checkpoint(run_id)), "its last checkpoint, as JSON")
        )
    return inspections + (
        _when_ended(keys, run) if run.state.is_terminal else _while_live(keys, run)
    )


def _when_ended(keys: Keys, run: Run) -> list[Inspection]:
    partition = keys.partition(run.run_id)
    entry = removal_row(run.target, run.created_ms, run.run_id, run.tenant)
    inspections = [
        Inspection(("ZSCORE", keys.expiring(partition), entry), "when all of it expires")
    ]
    if run.state is RunState.FAILED and run.queued:
        dead = keys.dead(run.target, partition)
        inspections.append(
            Inspection(("XREVRANGE", dead, "+", "-", "COUNT", "5"), "its agent's dead letters")
        )
    return inspections


def _while_live(keys: Keys, run: Run) -> list[Inspection]:
    partition = keys.partition(run.run_id)
    queue, leases = keys.queue(run.target, partition), keys.leases(partition)
    overdue = removal_row(run.target, run.created_ms, run.run_id, run.tenant)
    inspections = [
        Inspection(("ZSCORE", queue, run.run_id), "its position in the queue, in milliseconds"),
        Inspection(("ZSCORE", leases, run.run_id), "the lease: until when"),
        Inspection(
            ("ZSCORE", keys.overdue(partition), overdue), "when it is failed without a new entry"
        ),
        Inspection(("SMEMBERS", keys.paused(partition)), "the agents that are paused"),
    ]
    if run.worker is not None:
        inspections.append(
            Inspection(("HGETALL", keys.worker(run.worker)), "the worker that has it")
        )
    return inspections


def client_for(session: Session, store: RedisRunStore) -> ClientCommand:
    """How to reach the server from a shell; a password is never printed."""
    given = store.client.connection_pool.connection_kwargs
    cli = redis_cli(given, tls=store.where.startswith("rediss:"))
    if session.is_embedded:
        own = ("murmur-streams", "redis")
        if session.given.url:
            own = ("murmur-streams", "redis", "--url", redacted(session.given.url))
        return ClientCommand(
            own, f"redis-cli does it, too, while the server runs: {shlex.join(cli)}"
        )
    if given.get("password"):
        return ClientCommand(cli, "the password is not shown: export REDISCLI_AUTH=... first")
    return ClientCommand(cli, "murmur-streams redis does it, too, and needs no redis-cli")


def redis_cli(given: dict[str, Any], *, tls: bool = False) -> tuple[str, ...]:
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


def _print_lines(client: ClientCommand, inspections: list[Inspection]) -> None:
    screen = console()
    screen.print(Text(f"# {client.hint}", "dim"))
    for inspection in inspections:
        screen.print(Text(f"# {inspection.shows}", "dim"))
        screen.print(Text(shlex.join([*client.argv, *inspection.argv])))
