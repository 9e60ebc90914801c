"""Comparisons: ratios, and what is within the noise."""

from __future__ import annotations

import pytest

from benchmarks.compare import (
    RevisionError,
    compared,
    compared_files,
    comparison_table,
    revisions,
    titles,
)
from benchmarks.harness.results import Reading
from benchmarks.harness.session import FLOOR, OURS
from tests.benchmarks.results_of import results_of

A, B = titles(("HEAD", "."))
NOISY = [100.0, 50.0, 200.0, 100.0, 60.0]


@pytest.mark.parametrize(
    ("figure", "second", "verdict"),
    [
        ("append", [1.2 * each for each in NOISY], "B is better"),
        ("append", [0.8 * each for each in NOISY], "B is worse"),
        ("append", [1.01 * each for each in NOISY], "within the noise"),
        ("append", [60.0, 100.0, 90.0, 210.0, 70.0], "within the noise"),
        ("delivery_p50", [1.2 * each for each in NOISY], "B is worse"),
        ("delivery_p50", [0.8 * each for each in NOISY], "B is better"),
    ],
)
def test_interleaved_rounds_find_small_differences(
    figure: str, second: list[float], verdict: str
) -> None:
    """Rounds are compared in pairs, so noise that both share does not hide a difference."""
    results = results_of(("redis", figure, A, NOISY), ("redis", figure, B, second))
    (found,) = compared(results, A, B)
    assert found.verdict == verdict


def test_files_differ_only_when_their_quartiles_do() -> None:
    """Rounds of two runs are not pairs: a fifth is within the noise here, four times is not."""
    for factor, verdict in ((1.2, "within the noise"), (4.0, "B is better"), (0.2, "B is worse")):
        first = results_of(("redis", "append", OURS, NOISY), ("redis", "append", FLOOR, NOISY))
        second = results_of(("redis", "append", OURS, [factor * each for each in NOISY]))
        (found,) = compared_files(first, second)
        assert found.verdict == verdict
        assert found.ratio.median == pytest.approx(factor)


def test_few_rounds_give_no_verdict() -> None:
    """Three rounds say nothing about the noise."""
    results = results_of(("redis", "append", A, [1.0] * 3), ("redis", "append", B, [9.0] * 3))
    assert [found.verdict for found in compared(results, A, B)] == ["too few rounds"]


def test_the_table_has_the_ratios_of_the_cpu_time() -> None:
    """Client and server time per operation, B over A."""
    results = results_of()
    for subject, factor in ((A, 1.0), (B, 0.5)):
        reading = Reading("append", 10, client_us=8 * factor, server_us=6 * factor)
        results.record("redis", subject, reading)
    _, line = comparison_table(compared(results, A, B))
    assert line[:4] == ("redis: append, in turn", "10 /s", "10 /s", "1")
    assert line[5:7] == ("0.50", "0.50")


async def test_a_name_that_is_not_a_revision_is_an_error() -> None:
    """The message names it."""
    with pytest.raises(RevisionError, match="nonsense"):
        async with revisions(("nonsense", ".")):
            pass


async def test_the_working_tree_is_measured_where_it_lies() -> None:
    """`.` names it; the same tree twice has two subjects."""
    async with revisions((".", ".")) as (first, second):
        assert first.folder == second.folder
        assert first.name != second.name
