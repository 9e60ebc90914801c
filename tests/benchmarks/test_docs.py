"""The page and its plots are made from results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import docs
from benchmarks.docs import PAGE, filled, write_docs
from benchmarks.harness.results import Reading, Results
from benchmarks.harness.session import FLOOR, OURS, PEER, TASKIQ
from benchmarks.plots import PLOTS, write_plots
from benchmarks.suites.all_suites import SUITES

TEXT = """# Page

<!-- measured: redis -->
old
<!-- end -->

<!-- measured: http -->
kept
<!-- end -->
"""


@pytest.fixture
def results() -> Results:
    """A few rows of every plot."""
    found = Results({"Python": "3.11"}, {"cores": "2"})
    for number in (1.0, 2.0, 3.0):
        cost: dict[str, Any] = {"client_us": number, "server_us": number}
        for subject in (OURS, PEER, FLOOR):
            found.record("redis", subject, Reading("append", 1_000 * number, **cost))
            samples = [number, 2 * number]
            delivery = Reading("delivery_p50", number, samples=samples)
            found.record("delivery", subject, delivery)
        for subject in (OURS, TASKIQ):
            found.record("jobs", subject, Reading("noops", 500 * number))
        for at in (10.0, 100.0):
            found.record("growth", OURS, Reading("growth_create", number, at, **cost))
            found.record("live", OURS, Reading("fan_out_cost", number, at, **cost))
    return found


def test_a_table_replaces_what_stands_between_markers(results: Results) -> None:
    """A suite that was not measured stays as it is; twice is the same as once."""
    page = filled(TEXT, results)
    assert "old" not in page
    assert "append, in turn" in page
    assert "kept" in page
    assert filled(page, results) == page


def test_plots_are_the_same_for_the_same_results(results: Results, tmp_path: Path) -> None:
    """Every plot is an SVG file without a date, below 100 KB."""
    first = write_plots(results, tmp_path / "first")
    second = write_plots(results, tmp_path / "second")
    assert [path.stem for path in first] == list(PLOTS)
    for one, other in zip(first, second, strict=True):
        text = one.read_text()
        assert text == other.read_text()
        assert text.startswith("<?xml")
        assert text.endswith("</svg>\n")
        assert len(text) < 100_000


def test_plots_without_rows_are_left_out(tmp_path: Path) -> None:
    """Results of one suite write only its plots."""
    assert write_plots(Results({}, {}), tmp_path) == []


def test_the_page_is_written_with_its_results(results: Results, tmp_path: Path) -> None:
    """Page, plots and the saved results, which can be read again."""
    page = tmp_path / "page.md"
    page.write_text(TEXT)
    write_docs(results, page, tmp_path)
    assert "append, in turn" in page.read_text()
    assert Results.load(tmp_path / docs.SAVED.name).rows.keys() == results.rows.keys()


def test_the_real_page_names_only_what_exists() -> None:
    """Every marker is a suite, the goals or the setting; every plot it shows is a plot."""
    text = PAGE.read_text()
    markers = re.findall(r"<!-- measured: ([\w-]+) -->", text)
    plots = re.findall(r"\(plots/([\w-]+)\.svg\)", text)
    assert set(markers) <= {*SUITES, "goals", "setting"}
    assert {"goals", "setting", "redis", "delivery", "jobs"} <= set(markers)
    assert set(plots) == set(PLOTS)
    assert len(re.findall(r"<!-- end -->", text)) == len(markers)
