"""The arithmetic of the benchmarks."""

from __future__ import annotations

import pytest

from benchmarks.harness import results as found
from benchmarks.harness.meter import Mark, parse_info, reading
from benchmarks.harness.results import Reading, Results, Row, Spread
from tests.benchmarks.results_of import results_of

INFO = """# CPU
used_cpu_sys:1.500000
used_cpu_user:2.250000
used_cpu_sys_children:9.000000
# Commandstats
cmdstat_evalsha:calls=10,usec=400,usec_per_call=40.00,rejected_calls=0,failed_calls=0
cmdstat_fcall:calls=2,usec=100,usec_per_call=50.00,rejected_calls=0,failed_calls=0
cmdstat_xadd:calls=30,usec=60,usec_per_call=2.00,rejected_calls=0,failed_calls=0
cmdstat_script|load:calls=1,usec=70,usec_per_call=70.00,rejected_calls=0,failed_calls=0
cmdstat_client|setinfo:calls=7,usec=7,usec_per_call=1.00,rejected_calls=0,failed_calls=0
cmdstat_info:calls=5,usec=50,usec_per_call=10.00,rejected_calls=0,failed_calls=0
"""


def test_a_spread_has_the_quartiles_between_values() -> None:
    """Quartiles lie between two values by their weight."""
    assert Spread.of([4, 1, 3, 2]) == Spread(2.5, 1, 4, 1.75, 3.25)
    assert Spread.of([7]) == Spread(7, 7, 7, 7, 7)


def test_a_ratio_pairs_the_rounds() -> None:
    """Both are slow in the same round, so the ratios of the rounds do not spread."""
    assert found.ratio([10, 20, 30], [5, 10, 15]) == Spread(2, 2, 2, 2, 2)
    spread = found.ratio([10, 20], [10, 5])
    assert (spread.median, spread.lowest, spread.highest) == (2, 1, 4)


def test_quantiles_shorten_a_long_distribution() -> None:
    """A thousand samples become 201 points from the lowest to the highest."""
    short = found.quantiles([3, 1, 2])
    long = found.quantiles([float(each) for each in range(1_001)])
    assert short == [1, 2, 3]
    assert (len(long), long[0], long[100], long[-1]) == (201, 0, 500, 1_000)


def test_info_counts_commands_inside_scripts() -> None:
    """Calls of scripts and housekeeping are not commands; only calls of scripts have their time."""
    assert parse_info(INFO) == (3.75, 500, 31)


def test_a_reading_is_the_cost_of_one_operation() -> None:
    """Differences of two marks are divided by the number of operations."""
    began, ended = Mark(10, 1, 2, 100, 50), Mark(12, 1.5, 2.25, 300, 90)
    whole = reading(began, ended, "append", 100, has_server=True, at=7)
    assert whole == Reading("append", 50, 7, 5_000, 2_500, 2, 0.4)
    assert reading(began, ended, "append", 100, has_server=False).server_us is None


def test_results_survive_their_file() -> None:
    """Saved results read back are the same rows, versions and notes."""
    results = results_of(("redis", "append", "murmur-streams", [1.5, 2.5]), at=10)
    cost = Reading("create", 3, client_us=4, server_us=5, script_us=6, commands=7, samples=[1, 2])
    results.record("redis", "floor", cost)
    results.notes.append("a note")
    again = Results.from_json(results.to_json())
    assert again == results
    assert again.to_json() == results.to_json()


@pytest.mark.parametrize("text", ["[]", "{}", "3", '{"rows": [1]}', "", "no json"])
def test_another_file_is_not_results(text: str) -> None:
    """Any other text is a ValueError, which the command line reports."""
    with pytest.raises(ValueError, match=r"."):
        Results.from_json(text)


def test_a_curve_is_ordered_by_position() -> None:
    """The rows of one figure at several positions, lowest first."""
    results = Results({}, {})
    for at in (100, 1, None, 10):
        results.record("growth", "murmur-streams", Reading("create", 1, at))
    curve = results.curve("growth", "create", "murmur-streams")
    assert [row.at for row in curve] == [1, 10, 100]
    assert results.find("growth", "create", "murmur-streams", 10) is curve[1]
    assert Row("growth", "create", "murmur-streams").key in results.rows
