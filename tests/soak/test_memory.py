"""The verdict on a series: a leak is found, and what a process does anyway is not one."""

from __future__ import annotations

import math
import random

import pytest

from tests.soak.memory import KEYS, RESIDENT, USED, Measure, Series, growth


def series(minutes: float, value_at: list[float], measure: Measure = RESIDENT) -> Series:
    """A measurement every five seconds; the values go from one of the list to the next."""
    steps = round(minutes * 12)
    points: list[tuple[float, float]] = []
    for step in range(steps + 1):
        at = step / steps * (len(value_at) - 1)
        low = min(math.floor(at), len(value_at) - 2)
        value = value_at[low] + (value_at[low + 1] - value_at[low]) * (at - low)
        points.append((step * 5.0, value))
    return Series("worker 1", measure, points)


def is_flat(found: Series) -> bool:
    result = growth(found)
    assert result is not None
    return result.is_flat


def test_a_leak_is_found() -> None:
    """Half a MiB a minute, of a worker that begins with 80: 15 MiB in half an hour."""
    assert not is_flat(series(30, [80, 95]))


def test_a_leak_of_the_server_is_found() -> None:
    """The server begins with 6 MiB, and gets 0.2 in a minute."""
    assert not is_flat(series(30, [6, 12], USED))


def test_keys_that_stay_are_found() -> None:
    """One key in a second is not removed."""
    assert not is_flat(series(30, [6_000, 7_800], KEYS))


def test_a_leak_that_begins_late_is_found() -> None:
    """Nothing in the first half, then a MiB a minute."""
    assert not is_flat(series(30, [80, 80, 95]))


def test_a_leak_under_noise_is_found() -> None:
    """Single measurements jump by more than the growth."""
    chance, found = random.Random(1), series(30, [80, 95])
    found.points = [(at, value + chance.uniform(-8, 8)) for at, value in found.points]
    assert not is_flat(found)


def test_warming_up_is_not_a_leak() -> None:
    """A process grows until its caches are full, and runs have begun to expire."""
    assert is_flat(series(30, [40, 80, 81, 82]))


def test_noise_is_not_a_leak() -> None:
    """Measurements jump, around the same value."""
    chance, found = random.Random(2), series(30, [80, 80])
    found.points = [(at, value + chance.uniform(-8, 8)) for at, value in found.points]
    assert is_flat(found)


def test_a_peak_is_not_a_leak() -> None:
    """For a quarter of the last third, a worker has the runs of another one."""
    found = series(30, [80, 80])
    found.points = [(at, value + 40 * (1_300 < at < 1_450)) for at, value in found.points]
    assert is_flat(found)


def test_shrinking_is_flat() -> None:
    """Fewer runs need less memory."""
    assert is_flat(series(30, [80, 40]))


def test_a_small_process_may_grow_a_little() -> None:
    """Below 80 MiB the bound is 4 MiB, not a part."""
    assert is_flat(series(30, [10, 10, 10, 13]))


@pytest.mark.parametrize("minutes", [0.2, 9.9])
def test_a_short_series_is_not_judged(minutes: float) -> None:
    """A process that was restarted a moment ago still grows."""
    assert growth(series(minutes, [40, 80])) is None


def test_an_empty_series_is_not_judged() -> None:
    """The server could never be asked."""
    assert growth(Series("server", USED)) is None


def test_a_gap_is_not_judged() -> None:
    """The server could not be asked in the whole middle of the soak."""
    found = series(30, [6, 12], USED)
    found.points = [(at, value) for at, value in found.points if not 500 < at < 1_300]
    assert growth(found) is None


def test_a_verdict_names_its_numbers() -> None:
    """The report of a leak can be read without the series."""
    found = str(growth(series(30, [80, 95])))
    assert found == "worker 1: 87.5 MiB, then 92.5 (+5.0, at most +4.4)"
