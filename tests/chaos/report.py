"""What a chaos run did and found: as text, as a table, and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from murmur_streams.testing.checker import Violation
from murmur_streams.testing.faults import FaultReport


@dataclass(slots=True)
class Report:
    """What a chaos run did and found."""

    topology: str
    seed: int
    began: float = 0.0
    """In Unix time, as the servers' logs have it."""
    seconds: float = 0.0
    faults: FaultReport = field(default_factory=FaultReport)
    outcomes: Counter[str] = field(default_factory=Counter[str])
    """How the programs' calls ended."""
    ends: Counter[str] = field(default_factory=Counter[str])
    """How the runs of the workers ended."""
    runs: int = 0
    entries: int = 0
    readers: int = 0
    feed_entries: int = 0
    attempts: int = 0
    """How many executions the workers began."""
    violations: list[Violation] = field(default_factory=list[Violation])
    calls: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """The calls on each run with a violation, with their times in seconds after the start."""

    def lines(self) -> list[str]:
        """For a person."""
        kinds = self.faults.happened
        faults = f"{self.faults.total} faults of {len(kinds)} kinds in {self.seconds:.0f} s"
        of_workers = f"{sum(self.ends.values())} of workers with {self.attempts} executions"
        read = f"{self.readers} readers, {self.feed_entries} entries of feeds"
        return [
            f"{self.topology}, seed {self.seed}: {faults}",
            f"  {self.runs} runs of programs, {of_workers}",
            f"  {self.entries} entries, {read}",
            f"  calls: {_counted(self.outcomes)}; runs of workers: {_counted(self.ends)}",
            *(f"  {count:4} {name}" for name, count in sorted(kinds.items())),
            *(
                f"  {count:4} not possible: {name} ({self.faults.reasons[name][:100]})"
                for name, count in sorted(self.faults.failed.items())
            ),
            *(f"  VIOLATION {each.run_id}: {each.rule}: {each.text}" for each in self.violations),
            f"  {len(self.violations)} violations",
        ]

    def table(self) -> list[str]:
        """The same in Markdown: one row for each kind of fault."""
        result = f"{len(self.violations)} violations" if self.violations else "no violation"
        return [
            f"## {self.topology}, seed {self.seed}",
            "",
            f"{self.faults.total} faults in {self.seconds:.0f} s: {result}.",
            "",
            "| fault | how often |",
            "| --- | --- |",
            *(f"| {name} | {count} |" for name, count in sorted(self.faults.happened.items())),
            "",
        ]

    def as_json(self) -> dict[str, Any]:
        """Everything."""
        return {
            "topology": self.topology,
            "seed": self.seed,
            "began": self.began,
            "seconds": round(self.seconds, 1),
            "faults": dict(sorted(self.faults.happened.items())),
            "not_possible": dict(sorted(self.faults.failed.items())),
            "calls": dict(self.outcomes),
            "ends": dict(self.ends),
            "runs": self.runs,
            "attempts": self.attempts,
            "entries": self.entries,
            "readers": self.readers,
            "feed_entries": self.feed_entries,
            "log": [[round(at, 2), name] for at, name in self.faults.log],
            "calls_of_violations": self.calls,
            "violations": [[each.run_id, each.rule, each.text] for each in self.violations],
        }


def write(reports: list[Report], path: Path) -> None:
    """Write the reports to a file: Markdown if its name ends with .md, else JSON."""
    if path.suffix == ".md":
        text = "\n".join(line for report in reports for line in report.table())
    else:
        text = json.dumps([report.as_json() for report in reports], indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items()))
