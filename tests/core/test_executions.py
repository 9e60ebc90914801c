"""The rules of a run in the hands of workers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from murmur_streams.core.model.commands import (
    Append,
    Checkpoint,
    Command,
    DeliverCancel,
    Finish,
    NoteSilence,
    Payload,
    Reclaim,
    Release,
    RequestCancel,
    SetState,
    Start,
)
from murmur_streams.core.model.run import run_from_fields, run_to_fields
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.evolve import ERRORS_BYTES, fold
from murmur_streams.core.rules.executions import DEADLINE_TEXT
from tests.core.scenario import CREATED, NOTHING, RUN_ID, given

QUEUED = replace(CREATED, queued=True)
STARTED = Start("w1", "c1", "host")
NOTE = {"type": "custom"}
VALUE = Payload("1", 1, "sha")
LIVES: dict[str, list[Command]] = {
    "handed back": [STARTED, Release("failed", "c1", 500, "it\nbroke"), Start("w2", "c2")],
    "excused": [STARTED, Release("worker_stopped", "c1"), Start("w2", "c2")],
    "reclaimed": [STARTED, Reclaim()],
    "failed": [STARTED, Finish(RunState.FAILED, error="e", claim="c1", dead="why")],
    "asked to end": [STARTED, RequestCancel("why"), DeliverCancel("c1")],
    "cancelled while it waits": [RequestCancel()],
    "silent": [STARTED, NoteSilence("c1", 500)],
    "with a checkpoint": [STARTED, Checkpoint(VALUE, "c1")],
    "exhausted": [STARTED, Reclaim(), Start("w2", "c2", max_attempts=1)],
}


@pytest.mark.parametrize("life", LIVES)
def test_the_fold_and_the_fields_are_the_run(life: str) -> None:
    """The run is the fold of its journal, and its text fields read back as the same run."""
    story = given(*LIVES[life])
    assert fold(story.journal) == story.run
    assert run_from_fields(RUN_ID, run_to_fields(story.there)) == story.run


@pytest.mark.parametrize("tenant", ["acme", None])
def test_the_tenant_stays_with_the_run(tenant: str | None) -> None:
    """A tenant is in the first entry and in the run; without one the field is missing."""
    story = NOTHING.when(replace(CREATED, tenant=tenant))
    assert story.there.tenant == tenant
    fields = {} if tenant is None else {"tenant": tenant}
    assert story.written == [{**NOTHING.when(CREATED).written[0], **fields}]
    assert story.when(STARTED).when(Reclaim()).there.tenant == tenant
    assert set(run_to_fields(story.there)) - set(run_to_fields(NOTHING.when(CREATED).there)) == (
        set(fields)
    )


def test_the_options_of_a_submission_stay_with_the_run() -> None:
    """Priority, due time, deadline and trace are in the run."""
    order = replace(QUEUED, priority=-3, delay_ms=500, deadline_ms=2_000, traceparent="tp")
    run = NOTHING.when(order).there
    assert (run.queued, run.priority, dict(run.trace)) == (True, -3, {"traceparent": "tp"})
    assert run.due_ms == run.created_ms + 500
    assert run.deadline_ms == run.created_ms + 2_500


def test_the_first_entry_has_only_the_given_options() -> None:
    """Options that were not given leave no fields."""
    assert NOTHING.when(CREATED).written[0].keys() == {"type", "target", "epoch"}
    assert NOTHING.when(QUEUED).written[0]["queued"] == "1"


def test_a_start_after_the_deadline_fails_the_run() -> None:
    """Before the deadline the same start begins an execution."""
    waiting = NOTHING.when(replace(QUEUED, deadline_ms=1_000))
    assert waiting.when(STARTED, after_ms=999).there.state is RunState.RUNNING
    late = waiting.when(STARTED, after_ms=1_000)
    assert (late.there.state, late.there.error) == (RunState.FAILED, DEADLINE_TEXT)
    assert late.decision.dead == "deadline_exceeded"


@pytest.mark.parametrize(
    ("ends", "may_start"),
    [
        ([Reclaim()], False),
        ([Release("failed", "c1")], False),
        ([Release("worker_stopped", "c1")], True),
        ([Release("retry_later", "c1")], True),
        ([Release("retry_later", "c1"), STARTED, Reclaim()], False),
    ],
)
def test_only_excused_executions_do_not_count(ends: list[Command], may_start: bool) -> None:
    """With max_attempts 1, only an excused execution allows a second start."""
    last = given(STARTED, *ends).when(Start("w2", "c2", max_attempts=1))
    assert (last.there.state is RunState.RUNNING) == may_start
    assert last.decision.dead == (None if may_start else "attempts_exhausted")


def test_failures_and_their_texts_are_counted() -> None:
    """The run has the number of failures and one line of text for each."""
    tries = [STARTED, Release("failed", "c1", error="a\nb")] * 2
    run = given(*tries, STARTED, Finish(RunState.FAILED, error="c", claim="c1")).there
    assert (run.failures, run.excused, run.errors) == (3, 0, "1 a b\n2 a b\n3 c")


def test_only_failures_leave_their_texts() -> None:
    """An execution that was excused or lost leaves no error text."""
    asked = given(STARTED, Release("retry_later", "c1", 500, "the bank is closed"))
    assert (asked.written[0]["error"], asked.there.errors) == ("the bank is closed", None)
    failed = asked.when(STARTED).when(Release("failed", "c1", error="it broke"))
    assert failed.there.errors == "2 it broke"


def test_a_due_time_in_the_past_is_ignored() -> None:
    """Such a run is due at once, and its deadline counts from now."""
    now_ms = NOTHING.now_ms + 1_000
    assert NOTHING.when(replace(QUEUED, due_ms=now_ms)).there.due_ms is None
    past = NOTHING.when(replace(QUEUED, due_ms=1, deadline_ms=2_000)).there
    assert (past.due_ms, past.deadline_ms) == (None, now_ms + 2_000)
    assert NOTHING.when(replace(QUEUED, due_ms=now_ms + 1)).there.due_ms == now_ms + 1


def test_the_reason_of_a_given_up_run_is_a_sentence() -> None:
    """The error says how many attempts there were and how they ended."""
    again = given(STARTED, Reclaim()).when(Start("w2", "c2", max_attempts=1)).there
    assert again.error == "given up after 1 attempt: its lease ran out"


@pytest.mark.parametrize(
    ("ends", "error"),
    [
        ([Reclaim(), Reclaim()], "given up after 2 attempts: the lease of each ran out"),
        (
            [Reclaim(), Release("failed", "c1", error="it broke"), Release("retry_later", "c1")],
            "given up after 3 attempts: the lease of 1 ran out",
        ),
        ([Release("failed", "c1"), Release("failed", "c1")], "given up after 2 attempts"),
    ],
)
def test_the_error_counts_executions_that_lost_their_lease(
    ends: list[Reclaim | Release], error: str
) -> None:
    """Executions that neither failed nor were excused lost their lease."""
    executions = [command for end in ends for command in (STARTED, end)]
    assert given(*executions).when(Start("w2", "c2", max_attempts=2)).there.error == error


def test_texts_of_failures_are_recorded_up_to_a_limit() -> None:
    """Further texts are left out once the recorded ones are long."""
    tries = [STARTED, Release("failed", "c1", error="x" * (ERRORS_BYTES // 2))] * 4
    run = given(*tries).there
    assert (run.failures, len((run.errors or "").splitlines())) == (4, 2)


def test_a_run_keeps_its_due_time_until_it_gets_another() -> None:
    """A start and a lost lease do not change the due time of a delayed run."""
    delayed = given(STARTED, Release("failed", "c1", 500))
    due_ms = delayed.now_ms + 500
    assert delayed.there.due_ms == due_ms
    assert delayed.when(STARTED).when(Reclaim()).there.due_ms == due_ms


def test_only_a_claimed_run_can_be_reclaimed() -> None:
    """A run that a program set running has no claim: Reclaim is answered NO."""
    assert given(SetState(RunState.RUNNING)).when(Reclaim()).answer == ("NO", "running")


def test_a_request_for_a_waiting_run_ends_it() -> None:
    """A cancel of a pending run writes the request, the closing event and the end."""
    asked = given().when(RequestCancel("why"))
    assert asked.answer == ("OK", "cancelled")
    assert asked.types == ["run.cancel_requested", "run_cancelled", "run.state"]
    assert asked.written[-1]["stopped"] == "pending"
    assert asked.when(RequestCancel()).answer == ("NO", "cancelled")


def test_a_cancel_request_of_a_running_run_is_recorded_once() -> None:
    """A second request writes nothing."""
    asked = given(STARTED).when(RequestCancel("why", "desk"))
    assert (asked.answer, asked.types) == (("OK", "running"), ["run.cancel_requested"])
    assert (asked.written[0]["host"], asked.written[0]["attempt"]) == ("desk", "1")
    again = asked.when(RequestCancel("other"))
    assert (again.answer, again.written) == (("OK", "running"), [])


@pytest.mark.parametrize(
    ("command", "stopped"),
    [
        (Finish(RunState.COMPLETED, VALUE, NOTE, claim="c1"), "handler"),
        (Finish(RunState.FAILED, error="e", claim="c1", dead="why"), "handler"),
        (Finish(RunState.CANCELLED, claim="c1", stopped="grace"), "grace"),
        (Release("failed", "c1", 500, "e"), "handler"),
        (Release("worker_stopped", "c1"), "handler"),
        (Reclaim(), "worker_lost"),
        (SetState(RunState.PENDING), "pending"),
    ],
)
def test_a_recorded_cancel_cannot_be_overtaken(command: Command, stopped: str) -> None:
    """However the execution ends after the request, the run ends cancelled."""
    over = given(STARTED, RequestCancel()).when(command)
    run = over.there
    assert (run.state, run.error, run.errors, run.result_size, run.failures) == (
        RunState.CANCELLED,
        None,
        None,
        None,
        0,
    )
    assert over.types == ["run_cancelled", "run.state"]
    assert (over.written[-1]["stopped"], over.decision.dead) == (stopped, None)


def test_a_finish_without_a_claim_is_as_asked() -> None:
    """A program without a worker may end its run as completed after a cancel request."""
    over = given(SetState(RunState.RUNNING), RequestCancel()).when(Finish(RunState.COMPLETED))
    assert over.there.state is RunState.COMPLETED


def test_the_end_by_a_worker_names_its_execution() -> None:
    """The last entry has the attempt, the worker and the host."""
    last = given(STARTED).when(Finish(RunState.COMPLETED, claim="c1")).written[-1]
    assert (last["attempt"], last["worker"], last["host"]) == ("1", "w1", "host")


def test_a_delivered_cancel_is_recorded_once() -> None:
    """Without a request there is nothing to record."""
    assert given(STARTED).when(DeliverCancel("c1")).answer == ("NO", "running")
    delivered = given(STARTED, RequestCancel()).when(DeliverCancel("c1"))
    assert delivered.types == ["run.cancel_delivered"]
    assert delivered.when(DeliverCancel("c1")).written == []


@pytest.mark.parametrize(
    "command", [DeliverCancel("stale"), Checkpoint(VALUE, "stale"), NoteSilence("stale", 0)]
)
def test_a_worker_without_the_claim_is_fenced(command: Command) -> None:
    """So are cancels delivered, checkpoints and notes of silence with a stale claim."""
    assert given(STARTED).when(command).answer == ("FENCED",)


def test_a_silence_is_recorded_once() -> None:
    """Another silence begins only after the execution has written."""
    silence = NoteSilence("c1", 5_000)
    running = given(STARTED)
    assert running.when(silence, after_ms=5_000).answer == ("NO", "running")
    silent = running.when(silence, after_ms=5_001)
    assert (silent.types, silent.written[0]["seconds"]) == (["run.silent"], "5")
    assert silent.when(silence, after_ms=60_000).written == []
    spoken = silent.when(Append((NOTE,), claim="c1"))
    assert spoken.when(silence, after_ms=6_000).types == ["run.silent"]
