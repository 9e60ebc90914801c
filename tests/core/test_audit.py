"""An audit finds what is wrong, and nothing where nothing is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from murmur_streams.core.model.commands import Append, Finish, Payload, PushEvent, UpdateProgress
from murmur_streams.core.model.limits import Limits
from murmur_streams.core.model.run import run_to_fields
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.core.rules.audit import audit_run
from tests.core.scenario import RUN_ID, given

RESULT: Payload = Limits().result('{"kind":"agent"}')
STORY = given(
    Append(({"type": "log"}, {"type": "custom"})),
    Finish(RunState.COMPLETED, RESULT, {"type": "group_completed"}),
    PushEvent({"type": "log"}),
)


def problems(changes: dict[str, str], result: str | None = RESULT.text) -> tuple[str, ...]:
    stored = {**run_to_fields(STORY.there), **changes}
    return audit_run(RUN_ID, stored, STORY.journal, None, result).problems


def test_a_sound_run_has_no_problem() -> None:
    """An audit of a run that agrees with its journal reports nothing."""
    assert problems({}) == ()


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("state", "failed"),
        ("version", "9"),
        ("target", "other"),
        ("attempt", "3"),
        ("error", "x"),
        ("seal", "2"),
        ("closing", "2"),
        ("ended_ms", "5"),
        ("claim", "c"),
        ("metadata_json", "{}"),
    ],
)
def test_a_field_that_the_journal_does_not_explain_is_named(field: str, text: str) -> None:
    """For each field that differs from the fold, the problem begins with its name."""
    assert [problem.split(":")[0] for problem in problems({field: text})] == [field]


def test_an_unreadable_hash_is_a_problem() -> None:
    """A field that cannot be read is reported, not raised."""
    assert problems({"version": "many"})[0].startswith("version: the hash has 'many', ")


def test_a_missing_entry_is_a_problem() -> None:
    """A hole in seq is reported."""
    journal = STORY.journal[:2] + STORY.journal[3:]
    report = audit_run(RUN_ID, run_to_fields(STORY.there), journal, None, RESULT.text)
    assert "seq is not dense" in report.problems[0]


def test_an_entry_from_the_past_is_a_problem() -> None:
    """An entry whose ms goes back is reported."""
    journal = (*STORY.journal[:-1], replace(STORY.journal[-1], ms=1))
    report = audit_run(RUN_ID, run_to_fields(STORY.there), journal, None, RESULT.text)
    assert any("ms goes back" in problem for problem in report.problems)


def test_an_event_after_the_seal_must_be_late() -> None:
    """An event after the seal that is not marked late is reported."""
    journal = (*STORY.journal[:-1], replace(STORY.journal[-1], fields={"type": "log"}))
    report = audit_run(RUN_ID, run_to_fields(STORY.there), journal, None, RESULT.text)
    assert any("not marked late" in problem for problem in report.problems)


@pytest.mark.parametrize("result", [None, "1", '{"kind":"Agent"}'])
def test_a_result_unlike_its_hash_is_a_problem(result: str | None) -> None:
    """A stored result that the journal's size and hash do not match is reported."""
    assert [problem.split(":")[0] for problem in problems({}, result)] == ["result"]


def test_a_missing_journal_is_a_problem() -> None:
    """A run without a journal is reported."""
    report = audit_run(RUN_ID, run_to_fields(given().there), [], None, None)
    assert report.problems == ("the journal is missing, or nothing of it can be folded",)


def test_progress_that_is_newer_than_the_journals_is_a_note() -> None:
    """Progress is journalled at most once a second, so newer progress is not a problem."""
    story = given(UpdateProgress(RunProgress(total=1)))
    story = story.when(UpdateProgress(RunProgress(total=2)), after_ms=1)
    report = audit_run(RUN_ID, run_to_fields(story.there), story.journal, None, None)
    assert (report.ok, len(report.notes)) == (True, 1)
