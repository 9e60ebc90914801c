"""Turns commands into script calls; names and order are those of the script's ARGV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from murmur_streams.core.archive.run_archive import RunArchive
from murmur_streams.core.model import commands
from murmur_streams.core.model.commands import Command, Create, Payload
from murmur_streams.core.model.run import Run, run_to_fields
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.replies import counted, flatten
from murmur_streams.stores.redis.writer import Writer
from murmur_streams.stores.redis.writes import Arguments

Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Durations:
    """The store's settings that scripts take as arguments, in milliseconds and entries."""

    ttl_ms: int
    live_ttl_ms: int
    late_event_ms: int
    feed_max_entries: int
    max_events: int = 0
    """The journal's cap; 0 for none."""
    owner: tuple[str, int] = ("", 0)
    """The owner id of runs that this store sets running, and its lease; ("", 0) for none."""

    @property
    def shared(self) -> tuple[int, int, int]:
        """ARGV 5 to 7 of every write."""
        return self.feed_max_entries, self.live_ttl_ms, self.max_events


class Calls:
    """Sends commands of the core to their scripts."""

    def __init__(self, writer: Writer, keys: Keys, durations: Durations, clock: Clock) -> None:
        self._writer = writer
        self._keys = keys
        self._durations = durations
        self._clock = clock

    async def execute(self, run_id: str, command: Command) -> Answer:
        """Execute a command on a run, exactly once.

        Args:
            run_id: the run.
            command: the change; its script applies every rule.

        Returns:
            The tagged answer, as ``core.decide`` documents it.
        """
        name, arguments = _SCRIPTS[type(command)]
        own = arguments(command, self._durations)
        if isinstance(command, Create) and command.queued:
            name, own = "submit", [*own, *_order(command)]
        return await self._write(name, run_id, own)

    async def requeue(self, run_id: str, command: Create, letter_id: str) -> Answer:
        """Submit a run that replaces a dead letter, exactly once.

        Args:
            run_id: the new run, in the partition of the letter.
            command: how the run begins.
            letter_id: the letter's id in the stream of the run's target.

        Returns:
            The tagged answer; NOT_FOUND when the letter does not exist.
        """
        own = [*_create(command, self._durations), *_order(command), letter_id]
        dead = self._keys.dead(command.target, self._keys.partition(run_id))
        return await self._write("requeue", run_id, own, dead)

    async def restore(self, archive: RunArchive, run: Run, restoring: str) -> Answer:
        """Make a run of the journal that ``restore_page`` collected, exactly once.

        Args:
            archive: the run's payloads, and the journal that must be complete.
            run: the fold of that journal.
            restoring: the key of the collected journal.

        Returns:
            The tagged answer; EXISTS when the id has a run, ELSEWHERE when part of it is missing.
        """
        run_id = archive.run_id
        base = self._keys.base(self._keys.partition(run_id))
        own: list[str | int] = [
            self._durations.ttl_ms,
            archive.entries[-1].id,
            run.due_ms or 0,
            archive.input_json or "",
            archive.result_json or "",
            archive.checkpoint_json or "",
            str(self._keys.partitions),
            *flatten(run_to_fields(run)),
        ]
        keys = [*self._keys.script_keys(run_id), base, restoring]
        return await self._writer.write(
            "restore", run_id, keys, self._clock(), self._durations.shared, own
        )

    async def _write(self, name: str, run_id: str, own: Arguments, *more: str) -> Answer:
        partition = self._keys.partition(run_id)
        keys = [*self._keys.script_keys(run_id), self._keys.feed(partition)]
        if name in _WITH_BASE:
            keys.append(self._keys.base(partition))
        keys += more
        if name in _CREATING:
            own = [*own, str(self._keys.partitions)]
        return await self._writer.write(
            name, run_id, keys, self._clock(), self._durations.shared, own
        )


def _create(command: Create, durations: Durations) -> Arguments:
    texts = [command.metadata_json or "", durations.ttl_ms, command.tenant or ""]
    return [command.target, command.epoch, *_payload(command.input), *texts]


def _order(command: Create) -> Arguments:
    texts = [command.traceparent or "", command.tracestate or "", command.request_sha256 or ""]
    return [command.priority, command.delay_ms, command.due_ms or 0, command.deadline_ms, *texts]


def _append(command: commands.Append, _: Durations) -> Arguments:
    expected = "" if command.expected_version is None else command.expected_version
    return [expected, command.claim or "", len(command.events), *counted(command.events)]


def _push_event(command: commands.PushEvent, durations: Durations) -> Arguments:
    return [durations.late_event_ms, *counted([command.event])]


def _set_state(command: commands.SetState, durations: Durations) -> Arguments:
    owner, lease_ms = durations.owner
    return [str(command.state), durations.ttl_ms, owner, lease_ms]


def _finish(command: commands.Finish, durations: Durations) -> Arguments:
    events = [] if command.event is None else [command.event]
    return [
        *(str(command.state), durations.ttl_ms, command.claim or "", command.error or ""),
        *(*_payload(command.result), command.dead or "", command.stopped or ""),
        *(len(events), *counted(events)),
    ]


def _update_progress(command: commands.UpdateProgress, _: Durations) -> Arguments:
    progress = command.progress
    counters = [progress.total, progress.completed, progress.failed, progress.running]
    return [*counters, command.claim or ""]


def _release(command: commands.Release, durations: Durations) -> Arguments:
    error = command.error or ""
    return [command.claim, command.reason, command.delay_ms, error, durations.ttl_ms]


def _request_cancel(command: commands.RequestCancel, durations: Durations) -> Arguments:
    return [command.reason or "", durations.ttl_ms, command.host or ""]


def _checkpoint(command: commands.Checkpoint, _: Durations) -> Arguments:
    return [command.claim, *_payload(command.value)]


_SCRIPTS: dict[type[Command], tuple[str, Callable[[Any, Durations], Arguments]]] = {
    Create: ("create", _create),
    commands.Append: ("append", _append),
    commands.PushEvent: ("push_event", _push_event),
    commands.SetState: ("set_state", _set_state),
    commands.Finish: ("finish", _finish),
    commands.UpdateProgress: ("update_progress", _update_progress),
    commands.SetResult: ("set_result", lambda command, _: [*_payload(command.result)]),
    commands.Seal: ("seal", lambda _, durations: [durations.late_event_ms]),
    commands.Release: ("release", _release),
    commands.RequestCancel: ("request_cancel", _request_cancel),
    commands.DeliverCancel: ("deliver_cancel", lambda command, _: [command.claim]),
    commands.Checkpoint: ("checkpoint", _checkpoint),
    commands.Delete: ("delete", lambda command, _: [int(command.force)]),
}
"""The script of each command, and the function that makes its own ARGV."""
_WITH_BASE = frozenset(
    {"create", "submit", "requeue", "set_state", "finish", "release", "request_cancel", "delete"}
)
_CREATING = frozenset({"create", "submit", "requeue"})
"""Scripts whose last argument is the number of partitions, which the partition must record, too."""


def _payload(payload: Payload | None) -> tuple[str, int, str]:
    return ("", 0, "") if payload is None else (payload.text, payload.size, payload.sha256)
