"""The ranked result of the demo, for people."""

from __future__ import annotations

from rich.text import Text

from murmur_streams.cli.demo.analysis import Finding, Kind
from murmur_streams.cli.demo.reports import Report
from murmur_streams.cli.demo.screen import Screen, counted
from murmur_streams.cli.shell.printing import printable

SHOWN = 5
MODULES_SHOWN = 10
_HEADS = {
    Kind.LONG_FUNCTION: ("longest functions", "lines"),
    Kind.DEEP_NESTING: ("deepest nesting", "levels"),
    Kind.UNUSED_IMPORT: ("possibly unused imports", ""),
    Kind.UNPARSABLE: ("unparsable files", ""),
}


def print_ranking(screen: Screen, report: Report) -> None:
    """The first few of each kind."""
    screen.title(
        f"Found in {counted(report.files, 'file')}, {counted(report.lines, 'line')}, "
        f"{counted(report.functions, 'function')}"
    )
    for kind, (head, unit) in _HEADS.items():
        count = report.counts.get(kind, 0)
        found = report.top.get(kind, [])[:SHOWN]
        more = f", the first {len(found)}" if count > len(found) else ""
        screen.line(Text(f"{head}: {count}{more}", style="cyan"))
        for finding in found:
            screen.line("  ", _finding_line(finding, unit))
    modules = list(report.imports.items())[:MODULES_SHOWN]
    screen.line(Text("most imported modules", style="cyan"))
    if modules:
        screen.line("  ", ", ".join(f"{name} {count}" for name, count in modules))


def _finding_line(finding: Finding, unit: str) -> Text:
    size = f"{finding.size:>5} {unit}  " if unit else ""
    line = Text(size).append(printable(finding.place), style="bold")
    return line.append(f"  {printable(finding.subject)}")
