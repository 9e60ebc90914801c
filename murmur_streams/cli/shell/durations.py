"""Parsers of durations and moments, as people write them."""

from __future__ import annotations

import re
from datetime import datetime

import typer

from murmur_streams.core.model.limits import TEN_YEARS_SECONDS

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)?", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


def seconds_of(text: str) -> float:
    """Seconds, from ``90``, ``1.5s``, ``5m``, ``2h`` or ``7d``."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(
            f"{text!r} is not a duration: write seconds, or a number with s, m, h or d, such as "
            "5m, from 0 to ten years"
        )
    seconds = float(found[1]) * _UNITS[found[2] or "s"]
    if seconds > TEN_YEARS_SECONDS:
        raise typer.BadParameter(f"{text!r} is too long: it must be from 0 to ten years (3650d)")
    return seconds


def moment_of(text: str) -> datetime:
    """A moment, from ISO 8601; without a zone, it is in this machine's zone."""
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(
            f"{text!r} is not a moment: write it as 2030-01-31T09:00 or 2030-01-31T09:00:00+01:00"
        ) from None
