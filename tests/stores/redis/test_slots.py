"""All keys of a call lie in one hash slot, so every script runs on a cluster."""

from __future__ import annotations

import asyncio
import re
from typing import Any, cast

import pytest

from murmur_streams.core.model.commands import (
    Append,
    Checkpoint,
    Command,
    Create,
    Delete,
    DeliverCancel,
    Finish,
    Payload,
    PushEvent,
    Release,
    RequestCancel,
    Seal,
    SetResult,
    SetState,
    UpdateProgress,
)
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.stores.redis.calls import Calls
from murmur_streams.stores.redis.durations import Durations
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.scripts import script_folder
from murmur_streams.stores.redis.writer import Writer
from murmur_streams.stores.redis.writes import (
    Arguments,
    CommandGroup,
    NumberedCall,
    WaitingWrite,
)

EVENT = {"type": "log", "ts": "2026-01-01T00:00:00+00:00"}
COMMANDS: dict[str, Command] = {
    "create": Create("t", "epoch", tenant="acme"),
    "append": Append((EVENT, EVENT)),
    "push_event": PushEvent(EVENT),
    "set_state": SetState(RunState.RUNNING),
    "finish": Finish(RunState.COMPLETED, event=EVENT),
    "update_progress": UpdateProgress(RunProgress()),
    "set_result": SetResult(Payload("1", 1, "sha")),
    "seal": Seal(),
    "release": Release("why", "claim"),
    "submit": Create("t", "epoch", queued=True, priority=1, traceparent="x"),
    "request_cancel": RequestCancel("why"),
    "deliver_cancel": DeliverCancel("claim"),
    "checkpoint": Checkpoint(Payload("1", 1, "sha"), "claim"),
    "delete": Delete(),
}
DURATIONS = Durations(1, 2, 3, 4)
OWN_EVENT_ARGUMENTS = 1 + 2 * len(EVENT)


class Recorder:
    """Takes commands and sends none."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[Any]]] = []

    async def write(
        self,
        command: str,
        run_id: str,
        arguments: Arguments,
        events: int = 0,
        *,
        size: int | None = None,
    ) -> tuple[str, ...]:
        del events, size
        write = WaitingWrite(command, run_id, arguments, 0, 0, 0.0, asyncio.Future())
        name, of_run, count, *own = CommandGroup([write]).arguments()
        assert (name, of_run, count) == (command, run_id, len(own))
        self.calls.append((command, own))
        return ("OK", "1")


def crc16(data: bytes) -> int:
    """CRC-16/XMODEM, as the cluster specification has it."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def slot(key: str) -> int:
    """The hash slot of a key: that of what stands between its first braces."""
    start = key.find("{")
    end = key.find("}", start + 1)
    tagged = key[start + 1 : end] if start >= 0 and end > start + 1 else key
    return crc16(tagged.encode()) % 16384


def recorded(command: Command) -> tuple[str, list[Any]]:
    """The name and the arguments with which a command of the core is sent."""
    recorder = Recorder()
    calls = Calls(cast("Writer", recorder), DURATIONS)

    async def execute() -> None:
        await calls.execute("r", command)

    asyncio.run(execute())
    (call,) = recorder.calls
    return call


def declared(script: str, section: str) -> list[tuple[str, str]]:
    """Name and type of each row of a section in a script's header, groups row by row."""
    source = (script_folder() / f"{script}.lua").read_text(encoding="utf-8")
    body = re.search(rf"^-- {section}\n((?:--   .*\n)+)", source, re.MULTILINE)
    if body is None:
        return []
    rows = re.findall(r"^--   \d+ (\w+)\s+(.*)$", body[1], re.MULTILINE)
    if not rows[-1][1].startswith("groups: "):
        return rows
    groups = rows[-1][1].removeprefix("groups: ").split(", ")
    return [*rows[:-1], *(tuple(group.split(" ", 1)) for group in groups)]


def test_the_slots_are_those_of_the_cluster_specification() -> None:
    """Our crc16 gives the values of the specification."""
    assert (crc16(b"123456789"), slot("{user1000}.following")) == (0x31C3, slot("user1000"))


@pytest.mark.parametrize("partitions", [1, 7, 64])
def test_all_keys_of_a_partition_share_a_slot(partitions: int) -> None:
    """Those that a call declares, and those that a script forms: of runs, queues, indexes, ..."""
    keys = Keys("prefix", partitions)
    for run_id in ("a", "b:1", "x" * 128, "0"):
        here = keys.partition(run_id)
        of_partition = [*keys.commit_keys(here), *keys.base_and_feed(here)]
        of_partition += [keys.leases(here), keys.index(here), keys.producer("p", here)]
        of_partition += [keys.queue("t", here), keys.wake("t", here), keys.expiring(here)]
        of_partition += [keys.index_target("t", here), keys.index_tenant("acme", here)]
        of_partition += [keys.dead("t", here), keys.paused(here), keys.control("w", here)]
        assert len({slot(key) for key in [*keys.of_run(run_id), *of_partition]}) == 1


def test_a_call_sends_the_keys_that_the_commit_declares() -> None:
    """The order is that of the header of commit.lua."""
    formed = [re.split(r"\s+", row)[1] for _, row in declared("commit", "KEYS")]
    shown = [row.replace("<prefix>", "prefix").replace("{p}", "{3}") for row in formed]
    assert Keys("prefix", 7).commit_keys(3) == shown


@pytest.mark.parametrize("name", ["append", "create"])
def test_a_call_sends_the_arguments_that_the_commit_declares(name: str) -> None:
    """Their number and types are those of the header of commit.lua."""
    write = WaitingWrite(name, "r", ["a", "b"], 0, 0, 0.0, cast("asyncio.Future[Any]", None))
    call = NumberedCall(2, [CommandGroup([write])], 3, 4)
    arguments = call.arguments("producer", 1, 1, DURATIONS, "7")
    *first, group_name, group_run, group_size, group_arguments = declared("commit", "ARGV")
    sent = arguments[: len(first)]
    for (row, kind), value in zip(first, sent, strict=True):
        assert isinstance(value, int if kind.startswith("integer") else str), row
    # The number of partitions is sent with a command that creates a run, and only then.
    assert sent[-2:] == ["7" if name == "create" else "", 1]
    kinds = [kind for _, kind in (group_name, group_run, group_size, group_arguments)]
    assert kinds == ["text", "text", "integer", "texts"]
    group_sent = arguments[len(first) :]
    assert (group_sent[:2], group_sent[2]) == ([name, "r"], len(group_sent) - 3)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_sends_as_many_arguments_as_it_declares(name: str) -> None:
    """Each command that a store sends is compared with the header of its file."""
    command, arguments = recorded(COMMANDS[name])
    assert command == name
    rows = declared(f"commands/{name}", "ARGV")
    events = {"append": 2, "push_event": 1, "finish": 1}.get(name, 0)
    # A header that shows the groups of its events has a row for their sizes, too.
    of_events = 2 if rows[-1:] == [("event", "texts")] else 1
    sent = len(arguments) - events * OWN_EVENT_ARGUMENTS + (of_events if events else 0)
    assert sent == len(rows)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_sends_integers_where_it_declares_them(name: str) -> None:
    """Each argument of each command is compared."""
    _, arguments = recorded(COMMANDS[name])
    for (row, kind), value in zip(declared(f"commands/{name}", "ARGV"), arguments, strict=False):
        if kind.startswith("integer") and "or ''" not in kind:
            assert isinstance(value, int), row
