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
from murmur_streams.core.rules.failure_texts import DEADLINE_TEXT
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
def test_the_fold_of_the_journal_is_the_run_and_its_fields_are_it_too(life: str) -> None:
    story = given(*LIVES[life])
    assert fold(story.journal) == story.run
    assert run_from_fields(RUN_ID, run_to_fields(story.there)) == story.run


@pytest.mark.parametrize("tenant", ["acme", None])
def test_the_tenant_is_told_when_there_is_one_and_kept_with_the_run(tenant: str | None) -> None:
    story = NOTHING.when(replace(CREATED, tenant=tenant))
    assert story.there.tenant == tenant
    told = {} if tenant is None else {"tenant": tenant}
    assert story.written == [{**NOTHING.when(CREATED).written[0], **told}]
    assert story.when(STARTED).when(Reclaim()).there.tenant == tenant
    assert set(run_to_fields(story.there)) - set(run_to_fields(NOTHING.when(CREATED).there)) == (
        set(told)
    )


def test_what_is_submitted_is_kept_with_the_run() -> None:
    order = replace(QUEUED, priority=-3, delay_ms=500, deadline_ms=2_000, traceparent="tp")
    run = NOTHING.when(order).there
    assert (run.queued, run.priority, dict(run.trace)) == (True, -3, {"traceparent": "tp"})
    assert run.due_ms == run.created_ms + 500
    assert run.deadline_ms == run.created_ms + 2_500


def test_of_what_is_created_no_more_is_told_than_was_given() -> None:
    assert NOTHING.when(CREATED).written[0].keys() == {"type", "target", "epoch"}
    assert NOTHING.when(QUEUED).written[0]["queued"] == "1"


def test_a_run_is_started_before_its_deadline_and_failed_after_it() -> None:
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
    last = given(STARTED, *ends).when(Start("w2", "c2", max_attempts=1))
    assert (last.there.state is RunState.RUNNING) == may_start
    assert last.decision.dead == (None if may_start else "attempts_exhausted")


def test_failures_and_their_texts_are_counted() -> None:
    tries = [STARTED, Release("failed", "c1", error="a\nb")] * 2
    run = given(*tries, STARTED, Finish(RunState.FAILED, error="c", claim="c1")).there
    assert (run.failures, run.excused, run.errors) == (3, 0, "1 a b\n2 a b\n3 c")


def test_texts_of_what_is_no_failure_are_not_kept() -> None:
    asked = given(STARTED, Release("retry_later", "c1", 500, "the bank is closed"))
    assert (asked.written[0]["error"], asked.there.errors) == ("the bank is closed", None)
    failed = asked.when(STARTED).when(Release("failed", "c1", error="it broke"))
    assert failed.there.errors == "2 it broke"


def test_a_moment_that_is_over_is_no_due_time() -> None:
    now_ms = NOTHING.now_ms + 1_000
    assert NOTHING.when(replace(QUEUED, due_ms=now_ms)).there.due_ms is None
    past = NOTHING.when(replace(QUEUED, due_ms=1, deadline_ms=2_000)).there
    assert (past.due_ms, past.deadline_ms) == (None, now_ms + 2_000)
    assert NOTHING.when(replace(QUEUED, due_ms=now_ms + 1)).there.due_ms == now_ms + 1


def test_why_nobody_starts_a_run_again_is_a_sentence() -> None:
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
def test_it_says_how_many_executions_ended_without_a_word(
    ends: list[Reclaim | Release], error: str
) -> None:
    executions = [command for end in ends for command in (STARTED, end)]
    assert given(*executions).when(Start("w2", "c2", max_attempts=2)).there.error == error


def test_texts_of_failures_are_kept_while_they_are_short() -> None:
    tries = [STARTED, Release("failed", "c1", error="x" * (ERRORS_BYTES // 2))] * 4
    run = given(*tries).there
    assert (run.failures, len((run.errors or "").splitlines())) == (4, 2)


def test_a_run_keeps_its_due_time_until_it_gets_another() -> None:
    delayed = given(STARTED, Release("failed", "c1", 500))
    due_ms = delayed.now_ms + 500
    assert delayed.there.due_ms == due_ms
    assert delayed.when(STARTED).when(Reclaim()).there.due_ms == due_ms


def test_only_a_claimed_run_can_be_reclaimed() -> None:
    assert given(SetState(RunState.RUNNING)).when(Reclaim()).answer == ("NO", "running")


def test_a_request_for_a_waiting_run_ends_it() -> None:
    asked = given().when(RequestCancel("why"))
    assert asked.answer == ("OK", "cancelled")
    assert asked.types == ["run.cancel_requested", "run_cancelled", "run.state"]
    assert asked.written[-1]["stopped"] == "pending"
    assert asked.when(RequestCancel()).answer == ("NO", "cancelled")


def test_a_request_for_a_run_that_runs_is_kept_once() -> None:
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
def test_who_was_told_that_it_runs_is_sure_that_it_ends_cancelled(
    command: Command, stopped: str
) -> None:
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
    over = given(SetState(RunState.RUNNING), RequestCancel()).when(Finish(RunState.COMPLETED))
    assert over.there.state is RunState.COMPLETED


def test_the_end_by_a_worker_tells_of_its_execution() -> None:
    last = given(STARTED).when(Finish(RunState.COMPLETED, claim="c1")).written[-1]
    assert (last["attempt"], last["worker"], last["host"]) == ("1", "w1", "host")


def test_a_delivery_is_kept_once_and_only_when_it_was_asked_for() -> None:
    assert given(STARTED).when(DeliverCancel("c1")).answer == ("NO", "running")
    told = given(STARTED, RequestCancel()).when(DeliverCancel("c1"))
    assert told.types == ["run.cancel_delivered"]
    assert told.when(DeliverCancel("c1")).written == []


@pytest.mark.parametrize(
    "command", [DeliverCancel("stale"), Checkpoint(VALUE, "stale"), NoteSilence("stale", 0)]
)
def test_a_worker_without_the_claim_is_fenced(command: Command) -> None:
    assert given(STARTED).when(command).answer == ("FENCED",)


def test_a_silence_is_told_once_until_something_is_written() -> None:
    silence = NoteSilence("c1", 5_000)
    running = given(STARTED)
    assert running.when(silence, after_ms=5_000).answer == ("NO", "running")
    silent = running.when(silence, after_ms=5_001)
    assert (silent.types, silent.written[0]["seconds"]) == (["run.silent"], "5")
    assert silent.when(silence, after_ms=60_000).written == []
    spoken = silent.when(Append((NOTE,), claim="c1"))
    assert spoken.when(silence, after_ms=6_000).types == ["run.silent"]
