"""``given(*commands).when(command).then(...)``: the pure core in the form of a story."""

from __future__ import annotations

from dataclasses import dataclass, replace

from murmur_streams.core.model.commands import Command, Create
from murmur_streams.core.model.entries import Fields, JournalEntry
from murmur_streams.core.model.run import Run
from murmur_streams.core.rules.decide import Decision, Now, decide
from murmur_streams.core.rules.evolve import evolve

RUN_ID, TARGET, EPOCH = "run", "researcher", "0badcafe"
START_MS = 1_000_000
LATE_EVENT_MS = 2_000
CREATED = Create(TARGET, EPOCH)


@dataclass(frozen=True)
class Scenario:
    """All that happened so far, one second after another, and the last decision."""

    run: Run | None
    journal: tuple[JournalEntry, ...]
    now_ms: int
    decision: Decision

    def when(self, command: Command, after_ms: int = 1_000) -> Scenario:
        """Decide a command and fold what it says."""
        now_ms = self.now_ms + after_ms
        decision = decide(self.run, RUN_ID, command, Now(now_ms, now_ms, LATE_EVENT_MS))
        run = self.run
        if decision.progress is not None and run is not None:
            run = replace(run, progress=decision.progress, progress_dirty=True)
        for entry in decision.entries:
            run = evolve(run, entry)
        return Scenario(run, self.journal + decision.entries, now_ms, decision)

    @property
    def there(self) -> Run:
        """The run, which is there."""
        assert self.run is not None
        return self.run

    @property
    def answer(self) -> tuple[str, ...]:
        return self.decision.answer

    @property
    def written(self) -> list[Fields]:
        """The fields of the last command's entries."""
        return [entry.fields for entry in self.decision.entries]

    @property
    def types(self) -> list[str]:
        """The types of the last command's entries."""
        return [entry.type for entry in self.decision.entries]


NOTHING = Scenario(None, (), START_MS, Decision(()))


def given(*commands: Command) -> Scenario:
    """A run to which this happened."""
    scenario = NOTHING.when(CREATED)
    for command in commands:
        scenario = scenario.when(command)
    return scenario
