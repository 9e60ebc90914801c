"""``decide(run, run_id, command, now) -> Decision``: every rule of a run's life, without I/O.

The run
-------
A run is one submitted piece of work. Its truth is its **journal**, a list of entries that only
grows at the end; entry n has ``seq`` n, and the seq of the last one is the run's **version**.
``evolve`` folds the entries into a ``Run``, the value that the rules below look at. A command is
compared with that value: the decision is an answer, and the entries to append. A store applies a
decision in one step, so that no other command can come between the comparison and the entries.

::

    Create                Start                  Finish, SetState
    ------>  pending  ------------->  running  ------------------->  completed, failed, cancelled
                ^                        |
                '------------------------'
                     Release, Reclaim

- **States.** A pending run waits: for its first execution, for a retry, or for a due time. A
  running run has an execution. The other three states are terminal: no command changes them.
- **Lease and fencing token.** ``Start`` gives the run to one worker. The worker's **lease** is a
  deadline that the store holds and that heartbeats move on; it is not part of the fold. The
  **fencing token** (``claim``) is a random text drawn for each start. When the lease expires,
  ``Reclaim`` makes the run pending and removes the token; the next ``Start`` sets another one. A
  worker that was only frozen still has the old token, and each of its writes is answered
  ``FENCED``. So two executions may overlap in time, but only one of them can write.
- **Attempts.** ``attempt`` counts starts. When the run has had its most attempts, or its deadline
  is over, a start is refused and the run ends failed. Excused executions do not count. ``dead`` in
  the decision sends a failed run to its target's dead letters.
- **Cancel.** ``RequestCancel`` ends a pending run at once. For a running run it only records the
  request; the worker is notified, and the run ends cancelled by whichever comes first: the
  handler's end, ``Release`` or ``Reclaim``. Once recorded, a cancel cannot be overtaken: a worker's
  ``Finish`` with another state becomes a cancellation.
- **Seal.** A stream ends at the entry that carries ``seal``. ``Finish`` writes the last event, the
  state and the seal in one step. A bare ``SetState`` to a terminal state seals at once if the
  closing event came before; else the closing event may come within ``late_event_ms`` and seals,
  and after that time ``Seal`` does. A cancellation always seals.
- **Late entries.** Events and results that come after the seal are journalled with ``late``.
  Streams do not yield them: a subscriber that was there before sees what a later one sees.
- **Deletion** appends ``run.deleted``, at which open streams end, and then removes the run.

How the rules are read
----------------------
``_RULES`` has one function for each command. Before it is called, ``decide`` checks that the run
exists (for ``Create``, that it does not) and that a worker's claim is the run's (``_FENCED``). The
rules for workers are in ``executions``; the table ``CHANGES`` has what ``SetState`` may change.
Times come in ``Now``: ``server_ms`` where one clock must decide (starts, seals, ends), and
``caller_ms`` elsewhere.

The Lua scripts are the same rules; a property test drives both and compares answers, states and
journals. An answer is a tagged tuple of texts, exactly what a script returns:

===================== ==========================================================
("OK", version)        done, or nothing was left to do
("OK", state)          of Release, Reclaim and RequestCancel: the state afterwards
("NO", state)          refused without error: the run is in this state
("NOT_FOUND",)         the run does not exist
("EXISTS",)            the id is taken
("FENCED",)            another claim holds the run, or none does
("TERMINAL", state)    the run has ended
("WRONG_VERSION", v)   the run is at version v
("NOT_TERMINAL", st)   the run has not ended
("WAIT", ms)           too early; ask again after this many milliseconds
===================== ==========================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from murmur_streams.core.model import commands
from murmur_streams.core.model.entries import EntryType, Fields, JournalEntry, progress_fields
from murmur_streams.core.model.events import is_closing
from murmur_streams.core.model.run import Run, run_to_fields
from murmur_streams.core.model.states import CHANGES, Change, RunState
from murmur_streams.core.rules import executions
from murmur_streams.core.rules.evolve import evolve
from murmur_streams.core.rules.executions import Answer, Decision, Now, ended, written

__all__ = ["LIVE_GRACE_MS", "PROGRESS_INTERVAL_MS", "Answer", "Decision", "Now", "decide"]

PROGRESS_INTERVAL_MS = 1_000
"""Progress is journalled at most once in this time; in between, only the hash has it."""

LIVE_GRACE_MS = 86_400_000
"""A live run's keys expire this long after its live_until, so that the sweep can fail it first."""


def decide(run: Run | None, run_id: str, command: commands.Command, now: Now) -> Decision:
    """Decide what a command does to a run; None is a run that does not exist."""
    if isinstance(command, commands.Create):
        return _create(run, run_id, command, now)
    if run is None:
        return Decision(("NOT_FOUND",))
    if isinstance(command, _FENCED) and command.claim is not None and command.claim != run.claim:
        return Decision(("FENCED",))
    decision = _RULES[type(command)](run, command, now)
    if decision.entries and isinstance(command, _SNAPSHOTTED) and now.max_events:
        return _with_snapshot(run, decision, now)
    return decision


def _create(run: Run | None, run_id: str, command: commands.Create, now: Now) -> Decision:
    if run is not None:
        return Decision(("EXISTS",))
    fields = {
        "type": str(EntryType.CREATED),
        "target": command.target,
        "epoch": command.epoch,
        **({} if command.input is None else command.input.fields("input_")),
        **_order_fields(command, now),
    }
    for name in commands.CREATED_TEXTS:
        if (text := getattr(command, name)) is not None:
            fields[name] = text
    entry = JournalEntry(run_id, command.epoch, now.server_ms, 1, fields)
    return Decision(("OK", "1"), (entry,))


def _order_fields(command: commands.Create, now: Now) -> dict[str, str]:
    fields: dict[str, str] = {}
    due_ms = now.server_ms + command.delay_ms if command.delay_ms > 0 else command.due_ms
    if due_ms is not None and due_ms <= now.server_ms:
        # The queue is sorted by due time and priority. A due time in the past would put the run
        # ahead of all that were submitted before it, whatever their priority.
        due_ms = None
    if command.queued:
        fields["queued"] = "1"
    if command.priority:
        fields["priority"] = str(command.priority)
    if due_ms is not None:
        fields["due"] = str(due_ms)
    if command.deadline_ms:
        fields["deadline"] = str(max(now.server_ms, due_ms or 0) + command.deadline_ms)
        fields["deadline_span"] = str(command.deadline_ms)
    return fields


def _append(run: Run, command: commands.Append, now: Now) -> Decision:
    if run.state.is_terminal:
        return Decision(("TERMINAL", str(run.state)))
    expected = command.expected_version
    if expected is not None and expected != run.version:
        return Decision(("WRONG_VERSION", str(run.version)))
    attempt = {} if command.claim is None else {"attempt": str(run.attempt)}
    return written(run, now.caller_ms, [{**event, **attempt} for event in command.events])


def _push_event(run: Run, command: commands.PushEvent, now: Now) -> Decision:
    event = dict(command.event)
    if not run.state.is_terminal:
        return written(run, now.caller_ms, [event])
    if run.seal is not None:
        return written(run, now.server_ms, [{**event, "late": "1"}])
    if _remaining_ms(run, now) == 0:
        # The time for a closing event is over, but nothing has sealed the run yet. Without the
        # seal here, the event could still become the last one of the stream. A subscriber that
        # asked for the seal a moment earlier has ended its stream without that event, and the
        # next subscriber would see it: two readers of one run with different events.
        return written(run, now.server_ms, [_sealed_fields(), {**event, "late": "1"}])
    if is_closing(event["type"], event.get("agent"), run.target):
        event["seal"] = "1"
    return written(run, now.server_ms, [event])


def _set_state(run: Run, command: commands.SetState, now: Now) -> Decision:
    match CHANGES[run.state, command.state]:
        case Change.NONE:
            return Decision(("NO", str(run.state)))
        case Change.ENTER:
            if command.state is RunState.PENDING and run.cancel_requested is not None:
                # A pending run with a recorded cancel is never started, so it would wait for ever.
                extra = {"stopped": "pending"}
                return ended(run, RunState.CANCELLED, now, seal=True, extra=extra)
            fields = {"type": str(EntryType.STATE), "state": str(command.state)}
            return written(run, now.server_ms, [fields])
        case Change.END:
            return ended(run, command.state, now, seal=run.closing is not None)


def _finish(run: Run, command: commands.Finish, now: Now) -> Decision:
    if run.state.is_terminal:
        return Decision(("NO", str(run.state)))
    if command.claim is not None and run.cancel_requested is not None:
        command = _overruled(command)
    extra = {} if command.claim is None else executions.execution_fields(run)
    before: list[Fields] = []
    if command.result is not None:
        before.append({"type": str(EntryType.RESULT), **command.result.fields()})
    if command.event is not None:
        attempt = {} if command.claim is None else {"attempt": str(run.attempt)}
        before.append({**command.event, **attempt})
    if command.stopped is not None:
        extra["stopped"] = command.stopped
    if command.dead is not None:
        extra["reason"] = command.dead
    end = ended(run, command.state, now, seal=True, before=before, error=command.error, extra=extra)
    return replace(end, dead=command.dead)


def _overruled(command: commands.Finish) -> commands.Finish:
    """Turn a worker's ``Finish`` into a cancellation, once a cancel was recorded.

    Without this rule: a caller requests a cancel and gets the answer "running, recorded". At the
    same moment the handler returns, and its ``Finish`` arrives after the request. The run would end
    completed, although the caller was promised that it ends cancelled, and may already have started
    the work again elsewhere. The order of the two commands in the journal decides.
    """
    stopped = command.stopped or "handler"
    if command.state is RunState.CANCELLED:
        return replace(command, stopped=stopped)
    return commands.Finish(RunState.CANCELLED, claim=command.claim, stopped=stopped)


def _update_progress(run: Run, command: commands.UpdateProgress, now: Now) -> Decision:
    if run.state.is_terminal:
        return Decision(("NO", str(run.state)))
    # abs(): with a clock that was set back, the difference is negative until the old time comes
    # again, and no progress would be journalled for as long.
    if run.progress_ms is None or abs(now.caller_ms - run.progress_ms) >= PROGRESS_INTERVAL_MS:
        fields = {**progress_fields(command.progress), "at": str(now.caller_ms)}
        return written(run, now.caller_ms, [fields])
    return Decision(("OK", str(run.version)), progress=command.progress)


def _set_result(run: Run, command: commands.SetResult, now: Now) -> Decision:
    if run.state.is_terminal and (run.state is RunState.CANCELLED or run.result_size is not None):
        return Decision(("NO", str(run.state)))
    fields = {"type": str(EntryType.RESULT), **command.result.fields()}
    if run.seal is not None:
        fields["late"] = "1"
    return written(run, now.server_ms, [fields])


def _seal(run: Run, command: commands.Seal, now: Now) -> Decision:
    del command
    if not run.state.is_terminal:
        return Decision(("NO", str(run.state)))
    if run.seal is not None:
        return Decision(("OK", str(run.version)))
    remaining = _remaining_ms(run, now)
    if remaining > 0:
        return Decision(("WAIT", str(remaining)))
    return written(run, now.server_ms, [_sealed_fields()])


def _delete(run: Run, command: commands.Delete, now: Now) -> Decision:
    if not run.state.is_terminal and not command.force:
        return Decision(("NOT_TERMINAL", str(run.state)))
    return written(run, now.server_ms, [{"type": str(EntryType.DELETED)}])


_FENCED = (
    commands.Append,
    commands.Finish,
    commands.UpdateProgress,
    commands.Release,
    commands.DeliverCancel,
    commands.Checkpoint,
    commands.NoteSilence,
)
"""The commands that carry a worker's claim, which must be the one that holds the run."""

_SNAPSHOTTED = (commands.Append, commands.PushEvent, commands.UpdateProgress, commands.Checkpoint)
"""The commands that a run may get in any number, so that its journal must be trimmed."""

_RULES: dict[type[commands.Command], Callable[[Run, Any, Now], Decision]] = {
    commands.Append: _append,
    commands.PushEvent: _push_event,
    commands.SetState: _set_state,
    commands.Finish: _finish,
    commands.UpdateProgress: _update_progress,
    commands.SetResult: _set_result,
    commands.Seal: _seal,
    commands.Start: executions.start,
    commands.Release: executions.release,
    commands.Reclaim: executions.reclaim,
    commands.RequestCancel: executions.request_cancel,
    commands.DeliverCancel: executions.deliver_cancel,
    commands.Checkpoint: executions.checkpoint,
    commands.NoteSilence: executions.note_silence,
    commands.Delete: _delete,
}


def _with_snapshot(run: Run, decision: Decision, now: Now) -> Decision:
    """Add a ``run.snapshot`` when half a journal was written since the last one.

    A trimmed journal is folded from its oldest snapshot on. One every half of ``max_events`` keeps
    at least one inside the entries that trimming leaves.
    """
    last = decision.entries[-1]
    if last.seq - (run.snapshot or 0) < now.max_events // 2:
        return decision
    for entry in decision.entries:
        run = evolve(run, entry)
    flushed: tuple[JournalEntry, ...] = ()
    if run.progress_dirty and run.progress is not None:
        fields = {**progress_fields(run.progress), "at": str(now.caller_ms)}
        flushed = written(run, run.last_ms, [fields]).entries
        run = evolve(run, flushed[0])
    folded = {name: text for name, text in run_to_fields(run).items() if name != "snapshot"}
    last = written(run, run.last_ms, [{"type": str(EntryType.SNAPSHOT), **folded}])
    return Decision(last.answer, (*decision.entries, *flushed, *last.entries))


def _remaining_ms(run: Run, now: Now) -> int:
    return max(0, (run.ended_ms or 0) + now.late_event_ms - now.server_ms)


def _sealed_fields() -> dict[str, str]:
    return {"type": str(EntryType.SEALED), "seal": "1"}
