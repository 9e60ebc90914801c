"""The rules of a run's life."""

from __future__ import annotations

import pytest

from murmur_streams.core.model.commands import (
    Append,
    Checkpoint,
    Command,
    Delete,
    DeliverCancel,
    Finish,
    NoteSilence,
    Payload,
    PushEvent,
    Reclaim,
    Release,
    RequestCancel,
    Seal,
    SetResult,
    SetState,
    Start,
    UpdateProgress,
)
from murmur_streams.core.model.states import CHANGES, Change, RunProgress, RunState
from tests.core.scenario import CREATED, EPOCH, NOTHING, RUN_ID, TARGET, given

NOTE = {"type": "custom", "ts": "2026-01-01T00:00:00+00:00"}
CLOSING = {"type": "agent_completed", "agent": TARGET}
CANCELLED = {"type": "run_cancelled"}
RESULT = Payload("1", 1, "sha")
TERMINAL = [RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED]
STARTED = Start("w1", "claim-1")
ON_A_RUN: list[Command] = [
    Append((NOTE,)),
    PushEvent(NOTE),
    SetState(RunState.RUNNING),
    Finish(RunState.COMPLETED),
    UpdateProgress(RunProgress()),
    SetResult(RESULT),
    Seal(),
    STARTED,
    Release("why", "claim-1"),
    Reclaim(),
    RequestCancel(),
    DeliverCancel("claim-1"),
    Checkpoint(RESULT, "claim-1"),
    NoteSilence("claim-1", 1),
    Delete(force=True),
]


def progress(completed: int) -> UpdateProgress:
    return UpdateProgress(RunProgress(total=9, completed=completed))


def test_a_run_begins_with_its_creation() -> None:
    """The first entry is run.created, with the target and the epoch."""
    created = NOTHING.when(CREATED)
    assert (created.answer, created.written) == (
        ("OK", "1"),
        [{"type": "run.created", "target": TARGET, "epoch": EPOCH}],
    )


def test_an_id_is_taken_once() -> None:
    """A second create of an id is answered EXISTS."""
    assert given().when(CREATED).decision.answer == ("EXISTS",)


@pytest.mark.parametrize("command", ON_A_RUN, ids=lambda command: type(command).__name__)
def test_nothing_is_done_to_a_run_that_is_not_there(command: Command) -> None:
    """Each command on a missing run is answered NOT_FOUND and writes nothing."""
    refused = NOTHING.when(command)
    assert (refused.answer, refused.written) == (("NOT_FOUND",), [])


@pytest.mark.parametrize("wanted", RunState)
@pytest.mark.parametrize("current", RunState)
def test_a_state_changes_as_the_table_says(current: RunState, wanted: RunState) -> None:
    """For each pair of states, SetState does what the table of changes says."""
    before = given(*[SetState(current)] * (current is not RunState.PENDING))
    after = before.when(SetState(wanted))
    if CHANGES[current, wanted] is Change.NONE:
        assert (after.answer, after.run) == (("NO", str(current)), before.run)
    else:
        assert (after.answer[0], after.there.state) == ("OK", wanted)


def test_the_table_has_every_cell() -> None:
    """The table of changes has an entry for each pair of states."""
    assert len(CHANGES) == len(RunState) ** 2


def test_no_terminal_state_is_ever_left() -> None:
    """The table has no change out of completed, failed or cancelled."""
    assert {CHANGES[state, wanted] for state in TERMINAL for wanted in RunState} == {Change.NONE}


def test_append_at_the_wrong_version_writes_nothing() -> None:
    """The answer is WRONG_VERSION with the version that the run has."""
    refused = given(Append((NOTE,))).when(Append((NOTE,), expected_version=1))
    assert (refused.answer, refused.written) == (("WRONG_VERSION", "2"), [])


@pytest.mark.parametrize("state", TERMINAL)
def test_append_after_the_end_writes_nothing(state: RunState) -> None:
    """The answer is TERMINAL with the state of the run."""
    refused = given(SetState(state)).when(Append((NOTE,)))
    assert (refused.answer, refused.written) == (("TERMINAL", str(state)), [])


def test_a_worker_that_has_the_claim_writes_with_its_attempt() -> None:
    """Its events get the number of the execution."""
    written = given(STARTED).when(Append((NOTE,), claim="claim-1"))
    assert written.written == [{**NOTE, "attempt": "1"}]


@pytest.mark.parametrize(
    "command",
    [
        Append((NOTE,), claim="stale"),
        Finish(RunState.COMPLETED, claim="stale"),
        UpdateProgress(RunProgress(), claim="stale"),
        Release("why", "stale"),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_worker_without_the_claim_is_fenced(command: Command) -> None:
    """A stale claim is answered FENCED, and nothing is written."""
    fenced = given(STARTED).when(command)
    assert (fenced.answer, fenced.written) == (("FENCED",), [])


def test_a_fenced_worker_is_fenced_even_after_the_end() -> None:
    """A wrong claim is answered FENCED before the run's state is looked at."""
    over = given(STARTED, Finish(RunState.COMPLETED, claim="claim-1"))
    assert over.when(Finish(RunState.FAILED, claim="claim-1")).answer == ("FENCED",)


def test_a_start_takes_the_run_with_attempt_worker_and_claim() -> None:
    """A started run is running and has the worker, its claim and attempt 1."""
    run = given(STARTED).there
    assert (run.state, run.attempt, run.worker, run.claim) == (
        RunState.RUNNING,
        1,
        "w1",
        "claim-1",
    )


def test_a_second_start_counts_the_attempt() -> None:
    """After a lost lease, the next execution is attempt 2."""
    again = given(STARTED, Reclaim(), Start("w2", "claim-2"))
    assert (again.there.attempt, again.there.worker) == (2, "w2")


def test_a_run_that_does_not_wait_is_not_started() -> None:
    """A start of a running run is answered NO."""
    assert given(STARTED).when(Start("w2", "claim-2")).answer == ("NO", "running")


def test_a_release_gives_the_claim_back() -> None:
    """A released run is pending again and has no claim."""
    run = given(STARTED, Release("drained", "claim-1")).there
    assert (run.state, run.claim) == (RunState.PENDING, None)


def test_finish_writes_result_then_event_then_sealed_state() -> None:
    """All three entries come from one command, in this order."""
    ended = given().when(Finish(RunState.FAILED, RESULT, NOTE, "why"))
    assert ended.types == ["run.result", "custom", "run.state"]
    assert (ended.written[-1]["error"], ended.written[-1]["seal"]) == ("why", "1")


def test_the_end_seals_at_its_last_entry() -> None:
    """Finish with a closing event seals the run at the last entry."""
    run = given(Finish(RunState.COMPLETED, event=CLOSING)).there
    assert (run.seal, run.version) == (3, 3)


def test_a_bare_end_without_a_closing_event_does_not_seal() -> None:
    """After SetState alone, the closing event may still come."""
    assert given(SetState(RunState.COMPLETED)).there.seal is None


def test_a_bare_end_after_a_closing_event_seals() -> None:
    """If the closing event came first, SetState seals at once."""
    assert given(PushEvent(CLOSING), SetState(RunState.COMPLETED)).there.seal == 3


def test_a_closing_event_in_time_seals() -> None:
    """A closing event within two seconds after the state seals at itself."""
    sealed = given(SetState(RunState.COMPLETED)).when(PushEvent(CLOSING), after_ms=1_999)
    assert sealed.there.seal == sealed.there.version == 3


def test_a_closing_event_too_late_comes_after_the_seal() -> None:
    """After two seconds the run is sealed first, and the event is marked as late."""
    late = given(SetState(RunState.COMPLETED)).when(PushEvent(CLOSING), after_ms=2_000)
    assert late.types == ["run.sealed", "agent_completed"]
    assert (late.there.seal, late.written[-1]["late"]) == (3, "1")


@pytest.mark.parametrize(("after_ms", "wait"), [(0, "2000"), (1, "1999"), (1_999, "1")])
def test_a_seal_before_its_time_waits(after_ms: int, wait: str) -> None:
    """The answer is WAIT with the milliseconds that are left."""
    early = given(SetState(RunState.FAILED)).when(Seal(), after_ms=after_ms)
    assert (early.answer, early.written) == (("WAIT", wait), [])


def test_a_seal_in_its_time_seals() -> None:
    """Two seconds after a bare end, Seal seals the run."""
    assert given(SetState(RunState.FAILED)).when(Seal(), after_ms=2_000).there.seal == 3


def test_a_second_seal_writes_nothing() -> None:
    """Seal of a sealed run is answered OK and adds no entry."""
    again = given(Finish(RunState.FAILED)).when(Seal())
    assert (again.answer, again.written) == (("OK", "2"), [])


def test_a_live_run_is_not_sealed() -> None:
    """Seal of a run that has not ended is answered NO with its state."""
    assert given().when(Seal(), after_ms=10**9).answer == ("NO", "pending")


@pytest.mark.parametrize("end", [SetState(RunState.CANCELLED), Finish(RunState.CANCELLED)])
def test_a_cancellation_writes_its_event_and_seals(end: Command) -> None:
    """The run_cancelled event comes before the sealed state."""
    cancelled = given().when(end)
    assert (cancelled.types, cancelled.there.seal) == (["run_cancelled", "run.state"], 3)


@pytest.mark.parametrize("end", [SetState(RunState.CANCELLED), Finish(RunState.CANCELLED)])
def test_a_cancellation_writes_its_event_only_once(end: Command) -> None:
    """A run_cancelled event that is in the journal is not written again."""
    assert given(PushEvent(CANCELLED)).when(end).types == ["run.state"]


def test_the_event_of_a_cancelling_finish_counts() -> None:
    """A run_cancelled event that Finish brings is not written a second time."""
    ended = given().when(Finish(RunState.CANCELLED, event=CANCELLED))
    assert ended.types == ["run_cancelled", "run.state"]


@pytest.mark.parametrize(("after_ms", "count"), [(0, 0), (999, 0), (1_000, 1), (-1_000, 1)])
def test_progress_is_journalled_at_most_once_a_second(after_ms: int, count: int) -> None:
    """Progress within a second after the last entry of progress adds no entry."""
    assert len(given(progress(1)).when(progress(2), after_ms).written) == count


def test_progress_between_is_in_the_run_and_marked_as_newer() -> None:
    """The run has the newest progress, and a mark that the journal lacks it."""
    run = given(progress(1)).when(progress(2), after_ms=1).there
    assert run.progress is not None
    assert (run.progress.completed, run.progress_dirty) == (2, True)


def test_progress_that_is_newer_is_journalled_before_the_end() -> None:
    """The end first writes progress that the journal lacks."""
    ended = given(progress(1)).when(progress(2), after_ms=1).when(Finish(RunState.COMPLETED))
    assert ended.types == ["run.progress", "run.state"]
    assert not ended.there.progress_dirty


@pytest.mark.parametrize("state", [RunState.COMPLETED, RunState.FAILED])
def test_an_ended_run_takes_one_result(state: RunState) -> None:
    """The first result after the end is stored, the second is answered NO."""
    stored = given(SetState(state)).when(SetResult(RESULT))
    assert (stored.types, stored.when(SetResult(RESULT)).answer) == (
        ["run.result"],
        ("NO", str(state)),
    )


def test_a_cancelled_run_takes_no_result() -> None:
    """SetResult on a cancelled run is answered NO."""
    assert given(SetState(RunState.CANCELLED)).when(SetResult(RESULT)).answer == (
        "NO",
        "cancelled",
    )


def test_a_result_after_the_seal_is_late() -> None:
    """Its entry is marked as late."""
    assert given(Finish(RunState.FAILED)).when(SetResult(RESULT)).written[0]["late"] == "1"


def test_a_live_run_is_deleted_by_force_only() -> None:
    """Without force the answer is NOT_TERMINAL."""
    assert given().when(Delete()).answer == ("NOT_TERMINAL", "pending")
    assert given().when(Delete(force=True)).types == ["run.deleted"]


def test_entries_are_numbered_densely_and_never_go_back_in_time() -> None:
    """A caller's clock that jumps back does not matter."""
    story = given(Append((NOTE, NOTE)), SetState(RunState.RUNNING))
    story = story.when(PushEvent(NOTE), after_ms=-50_000).when(Finish(RunState.COMPLETED))
    assert [entry.seq for entry in story.journal] == [1, 2, 3, 4, 5, 6]
    moments = [entry.ms for entry in story.journal]
    assert moments == sorted(moments)


def test_entries_know_their_run() -> None:
    """Each entry has the id and the epoch of its run."""
    assert {(entry.run_id, entry.epoch) for entry in given(Append((NOTE,))).journal} == {
        (RUN_ID, EPOCH)
    }
