"""The fleet of the demo: one agent, which reads source files and tells what it finds."""

from __future__ import annotations

from pathlib import Path

from murmur_streams.cli.demo.analysis import FileReport, analyse, unparsable
from murmur_streams.cli.demo.reports import Report, Sources, add_up
from murmur_streams.fleet import Fleet, RunContext

KEY_PREFIX = "murmur:demo"
TTL_SECONDS = 3600

# Nobody misses a demo that was cut off: an hour is enough for its runs, ended or not.
fleet = Fleet(key_prefix=KEY_PREFIX, ttl_seconds=TTL_SECONDS, live_ttl_seconds=TTL_SECONDS)


@fleet.agent
def reviewer(sources: Sources, run: RunContext) -> Report:
    """Read each file, emit what is found in it, and return the report of all."""
    reports: list[FileReport] = []
    for file in sources.files:
        report = read(sources.root, file)
        reports.append(report)
        for finding in report.findings:
            run.emit("finding", finding.model_dump(mode="json"))
        run.progress(total=len(sources.files), completed=len(reports))
    return add_up(reports)


def read(root: Path, file: str) -> FileReport:
    """Analyse one file; one that cannot be opened is a finding."""
    try:
        source = (root / file).read_bytes()
    except OSError as error:
        return unparsable(file, f"cannot be read: {error.strerror}")
    return analyse(source, file)
