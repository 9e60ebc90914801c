"""Makes results out of a few numbers."""

from __future__ import annotations

from benchmarks.harness.results import Reading, Results


def results_of(*rows: tuple[str, str, str, list[float]], at: float | None = None) -> Results:
    """Results with rows of (suite, figure, subject, values)."""
    results = Results({"Python": "3.11"}, {"cores": "2"})
    for suite, figure, subject, values in rows:
        for value in values:
            results.record(suite, subject, Reading(figure, value, at))
    return results
