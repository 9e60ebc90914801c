"""The fold of a journal is the run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from murmur_streams.core.model.commands import (
    Append,
    Command,
    Finish,
    Payload,
    PushEvent,
    Release,
    SetResult,
    SetState,
    Start,
    UpdateProgress,
)
from murmur_streams.core.model.run import run_from_fields, run_to_fields
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.core.rules.evolve import evolve, fold
from tests.core.scenario import RUN_ID, TARGET, given

LIVES: dict[str, list[Command]] = {
    "new": [],
    "claimed": [Start("w", "c")],
    "released": [Start("w", "c"), Release("why", "c")],
    "failed": [Start("w", "c"), Finish(RunState.FAILED, Payload("1", 1, "x"), error="e")],
    "cancelled": [SetState(RunState.CANCELLED)],
    "closed": [PushEvent({"type": "group_completed"}), SetState(RunState.COMPLETED)],
    "progress": [UpdateProgress(RunProgress(total=3, failed=1))],
    "late": [
        Finish(RunState.COMPLETED),
        PushEvent({"type": "agent_completed", "agent": TARGET}),
        SetResult(Payload("1", 1, "x")),
    ],
    "appended": [Append(({"type": "log"}, {"type": "run_cancelled"}))],
}


@pytest.mark.parametrize("life", LIVES)
def test_the_fold_of_the_journal_is_the_run(life: str) -> None:
    """For each sample life, folding its journal gives the run that decide had."""
    story = given(*LIVES[life])
    assert fold(story.journal) == story.run


@pytest.mark.parametrize("life", LIVES)
def test_a_run_comes_back_from_its_fields(life: str) -> None:
    """Writing a run as text fields and reading them gives an equal run."""
    run = given(*LIVES[life]).there
    assert run_from_fields(RUN_ID, run_to_fields(run)) == run


def test_fields_of_newer_versions_are_left_alone() -> None:
    """A field with an unknown name is ignored."""
    fields = {**run_to_fields(given().there), "colour": "blue"}
    assert run_from_fields(RUN_ID, fields) == given().there


def test_an_empty_journal_folds_to_nothing() -> None:
    """The fold of no entries is None."""
    assert fold([]) is None


def test_a_journal_without_a_beginning_has_no_fold() -> None:
    """A fold begins at run.created or at a snapshot."""
    assert fold(given(SetState(RunState.RUNNING)).journal[1:]) is None


def test_no_run_begins_with_a_change_of_state() -> None:
    """A fold that begins with another entry than run.created or run.snapshot raises."""
    with pytest.raises(ValueError, match=r"run\.created or run\.snapshot, not run\.state"):
        evolve(None, given(SetState(RunState.RUNNING)).journal[1])


def test_a_late_closing_event_changes_no_more_than_the_version() -> None:
    """After the seal, a closing event moves only the version and the time."""
    story = given(Finish(RunState.COMPLETED))
    later = story.when(PushEvent({"type": "agent_completed", "agent": TARGET}))
    assert replace(later.there, version=2, last_ms=story.there.last_ms) == story.run


def test_an_unknown_entry_changes_only_the_version() -> None:
    """Entries of newer versions are counted and otherwise ignored."""
    story = given()
    entry = replace(story.journal[0], seq=2, fields={"type": "run.signal"})
    assert evolve(story.run, entry) == replace(story.there, version=2)
