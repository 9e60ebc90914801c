"""Turns commands into those of the scripts; names and order are those of their ARGV."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from murmur_streams.core.archive.run_archive import RunArchive
from murmur_streams.core.model import commands
from murmur_streams.core.model.commands import Command, Create, Payload
from murmur_streams.core.model.run import Run, run_to_fields
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.redis.durations import Durations
from murmur_streams.stores.redis.replies import counted, flatten
from murmur_streams.stores.redis.writer import Writer
from murmur_streams.stores.redis.writes import Arguments


class Calls:
    """Sends commands of the core to their scripts."""

    def __init__(self, writer: Writer, durations: Durations) -> None:
        self._writer = writer
        self._owner = durations.owner

    def execute(self, run_id: str, command: Command) -> Awaitable[Answer]:
        """Execute a command on a run, exactly once.

        Args:
            run_id: the run.
            command: the change; its script applies every rule.

        Returns:
            The tagged answer, as ``core.decide`` documents it.
        """
        if isinstance(command, commands.Append):
            # The fields of events were found to be texts that can be encoded when they were made.
            size = sum([len("".join(fields.values())) for fields in command.events])
            own, events = _append(command), len(command.events)
            return self._writer.write("append", run_id, own, events, size=size)
        name, arguments = _COMMANDS[type(command)]
        own = arguments(command)
        if isinstance(command, Create) and command.queued:
            name, own = "submit", [*own, *_order(command)]
        if isinstance(command, commands.SetState):
            own = [*own, *self._owner]
        return self._writer.write(name, run_id, own)

    def requeue(self, run_id: str, command: Create, letter_id: str) -> Awaitable[Answer]:
        """Submit a run that replaces a dead letter, exactly once.

        Args:
            run_id: the new run, in the partition of the letter.
            command: how the run begins.
            letter_id: the letter's id in the stream of the run's target.

        Returns:
            The tagged answer; NOT_FOUND when the letter does not exist.
        """
        own = [letter_id, *_create(command), *_order(command)]
        return self._writer.write("requeue", run_id, own)

    def restore(self, archive: RunArchive, run: Run, digest: str) -> Awaitable[Answer]:
        """Make a run of the journal that ``restore_page`` collected, exactly once.

        Args:
            archive: the run's payloads, and the journal that must be complete.
            run: the fold of that journal.
            digest: the archive's, as in the key of the collected journal.

        Returns:
            The tagged answer; EXISTS when the id has a run, ELSEWHERE when part of it is missing.
        """
        fields = flatten(run_to_fields(run))
        own: list[str | int] = [
            *(digest, archive.entries[-1].id, run.due_ms or 0),
            *(archive.input_json or "", archive.result_json or "", archive.checkpoint_json or ""),
            *(len(fields), *fields),
        ]
        return self._writer.write("restore", archive.run_id, own)


def _create(command: Create) -> Arguments:
    texts = [command.metadata_json or "", command.tenant or ""]
    return [command.target, command.epoch, *_payload(command.input), *texts]


def _order(command: Create) -> Arguments:
    texts = [command.traceparent or "", command.tracestate or "", command.request_sha256 or ""]
    return [command.priority, command.delay_ms, command.due_ms or 0, command.deadline_ms, *texts]


def _append(command: commands.Append) -> Arguments:
    expected = "" if command.expected_version is None else command.expected_version
    return [expected, command.claim or "", len(command.events), *counted(command.events)]


def _finish(command: commands.Finish) -> Arguments:
    events = [] if command.event is None else [command.event]
    return [
        *(str(command.state), command.claim or "", command.error or ""),
        *(*_payload(command.result), command.dead or "", command.stopped or ""),
        *(len(events), *counted(events)),
    ]


def _update_progress(command: commands.UpdateProgress) -> Arguments:
    progress = command.progress
    counters = [progress.total, progress.completed, progress.failed, progress.running]
    return [*counters, command.claim or ""]


def _release(command: commands.Release) -> Arguments:
    return [command.claim, command.reason, command.delay_ms, command.error or ""]


def _request_cancel(command: commands.RequestCancel) -> Arguments:
    return [command.reason or "", command.host or ""]


def _checkpoint(command: commands.Checkpoint) -> Arguments:
    return [command.claim, *_payload(command.value)]


_COMMANDS: dict[type[Command], tuple[str, Callable[[Any], Arguments]]] = {
    Create: ("create", _create),
    commands.PushEvent: ("push_event", lambda command: counted([command.event])),
    commands.SetState: ("set_state", lambda command: [str(command.state)]),
    commands.Finish: ("finish", _finish),
    commands.UpdateProgress: ("update_progress", _update_progress),
    commands.SetResult: ("set_result", lambda command: [*_payload(command.result)]),
    commands.Seal: ("seal", lambda _: []),
    commands.Release: ("release", _release),
    commands.RequestCancel: ("request_cancel", _request_cancel),
    commands.DeliverCancel: ("deliver_cancel", lambda command: [command.claim]),
    commands.Checkpoint: ("checkpoint", _checkpoint),
    commands.Delete: ("delete", lambda command: [int(command.force)]),
}
"""The script of each command, and the function that makes its ARGV."""


def _payload(payload: Payload | None) -> tuple[str, int, str]:
    return ("", 0, "") if payload is None else (payload.text, payload.size, payload.sha256)
