"""Goals: what is compared, and what is met."""

from __future__ import annotations

from benchmarks import figures, goals, tables
from benchmarks.goals import GOALS, Goal, judge
from benchmarks.harness.results import Reading, Results
from benchmarks.harness.session import FLOOR, OURS
from tests.benchmarks.results_of import results_of

RATE = Goal("rate over floor", "redis", "append", 0.8, against=FLOOR)
MOST = Goal("bytes", "footprint", "memory_live", 100, is_least=False)
CURVE = Goal(
    "growth", "growth", "growth_create", 1.25, is_least=False, column="script_us", ends=True
)


def test_a_goal_is_a_ratio_to_another_row() -> None:
    """Eight tenths of the floor meet a bound of 0.8, less misses it."""
    for ours, text in ((8.0, "met"), (7.9, "missed")):
        rows = ("redis", "append", OURS, [ours]), ("redis", "append", FLOOR, [10.0])
        (verdict,) = judge(results_of(*rows), (RATE,))
        assert verdict.text == text
        assert verdict.found is not None
        assert verdict.found.median == ours / 10


def test_a_goal_for_a_rate_has_the_ratio_of_the_cpu_time() -> None:
    """The floor's client and server time over ours; a latency and a worker have none."""
    results = Results({}, {})
    for subject, client_us, server_us in ((OURS, 6.0, 4.0), (FLOOR, 3.0, 2.0)):
        reading = Reading("append", 1, client_us=client_us, server_us=server_us)
        for suite in ("redis", "jobs"):
            results.record(suite, subject, reading)
    worker = Goal("jobs", "jobs", "append", 1, against=FLOOR)
    assert [verdict.cpu for verdict in judge(results, (RATE, MOST, worker))] == [0.5, None, None]


def test_a_goal_may_be_a_bound_for_the_value() -> None:
    """At most 100 is met by 100 and missed by 101."""
    for value, is_met in ((100.0, True), (101.0, False)):
        (verdict,) = judge(results_of(("footprint", "memory_live", OURS, [value])), (MOST,))
        assert verdict.is_met is is_met


def test_a_goal_compares_the_ends_of_a_curve() -> None:
    """The last position over the first, by the server's time in scripts."""
    results = Results({}, {})
    for at, script_us in ((10.0, 40.0), (1.0, 20.0), (5.0, 99.0)):
        results.record("growth", OURS, Reading("growth_create", 1, at, script_us=script_us))
    (verdict,) = judge(results, (CURVE,))
    assert verdict.found is not None
    assert (verdict.found.median, verdict.text) == (2, "missed")


def test_a_goal_without_rows_is_not_measured() -> None:
    """A missing row is neither met nor an error."""
    verdicts = judge(Results({}, {}))
    assert {verdict.text for verdict in verdicts} == {"not measured"}
    assert not any(verdict.is_met for verdict in verdicts)


def test_every_goal_has_a_figure_and_a_title_of_its_own() -> None:
    """Figures have titles and units, and no two goals share a title."""
    assert {goal.figure for goal in GOALS} <= set(figures.FIGURES)
    assert len({goal.title for goal in GOALS}) == len(GOALS)
    assert set(goals.PEERS) >= {goals.TASKIQ, goals.DRAMATIQ, goals.BULLMQ}


def test_the_report_has_every_row_and_goal() -> None:
    """As text and as Markdown: versions, rows with ratios to ours, goals and notes."""
    results = results_of(
        ("redis", "append", OURS, [50.0, 40.0]), ("redis", "append", FLOOR, [100.0, 80.0])
    )
    results.notes.append("BullMQ is not installed")
    text, markdown = tables.report(results), tables.report(results, is_markdown=True)
    for part in ("Python 3.11", "append, in turn", "0.50 times", "missed", "BullMQ is not"):
        assert part in text
        assert part in markdown
    assert "| --- |" in markdown
    assert {line.count("|") for line in markdown.splitlines() if "append, in turn |" in line} == {9}


def test_numbers_are_shown_with_few_digits() -> None:
    """Large ones are whole, small ones have two decimals."""
    shown = [figures.shown(value) for value in (123_456.7, 45.67, 4.567, 0.004, 3.0)]
    assert shown == ["123,457", "45.7", "4.57", "0.00", "3"]
