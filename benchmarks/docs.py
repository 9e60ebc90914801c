"""Writes what a run found into docs/performance.md: tables between markers, and plots beside it.

A marker is a line ``<!-- measured: NAME -->``; everything up to the next ``<!-- end -->`` is
replaced. NAME is ``setting``, ``goals``, or the name of a suite.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import tables
from benchmarks.goals import judge
from benchmarks.harness.program import ROOT
from benchmarks.harness.results import Results
from benchmarks.plots import write_plots

PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "plots"
SAVED = PLOTS / "results.json"
"""The results behind the page, for later comparisons."""
_PART = re.compile(r"(<!-- measured: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write_docs(results: Results, page: Path = PAGE, plots: Path = PLOTS) -> None:
    """Rewrite the page's tables, its plots and the saved results."""
    page.write_text(filled(page.read_text(), results))
    write_plots(results, plots)
    (plots / SAVED.name).write_text(results.to_json())


def filled(text: str, results: Results) -> str:
    """The page with the tables of these results; a part that was not measured stays as it is."""
    parts = _parts(results)

    def part(found: re.Match[str]) -> str:
        begin, name, end = found.groups()
        return f"{begin}\n{parts[name]}\n\n{end}" if name in parts else found[0]

    return _PART.sub(part, text)


def _parts(results: Results) -> dict[str, str]:
    verdicts = judge(results)
    setting = tables.setting_text(results).replace("\n", ".\n") + "."
    parts = {"setting": setting, "goals": tables.as_markdown(tables.goal_table(verdicts))}
    rows = tables.row_tables(results)
    return parts | {suite: tables.as_markdown(table) for suite, table in rows.items()}
