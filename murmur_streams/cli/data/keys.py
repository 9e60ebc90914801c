"""``murmur-streams keys RUN``: the exact redis-cli lines that look inside a run."""

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
class Look:
    """One command that looks inside a run, and what it shows."""

    words: tuple[str, ...]
    shows: str


@dataclass(frozen=True, slots=True)
class Client:
    """The client that the commands are for."""

    words: tuple[str, ...]
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
        looks = looks_inside(where, found)
        if session.as_json:
            print_json(
                {
                    "run_id": found.run_id,
                    "keys": where.of_run(found.run_id),
                    "client": list(client.words),
                    "commands": [
                        {"words": list(look.words), "shows": look.shows} for look in looks
                    ],
                }
            )
            return
        _print_lines(client, looks)


async def _read(session: Session, run_id: str) -> tuple[Run, Keys, Client]:
    async with session.redis_store() as store:
        return await store.snapshot(run_id), server_of(store).keys, client_for(session, store)


def looks_inside(keys: Keys, run: Run) -> list[Look]:
    """The commands that show all that the server has of a run."""
    run_id, partition = run.run_id, keys.partition(run.run_id)
    journal = keys.journal(run_id)
    member = listing_key(run.created_ms, run_id)
    looks = [
        Look(("HGETALL", keys.run(run_id)), "the run: state, version, times, attempt, worker"),
        Look(("XLEN", journal), "the journal: how many entries"),
        Look(("XRANGE", journal, "-", "+", "COUNT", "10"), "its first entries"),
        Look(("XREVRANGE", journal, "+", "-", "COUNT", "5"), "its last entries, newest first"),
        Look(("GET", keys.input(run_id)), "the input, as JSON"),
        Look(("GET", keys.result(run_id)), "the result, as JSON"),
        Look(("HGETALL", keys.producers(run_id)), "who wrote last: this makes retries safe"),
        Look(("PTTL", keys.run(run_id)), "milliseconds until it expires; -1: never"),
        Look(("ZSCORE", keys.index(partition), member), "its place in the list of runs"),
    ]
    if run.checkpoint_size is not None:
        looks.append(Look(("GET", keys.checkpoint(run_id)), "its last checkpoint, as JSON"))
    return looks + (_when_ended(keys, run) if run.state.is_terminal else _while_live(keys, run))


def _when_ended(keys: Keys, run: Run) -> list[Look]:
    partition = keys.partition(run.run_id)
    entry = removal_row(run.target, run.created_ms, run.run_id, run.tenant)
    looks = [Look(("ZSCORE", keys.expiring(partition), entry), "when all of it expires")]
    if run.state is RunState.FAILED and run.queued:
        dead = keys.dead(run.target, partition)
        looks.append(Look(("XREVRANGE", dead, "+", "-", "COUNT", "5"), "its agent's dead letters"))
    return looks


def _while_live(keys: Keys, run: Run) -> list[Look]:
    partition = keys.partition(run.run_id)
    queue, leases = keys.queue(run.target, partition), keys.leases(partition)
    overdue = removal_row(run.target, run.created_ms, run.run_id, run.tenant)
    looks = [
        Look(("ZSCORE", queue, run.run_id), "in the queue: its place, in milliseconds"),
        Look(("ZSCORE", leases, run.run_id), "the lease: until when"),
        Look(("ZSCORE", keys.overdue(partition), overdue), "when it is failed if nobody writes"),
        Look(("SMEMBERS", keys.paused(partition)), "the agents that are paused"),
    ]
    if run.worker is not None:
        looks.append(Look(("HGETALL", keys.worker(run.worker)), "the worker that has it"))
    return looks


def client_for(session: Session, store: RedisRunStore) -> Client:
    """How to reach the server from a shell; a password is never printed."""
    given = store.client.connection_pool.connection_kwargs
    cli = redis_cli(given, tls=store.where.startswith("rediss:"))
    if session.is_embedded:
        own = ("murmur-streams", "redis")
        if session.given.url:
            own = ("murmur-streams", "redis", "--url", redacted(session.given.url))
        return Client(own, f"redis-cli does it, too, while the server runs: {shlex.join(cli)}")
    if given.get("password"):
        return Client(cli, "the password is not shown: export REDISCLI_AUTH=... first")
    return Client(cli, "murmur-streams redis does it, too, and needs no redis-cli")


def redis_cli(given: dict[str, Any], *, tls: bool = False) -> tuple[str, ...]:
    """The redis-cli that connects like a client with these settings, without its password."""
    words: list[str] = ["redis-cli"]
    database = int(given.get("db") or 0)
    if given.get("path"):
        words += ["-s", str(given["path"])]
        words += ["-n", str(database)] if database else []
    else:
        host = str(given.get("host", "localhost"))
        host = f"[{host}]" if ":" in host else quote(host)
        scheme = "rediss" if tls else "redis"
        words += ["-u", f"{scheme}://{host}:{given.get('port', 6379)}/{database}"]
    # Alone it may be a password that was put in its place, as in redis://SECRET@host.
    if given.get("username") and given.get("password"):
        words += ["--user", str(given["username"])]
    return tuple(words)


def _print_lines(client: Client, looks: list[Look]) -> None:
    screen = console()
    screen.print(Text(f"# {client.hint}", "dim"))
    for look in looks:
        screen.print(Text(f"# {look.shows}", "dim"))
        screen.print(Text(shlex.join([*client.words, *look.words])))
