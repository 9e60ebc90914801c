"""The limits of sizes, counts and durations, and the grammar of ids, targets and tenants.

One run cannot harm the others, and only names inside the grammar become parts of keys.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from dataclasses import dataclass
from typing import cast

from murmur_streams.core.model import errors
from murmur_streams.core.model.commands import Payload
from murmur_streams.core.model.states import PROGRESS_FIELDS, RunProgress, RunState

MAX_EVENTS_PER_APPEND = 500
MAX_ERROR_CHARACTERS = 8_192
LEAST_MAX_EVENTS = 1_000
MAX_COUNT = 2**53 - 1
"""The largest integer that Lua and JavaScript hold exactly."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest sizes that a store accepts, in bytes of UTF-8."""

    max_event_bytes: int = 256 * 1024
    max_result_bytes: int = 16 * 1024 * 1024
    max_input_bytes: int = 16 * 1024 * 1024
    max_metadata_bytes: int = 64 * 1024

    def input(self, text: str) -> Payload:
        """Check an input's JSON text; PayloadTooLargeError when it is over its limit."""
        return _payload("the input", text, self.max_input_bytes, "max_input_bytes")

    def result(self, text: str) -> Payload:
        """Check a result's JSON text; PayloadTooLargeError when it is over its limit."""
        return _payload("the result", text, self.max_result_bytes, "max_result_bytes")

    def checkpoint(self, text: str) -> Payload:
        """Check a checkpoint's JSON text, with the limit of results."""
        return _payload("the checkpoint", text, self.max_result_bytes, "max_result_bytes")

    def metadata(self, text: str) -> str:
        """Check the metadata's JSON text; PayloadTooLargeError when it is over its limit."""
        _payload("the metadata", text, self.max_metadata_bytes, "max_metadata_bytes")
        return text


def check_event_count(count: int) -> None:
    """Refuse an append of no event, or of more events than one script call takes."""
    if not 1 <= count <= MAX_EVENTS_PER_APPEND:
        raise errors.InvalidInputError(
            f"append takes 1 to {MAX_EVENTS_PER_APPEND} events in one step, not {count}"
        )


def check_max_events(max_events: int) -> int:
    """Refuse a cap of the journal that would trim entries before readers can read them."""
    if max_events and max_events < LEAST_MAX_EVENTS:
        raise errors.InvalidInputError(
            f"max_events is {max_events}, but must be 0 (no cap) or at least {LEAST_MAX_EVENTS}"
        )
    return max_events


TEN_YEARS_SECONDS = 3_650 * 86_400
"""A longer delay, deadline or time limit must be a mistake in the unit."""
MAX_DURATION_SECONDS = 100 * 366 * 86_400
"""A hundred years: a longer time must be a mistake in the unit, and stores cannot hold it."""


def duration_ms(name: str, seconds: float) -> int:
    """A setting's duration in milliseconds; 0, which means for ever, when it is 0 or less.

    Raises:
        InvalidInputError: it is not finite, or over a hundred years.
    """
    if not (math.isfinite(seconds) and seconds <= MAX_DURATION_SECONDS):
        raise errors.InvalidInputError(
            f"{name} is {seconds}, but must be a number of seconds up to "
            f"{MAX_DURATION_SECONDS:,}; 0 is for ever"
        )
    return max(0, round(seconds * 1000))


def check_seconds(name: str, seconds: object, *, least: float) -> float:
    """Check a length of time, from ``least`` to ten years."""
    if is_number(seconds) and least <= cast("float", seconds) <= TEN_YEARS_SECONDS:
        return float(cast("float", seconds))
    raise errors.InvalidInputError(
        f"{name} is {seconds!r}, but must be a number of seconds from {least:g} to "
        f"{TEN_YEARS_SECONDS:,} (ten years)"
    )


def is_number(value: object) -> bool:
    """Whether a value is an integer or a float, and not a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_expected_version(version: object) -> int | None:
    """Refuse an expected version that is neither None nor an integer that Lua holds exactly."""
    if version is None:
        return None
    if type(version) is int and abs(version) <= MAX_COUNT:
        return version
    raise errors.InvalidInputError(
        f"expected_version is {ascii(version)[:40]}, but must be a version (an integer) or None"
    )


def check_progress(progress: RunProgress) -> RunProgress:
    """Refuse counters that are negative, or larger than Lua and JavaScript hold exactly."""
    for name in PROGRESS_FIELDS:
        if not 0 <= getattr(progress, name) <= MAX_COUNT:
            raise errors.InvalidInputError(
                f"progress.{name} must be from 0 to {MAX_COUNT}, not {getattr(progress, name)}"
            )
    return progress


def check_state(state: object) -> RunState:
    """Refuse a value that is not the state of a run."""
    try:
        return RunState(cast("str", state))
    except ValueError:
        states = ", ".join(RunState)
        raise errors.InvalidInputError(f"state {ascii(state)[:40]} is none of {states}") from None


def check_end(state: object) -> RunState:
    """Refuse a state that does not end a run."""
    checked = check_state(state)
    if not checked.is_terminal:
        raise errors.InvalidInputError(
            f"finish ends a run: state must be completed, failed or cancelled, not {checked}"
        )
    return checked


def error_text(error: str | None) -> str | None:
    """An error's text in the form that is stored: cut to its limit, None when empty."""
    if not error:
        return None
    return error.encode("utf-8", "replace").decode()[:MAX_ERROR_CHARACTERS]


def _payload(what: str, text: str, limit: int, setting: str) -> Payload:
    raw = text.encode()
    if len(raw) > limit:
        raise errors.PayloadTooLargeError(what, len(raw), limit, setting)
    return Payload(text, len(raw), hashlib.sha256(raw).hexdigest())


_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHOWN = 60

EPOCH_BYTES = 4


def check_run_id(run_id: object) -> str:
    """Return ``run_id`` if it is inside the grammar, else raise InvalidRunIdError."""
    if isinstance(run_id, str) and _RUN_ID.fullmatch(run_id):
        return run_id
    raise errors.InvalidRunIdError(_refusal("run_id", run_id, 128, ". _ : -"))


def check_target(target: object) -> str:
    """Return ``target`` if it is inside the grammar, else raise InvalidTargetError."""
    if isinstance(target, str) and _TARGET.fullmatch(target):
        return target
    raise errors.InvalidTargetError(_refusal("target", target, 128, ". _ -"))


def check_tenant(tenant: object) -> str | None:
    """Return ``tenant`` if it is None or inside the grammar, else raise InvalidInputError."""
    if tenant is None or (isinstance(tenant, str) and _TENANT.fullmatch(tenant)):
        return tenant
    raise errors.InvalidInputError(_refusal("tenant", tenant, 64, ". _ -"))


def new_run_id() -> str:
    """Draw a run id: 128 random bits as 32 hexadecimal digits."""
    return secrets.token_hex(16)


def new_epoch() -> str:
    """Draw an epoch: a random mark that is different for each life of a run id."""
    return secrets.token_hex(EPOCH_BYTES)


def _refusal(what: str, value: object, most: int, others: str) -> str:
    # ascii() escapes characters that could forge a log line.
    text = ascii(value)
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return (
        f"{what} {shown} is refused: use 1 to {most} characters of A-Z a-z 0-9 {others} "
        "that begin with a letter or a digit"
    )
