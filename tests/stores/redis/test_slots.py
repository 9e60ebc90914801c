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
from murmur_streams.stores.redis.writes import MERGED_SCRIPTS, Arguments

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
OWN_EVENT_ARGUMENTS = 1 + 2 * len(EVENT)


class Recorder:
    """Takes calls and sends none."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str], list[object]]] = []

    async def write(
        self,
        name: str,
        run_id: str,
        keys: list[str],
        now_ms: int,
        shared: Arguments,
        own: Arguments,
    ) -> tuple[str, ...]:
        count = [1] if name in MERGED_SCRIPTS else []
        self.calls.append((name, keys, [run_id, "producer", 1, now_ms, *shared, *count, *own]))
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


def recorded(command: Command, run_id: str) -> tuple[str, list[str], list[Any]]:
    """The script, keys and arguments that a command sends."""
    recorder = Recorder()
    calls = Calls(cast("Writer", recorder), Keys("prefix"), Durations(1, 2, 3, 4), lambda: 5)
    asyncio.run(calls.execute(run_id, command))
    return recorder.calls[0]


def declared(script: str, section: str) -> list[tuple[str, str]]:
    """Name and type of each row of a section in a script's header, groups row by row."""
    source = (script_folder() / f"{script}.lua").read_text(encoding="utf-8")
    body = re.search(rf"^-- {section}\n((?:--   .*\n)+)", source, re.MULTILINE)
    assert body is not None
    rows = re.findall(r"^--   \d+ (\w+)\s+(.*)$", body[1], re.MULTILINE)
    if not rows[-1][1].startswith("groups: "):
        return rows
    groups = rows[-1][1].removeprefix("groups: ").split(", ")
    return [*rows[:-1], *(tuple(group.split(" ", 1)) for group in groups)]


def test_the_slots_are_those_of_the_cluster_specification() -> None:
    """Our crc16 gives the values of the specification."""
    assert (crc16(b"123456789"), slot("{user1000}.following")) == (0x31C3, slot("user1000"))


@pytest.mark.parametrize("run_id", ["a", "b:1", "x" * 128, "0"])
@pytest.mark.parametrize("name", COMMANDS)
def test_all_keys_of_a_call_share_a_slot(name: str, run_id: str) -> None:
    """This holds for each command and each form of run id."""
    _, keys, _ = recorded(COMMANDS[name], run_id)
    assert len({slot(key) for key in keys}) == 1


@pytest.mark.parametrize("partitions", [1, 7, 64])
def test_all_keys_of_a_partition_share_a_slot(partitions: int) -> None:
    """These are queues, leases, indexes, the feed and the rest."""
    keys = Keys("prefix", partitions)
    for run_id in ("a", "b:1", "x" * 128, "0"):
        here = keys.partition(run_id)
        of_partition = [keys.base(here), keys.feed(here), keys.leases(here), keys.index(here)]
        of_partition += [keys.queue("t", here), keys.wake("t", here), keys.expiring(here)]
        of_partition += [keys.index_target("t", here), keys.index_tenant("acme", here)]
        of_partition += [keys.dead("t", here), keys.paused(here), keys.control("w", here)]
        assert len({slot(key) for key in [*keys.of_run(run_id), *of_partition]}) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_a_call_sends_the_keys_that_its_script_declares(name: str) -> None:
    """The order is that of the script's header."""
    script, keys, _ = recorded(COMMANDS[name], "r")
    rows = [row for _, row in declared(script, "KEYS")]
    formed = [re.split(r"\s+", row)[1] for row in rows]
    shown = [
        row.replace("<prefix>", "prefix").replace("{p}", "{0}").replace("<run_id>", "r")
        for row in formed
    ]
    assert (script, keys) == (name, shown)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_call_sends_as_many_arguments_as_its_script_declares(name: str) -> None:
    """Each command that a store sends is compared."""
    script, _, arguments = recorded(COMMANDS[name], "r")
    rows = declared(script, "ARGV")
    events = {"append": 2, "push_event": 1, "finish": 1}.get(name, 0)
    sent = len(arguments) - events * OWN_EVENT_ARGUMENTS + (1 if events else 0)
    assert sent == len(rows)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_call_sends_integers_where_its_script_declares_them(name: str) -> None:
    """Each argument of each command is compared."""
    script, _, arguments = recorded(COMMANDS[name], "r")
    for (row, kind), value in zip(declared(script, "ARGV"), arguments, strict=False):
        if kind.startswith("integer") and "or ''" not in kind:
            assert isinstance(value, int), row
