"""One typed function per script that changes a run; names and order are those of its ARGV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from murmur_streams.core.commands import (
    Append,
    Command,
    Create,
    Delete,
    Finish,
    Payload,
    PushEvent,
    Release,
    Seal,
    SetResult,
    SetState,
    UpdateProgress,
)
from murmur_streams.core.decide import Answer
from murmur_streams.core.entries import Fields
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.writer import Arguments, Writer

Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Durations:
    """What the scripts need to know of time and bounds, in milliseconds and entries."""

    ttl_ms: int
    live_ttl_ms: int
    late_event_ms: int
    feed_max_entries: int


class Calls:
    """Sends commands of the core to their scripts."""

    def __init__(self, writer: Writer, keys: Keys, durations: Durations, clock: Clock) -> None:
        self._writer = writer
        self._keys = keys
        self._durations = durations
        self._clock = clock

    async def execute(self, run_id: str, command: Command, *, enqueue: bool = False) -> Answer:
        """Execute a command on a run, exactly once.

        Args:
            run_id: the run.
            command: what to do; every rule is decided by its script.
            enqueue: with Create, also put the run into its target's queue.

        Returns:
            The tagged answer, as ``core.decide`` documents it.
        """
        name, arguments = self._arguments(command)
        keys = [*self._keys.of_run(run_id), self._keys.feed()]
        if name in _WITH_BASE:
            keys.append(self._keys.base(self._keys.partition(run_id)))
        return await self._writer.write(
            "submit" if enqueue else name,
            run_id,
            keys,
            self._clock(),
            (self._durations.feed_max_entries, self._durations.live_ttl_ms),
            arguments,
        )

    def _arguments(self, command: Command) -> tuple[str, Arguments]:
        durations = self._durations
        match command:
            case Create(target, epoch, given, metadata_json):
                return "create", [target, epoch, *_payload(given), metadata_json or ""]
            case Append(events, expected, claim):
                head = ["" if expected is None else expected, claim or "", len(events)]
                return "append", [*head, *_flat(events)]
            case PushEvent(event):
                return "push_event", [durations.late_event_ms, *_flat([event])]
            case SetState(state):
                return "set_state", [str(state), durations.ttl_ms]
            case Finish():
                return "finish", self._finish(command)
            case UpdateProgress(progress, claim):
                counters = [progress.total, progress.completed, progress.failed, progress.running]
                return "update_progress", [*counters, claim or ""]
            case SetResult(result):
                return "set_result", [*_payload(result)]
            case Seal():
                return "seal", [durations.late_event_ms]
            case Release(reason, claim):
                return "release", [claim or "", reason]
            case Delete(force):
                return "delete", [int(force)]
            case _:
                raise TypeError(f"{type(command).__name__} has no script of its own")

    def _finish(self, command: Finish) -> Arguments:
        events = [] if command.event is None else [command.event]
        return [
            str(command.state),
            self._durations.ttl_ms,
            command.claim or "",
            command.error or "",
            *_payload(command.result),
            len(events),
            *_flat(events),
        ]


_WITH_BASE = frozenset({"create", "set_state", "finish", "release", "delete"})


def _payload(payload: Payload | None) -> tuple[str, int, str]:
    return ("", 0, "") if payload is None else (payload.text, payload.size, payload.sha256)


def _flat(events: Sequence[Fields]) -> list[Any]:
    arguments: list[Any] = []
    for fields in events:
        arguments.append(2 * len(fields))
        for name, value in fields.items():
            arguments += (name, value)
    return arguments
