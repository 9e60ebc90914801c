"""The fleet: one agent, which reads source files and reports what it finds in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel

from code_review.analysis import FileReport, Finding, FindingKind, analyse, unparsable
from murmur_streams import Fleet, RunContext

KEY_PREFIX = "murmur:demo"
HOUR_SECONDS = 3600
TOP = 10

# The runs of a demo are of no use after an hour, also those of a demo that was interrupted.
fleet = Fleet(key_prefix=KEY_PREFIX, ttl_seconds=HOUR_SECONDS, live_ttl_seconds=HOUR_SECONDS)


class Sources(BaseModel):
    """The input: the files to read."""

    root: Path
    files: list[str]


class Report(BaseModel):
    """The output: the sums over the files of a run, or of all runs."""

    files: int = 0
    lines: int = 0
    functions: int = 0
    counts: Counter[FindingKind] = Counter()
    top: dict[FindingKind, list[Finding]] = {}
    """The first findings of each kind, the largest first."""
    imports: Counter[str] = Counter()
    """How many files import each module."""


@fleet.agent
def reviewer(sources: Sources, run: RunContext) -> Report:
    """Read each file, emit each finding as an event, and return the report of all files."""
    reports: list[Report] = []
    for file in sources.files:
        found = read(sources.root, file)
        for finding in found.findings:
            run.emit("finding", finding.model_dump(mode="json"))
        reports.append(report_of(found))
        run.progress(total=len(sources.files), completed=len(reports))
    return merge(reports)


def read(root: Path, file: str) -> FileReport:
    """Analyse one file; a file that cannot be opened is a finding."""
    try:
        source = (root / file).read_bytes()
    except OSError as error:
        return unparsable(file, f"cannot be read: {error.strerror}")
    return analyse(source, file)


def report_of(file: FileReport) -> Report:
    """The report of one file."""
    return Report(
        files=1,
        lines=file.lines,
        functions=file.functions,
        counts=Counter(finding.kind for finding in file.findings),
        top={
            kind: [finding for finding in file.findings if finding.kind is kind]
            for kind in FindingKind
        },
        imports=Counter(file.imports),
    )


def merge(reports: Iterable[Report]) -> Report:
    """The sum of several reports."""
    total = Report()
    for report in reports:
        total.files += report.files
        total.lines += report.lines
        total.functions += report.functions
        total.counts += report.counts
        total.imports += report.imports
        for kind, findings in report.top.items():
            ranked = [*total.top.get(kind, []), *findings]
            ranked.sort(key=lambda finding: (-finding.size, finding.file, finding.line))
            total.top[kind] = ranked[:TOP]
    return total
