"""Judges a history: whether a store broke a promise, whatever happened meanwhile.

The journal of a run is a witness of the order in which its writes were applied. So a history needs
no search for a possible order, as a checker of linearizability without a witness does (Wing and
Gong, "Testing and verifying concurrent objects", 1993): each call is compared with the run as it
was at the call's place in the journal. The pure core is the model: a refused call is right if
``decide`` gives its answer for the run at some version that it may have met between its beginning
and its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from murmur_streams.core.model import commands
from murmur_streams.core.model.entries import Cursor, EntryType, JournalEntry
from murmur_streams.core.model.errors import RunDamagedError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.run import Run, run_to_fields
from murmur_streams.core.model.states import TERMINAL_STATES, RunState
from murmur_streams.core.rules.audit import field_problems, order_problems
from murmur_streams.core.rules.decide import Now, decide
from murmur_streams.core.rules.evolve import evolve, fold
from murmur_streams.testing.history import Call, History, Outcome, StoredRun
from murmur_streams.testing.run_view import RunView, events_of, own_fields

_BETWEEN = frozenset({EntryType.SNAPSHOT, EntryType.SEALED})
"""Entries that may follow a write within its version."""
_OF_THE_STORE = frozenset({RunEventType.RUN_CANCELLED, RunEventType.AGENT_STARTED})
"""Events that a store writes itself, when it cancels or starts a run."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise."""

    run_id: str
    rule: str
    text: str


def check(history: History, stored: Mapping[str, StoredRun]) -> list[Violation]:
    """Judge a history.

    Args:
        history: what programs did, and what they were answered.
        stored: what the store has at the end, by run id; see ``history.stored_runs``. No write may
            be under way any more.

    Returns:
        Every violation that was found; an empty list when all is well.
    """
    found: list[Violation] = []
    parts, nothing = history.of_runs(), History([], [], [], history.is_whole, history.may_rewind)
    for run_id in dict.fromkeys([*history.run_ids, *stored]):
        view = RunView.of(parts.get(run_id, nothing), run_id, stored.get(run_id, StoredRun(None)))
        for rule, look in RULES.items():
            found += [Violation(run_id, rule, text) for text in look(view)]
    return found


def _exists(view: RunView) -> Iterator[str]:
    created = [call for call in view.calls if isinstance(call.command, commands.Create)]
    is_created = any(
        call.outcome is Outcome.ACKNOWLEDGED and not view.is_reported(call) for call in created
    )
    if is_created and view.stored.run is None and not view.was_deleted:
        yield "the run was created, and it is gone"


def _order(view: RunView) -> Iterator[str]:
    yield from order_problems(view.stored.journal)
    if len({entry.epoch for entry in view.stored.journal}) > 1:
        yield "the journal has entries of several lives of the run"


def _state(view: RunView) -> Iterator[str]:
    run, journal = view.stored.run, view.stored.journal
    if run is None:
        return
    try:
        folded = fold(journal)
    except (ValueError, KeyError, RunDamagedError) as error:
        yield f"the journal cannot be folded: {error!r}"
        return
    if folded is None:
        yield "the journal is missing"
        return
    yield from field_problems(run_to_fields(run), folded, [])


def _ends_once(view: RunView) -> Iterator[str]:
    states = [entry for entry in view.stored.journal if entry.type == EntryType.STATE]
    for before, after in pairwise(states):
        if before.fields.get("state") in TERMINAL_STATES:
            yield f"entry {after.id} changes the state after the run ended at {before.id}"


def _acknowledged(view: RunView) -> Iterator[str]:
    for call in view.calls:
        if call.outcome is not Outcome.ACKNOWLEDGED or view.was_deleted:
            continue
        command, run, version = call.command, view.stored.run, call.version
        may_miss = _may_be_dropped(view, call) or view.is_reported(call)
        end = command.state if isinstance(command, commands.Finish) and not may_miss else None
        if run is not None and end not in {None, run.state}:
            yield f"the run was ended as {end}, and it is {run.state}"
        seqs = view.seqs_of_write(command)
        if view.first_seq > 1 and not any(seqs) and (version or 1) <= view.first_seq:
            continue  # Trimmed away.
        what = "that was acknowledged" if version is None else f"acknowledged at version {version}"
        yield from _once(what, seqs, at_least=not may_miss)
        at = [each[0] for each in seqs if len(each) == 1]
        if version is not None and len(at) == len(seqs) and at:
            between = [entry for entry in view.stored.journal if at[-1] < entry.seq <= version]
            if at[-1] > version or any(entry.type not in _BETWEEN for entry in between):
                yield f"a write acknowledged at version {version} ends at entry {at[-1]}"


def _may_be_dropped(view: RunView, call: Call) -> bool:
    """A worker's ``finish`` becomes a cancellation, without its event, once that was requested."""
    command, run = call.command, view.stored.run
    is_of_worker = isinstance(command, commands.Finish) and command.claim is not None
    return is_of_worker and run is not None and run.state is RunState.CANCELLED


def _unknown(view: RunView) -> Iterator[str]:
    for call in view.calls:
        if call.outcome is Outcome.UNKNOWN:
            seqs = view.seqs_of_write(call.command)
            yield from _once("whose outcome is unknown", seqs, at_least=False)


def _once(what: str, seqs: Sequence[list[int]], *, at_least: bool) -> Iterator[str]:
    """All events of a write are in the journal once, without gaps; or none, unless ``at_least``."""
    count = sum(bool(each) for each in seqs)
    if count < len(seqs) and (count or at_least):
        yield f"a write {what} has {len(seqs)} events, and the journal has {count} of them"
    for each in seqs:
        if len(each) > 1:
            yield f"an event of a write {what} is in the journal {len(each)} times: {each}"
    at = [each[0] for each in seqs if each]
    if any(after != before + 1 for before, after in pairwise(at)):
        yield f"the events of a write {what} are not one after the other: {at}"


def _refused(view: RunView) -> Iterator[str]:
    for call in view.calls:
        if call.outcome is Outcome.REFUSED:
            for event in events_of(call.command):
                if seqs := view.seqs(event):
                    yield f"an event of a refused write is in the journal at {seqs}"


def _known_events(view: RunView) -> Iterator[str]:
    if not view.is_whole:
        return
    written = {own_fields(event) for call in view.calls for event in events_of(call.command)}
    for entry in view.stored.journal:
        is_event = not entry.type.startswith("run.") and entry.type not in _OF_THE_STORE
        if is_event and own_fields(entry.fields) not in written:
            yield f"no call wrote the event of entry {entry.id} with these fields"


def _real_time(view: RunView) -> Iterator[str]:
    """A write that was answered before another began comes before it in the journal."""
    if view.was_deleted:
        return
    written = [
        (max(seqs), call)
        for call in view.calls
        if (seqs := [*chain.from_iterable(view.seqs_of_write(call.command))])
    ]
    written.sort(key=lambda each: each[0])
    earliest_end = math.inf
    for seq, call in reversed(written):
        if earliest_end < call.began:
            yield f"the write at entry {seq} began after one at a later entry had returned"
        earliest_end = min(earliest_end, call.ended)


def _refusals(view: RunView) -> Iterator[str]:
    """A refused call met the run at a version at which the rules refuse it."""
    journal = view.stored.journal
    if not journal or view.first_seq != 1 or view.was_deleted or not view.is_whole:
        return
    if view.losses:
        return  # It may have met entries that are lost.
    runs: list[Run | None] = [None]
    try:
        for entry in journal:
            runs.append(evolve(runs[-1], entry))
    except (ValueError, KeyError, RunDamagedError):
        return  # The rule of the fold reports it.
    for call in view.calls:
        if call.outcome is not Outcome.REFUSED or call.answer is None:
            continue
        low, high = _versions_met(view, call, len(journal))
        if not any(_answers(view.run_id, runs[at], call) for at in range(low, high + 1)):
            yield f"{call.answer} is not the answer at any version from {low} to {high}"


def _versions_met(view: RunView, call: Call, newest: int) -> tuple[int, int]:
    """The versions that a run may have had between a call's beginning and its end."""
    low, high = 0, newest
    for other in view.calls:
        version = other.version
        if version is None or other is call:
            continue
        if other.ended < call.began:
            low = max(low, version)
        elif other.began > call.ended:
            count = len(events_of(other.command)) or 1
            high = min(high, max(version - count, 0))
    # An acknowledged write may be missing: another rule reports it.
    low = min(low, newest)
    return low, max(low, high)


def _answers(run_id: str, run: Run | None, call: Call) -> bool:
    moment = 0 if run is None else run.last_ms
    return decide(run, run_id, call.command, Now(moment, moment)).answer == call.answer


def _attempts(view: RunView) -> Iterator[str]:
    numbered = [(entry.attempt, entry) for entry in view.stored.journal if entry.attempt]
    for (before, _), (after, entry) in pairwise(numbered):
        if (after or 0) < (before or 0):
            yield f"entry {entry.id} is of attempt {after}, after one of attempt {before}"


def _holders(view: RunView) -> Iterator[str]:
    """A worker's write is in the journal between its start of the run and the end of its claim."""
    if view.first_seq != 1 or view.was_deleted:
        return
    holder: str | None = None
    holders: dict[int, str | None] = {}
    for entry in view.stored.journal:
        holders[entry.seq] = holder
        if entry.type == EntryType.STATE:
            holder = entry.fields.get("claim")
    for call in view.calls:
        if (claim := getattr(call.command, "claim", None)) is not None:
            for seq in chain.from_iterable(view.seqs_of_write(call.command)):
                if holders[seq] != claim:
                    yield f"entry {seq} is of claim {claim}, and {holders[seq]} held the run"


def _readers(view: RunView) -> Iterator[str]:
    visible = visible_events(view.stored.journal)
    stored = {event.id for event in visible}
    for reader in [] if view.was_deleted else view.readers:
        start = 0 if reader.after is None else Cursor.parse(reader.after).seq
        expected = [event for event in visible if (event.seq or 0) > start]
        # What was trimmed away since cannot be compared any more.
        received = [event for event in reader.events if (event.seq or 0) >= view.first_seq]
        while view.may_rewind and received and received[-1].id not in stored:
            received.pop()
        ids = [event.id for event in received]
        if len(set(ids)) < len(ids):
            yield f"a reader received an event more than once: {ids}"
        elif received != expected[: len(received)]:
            yield f"a reader received {ids}, and the stream is {[each.id for each in expected]}"
        elif reader.is_complete and len(received) < len(expected) and not view.may_rewind:
            # A failover may take back an end that a reader has seen; the run then goes on.
            yield f"a reader's stream ended after {len(ids)} of {len(expected)} events"


def visible_events(journal: Sequence[JournalEntry]) -> list[RunEvent]:
    """What a stream of the run yields from its start."""
    seals = [entry.seq for entry in journal if entry.is_seal]
    last = seals[0] if seals else math.inf
    events = [entry.event() for entry in journal if entry.seq <= last]
    return [event for event in events if event is not None]


def _feed(view: RunView) -> Iterator[str]:
    if view.was_deleted or view.may_rewind:
        return
    by_seq = {entry.seq: entry for entry in view.stored.journal}
    for feed in view.feeds:
        for before, after in pairwise(feed):
            if after.seq != before.seq + 1:
                yield f"the feed has entry {after.id} after {before.id}"
        for entry in feed:
            stored = by_seq.get(entry.seq)
            if stored is None and entry.seq >= view.first_seq and by_seq:
                yield f"the feed has entry {entry.id}, and the journal does not"
            elif stored is not None and stored.fields != entry.fields:
                yield f"the feed's entry {entry.id} is not the journal's"


RULES: dict[str, Callable[[RunView], Iterator[str]]] = {
    "a created run exists": _exists,
    "entries are dense, their time does not go back, and the seal is the end": _order,
    "the run is the fold of its journal": _state,
    "a run ends once": _ends_once,
    "an acknowledged write is there, once": _acknowledged,
    "a write whose outcome is unknown is there at most once": _unknown,
    "a refused write is not there": _refused,
    "a call wrote every event": _known_events,
    "the journal's order is that of the calls": _real_time,
    "a refusal has its reason": _refusals,
    "attempts do not interleave": _attempts,
    "a worker writes only while it holds the run": _holders,
    "a reader gets each event once, in order": _readers,
    "the feed has each entry once, in order": _feed,
}
"""Each promise, and the function that looks for violations of it in one run."""
