"""What an agent of the demo is asked and answers, and the sum of all answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, Field

from murmur_streams.cli.demo.analysis import FileReport, Finding, Kind

KEPT = 10


class Sources(BaseModel):
    """The input: which files to read."""

    root: Path
    files: list[str]


class Report(BaseModel):
    """The output: what the files of one run say together."""

    files: int = 0
    lines: int = 0
    functions: int = 0
    counts: dict[Kind, int] = Field(default_factory=dict[Kind, int])
    """How many findings of each kind there were."""
    top: dict[Kind, list[Finding]] = Field(default_factory=dict[Kind, list[Finding]])
    """The first of each kind, the greatest first."""
    imports: dict[str, int] = Field(default_factory=dict[str, int])
    """Module -> how many files import it."""


def add_up(files: Iterable[FileReport]) -> Report:
    """The report of one run, from its files."""
    report = Report()
    imports: Counter[str] = Counter()
    found: list[Finding] = []
    for file in files:
        report.files += 1
        report.lines += file.lines
        report.functions += file.functions
        imports.update(file.imports)
        found.extend(file.findings)
    report.imports = dict(imports.most_common())
    report.counts = dict(Counter(finding.kind for finding in found))
    report.top = _top(found)
    return report


def merge(reports: Iterable[Report]) -> Report:
    """The report of all runs, from theirs."""
    merged = Report()
    imports: Counter[str] = Counter()
    counts: Counter[Kind] = Counter()
    found: list[Finding] = []
    for report in reports:
        merged.files += report.files
        merged.lines += report.lines
        merged.functions += report.functions
        imports.update(report.imports)
        counts.update(report.counts)
        found.extend(finding for findings in report.top.values() for finding in findings)
    merged.imports = dict(imports.most_common())
    merged.counts = dict(counts)
    merged.top = _top(found)
    return merged


def _top(found: list[Finding]) -> dict[Kind, list[Finding]]:
    ranked = sorted(found, key=lambda finding: (-finding.size, finding.file, finding.line))
    return {
        kind: kept
        for kind in Kind
        if (kept := [finding for finding in ranked if finding.kind is kind][:KEPT])
    }
