"""Decodes the server's replies, and lays fields out as a script's arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from murmur_streams.core.model.entries import Fields, JournalEntry
from murmur_streams.core.model.errors import RunNotFoundError
from murmur_streams.core.model.feed import Position
from murmur_streams.core.model.states import PROGRESS_FIELDS, RunProgress, RunState, RunStatus
from murmur_streams.core.model.work import Claim, ControlMessage
from murmur_streams.core.rules.executions import Answer
from murmur_streams.stores.redis.connection.failures import UNCONFIRMED, UnconfirmedError

STATUS_FIELDS = ("state", *(f"progress_{counter}" for counter in PROGRESS_FIELDS))
"""The fields of a run's hash that ``read_status`` reads."""


def text(value: object) -> str:
    """Decode a part of a reply."""
    # The store writes only UTF-8; other data must not end a reader with a UnicodeDecodeError.
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def text_or_none(value: Any) -> str | None:
    """Decode a part of a reply that may be missing."""
    return None if value is None else text(value)


def pairs(flat: Sequence[Any]) -> dict[str, str]:
    """Decode a flat reply of names and values."""
    texts = [text(part) for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def clock_ms(reply: Sequence[Any]) -> int:
    """The server's clock, of a reply to TIME."""
    return int(reply[0]) * 1000 + int(reply[1]) // 1000


def flatten(fields: Mapping[str, str]) -> list[Any]:
    """Names and values in turn, as the arguments of a script."""
    return [*chain.from_iterable(fields.items())]


def counted(events: Sequence[Fields]) -> list[Any]:
    """The fields of several events, each laid out flat behind the number of its parts."""
    arguments: list[Any] = []
    for fields in events:
        arguments.append(2 * len(fields))
        for pair in fields.items():
            arguments += pair
    return arguments


def read_answer(reply: Any) -> Answer:
    """Read a script's answer; UnconfirmedError when the script must be called again."""
    answer = tuple(text(part) for part in reply)
    if answer[0] == UNCONFIRMED:
        raise UnconfirmedError("the number of partitions is not confirmed")
    return answer


def read_id(raw: bytes) -> Position:
    """Read the raw id of a stream entry."""
    ms, _, n = raw.partition(b"-")
    return int(ms), int(n)


def read_entry(run_id: str, epoch: str, raw: Any) -> JournalEntry:
    """Read one raw stream entry."""
    ms, seq = read_id(raw[0])
    return JournalEntry(run_id, epoch, ms, seq, pairs(raw[1]))


def read_groups(flat: Answer) -> Iterator[tuple[str, dict[str, str]]]:
    """Split the claim script's reply into groups, each a kind and its fields."""
    at = 0
    while at < len(flat):
        first = at + 2
        end = first + int(flat[at + 1])
        yield flat[at], dict(zip(flat[first:end:2], flat[first + 1 : end : 2], strict=True))
        at = end


def read_claim(fields: Mapping[str, str]) -> Claim:
    """Make a claim of a group's fields."""
    deadline, left = fields.get("deadline_ms"), fields.get("deadline_left_ms")
    return Claim(
        run_id=fields["run_id"],
        target=fields["target"],
        attempt=int(fields["attempt"]),
        token=fields["claim"],
        version=int(fields["version"]),
        input_json=fields.get("input"),
        failures=int(fields.get("failures", 0)),
        excused=int(fields.get("excused", 0)),
        deadline_ms=None if deadline is None else int(deadline),
        deadline_left_seconds=None if left is None else int(left) / 1000,
        checkpoint_json=fields.get("checkpoint"),
        trace={name: fields[name] for name in ("traceparent", "tracestate") if name in fields},
    )


def read_message(raw: list[Any]) -> ControlMessage:
    """Read an entry of a control stream."""
    fields = pairs(raw)
    return ControlMessage(fields.get("kind", ""), fields.get("run", ""), fields.get("claim", ""))


def read_status(run_id: str, values: Sequence[Any]) -> RunStatus:
    """A run's state and progress, of the values of STATUS_FIELDS.

    Raises:
        RunNotFoundError: the run does not exist.
    """
    if values[0] is None:
        raise RunNotFoundError(run_id)
    progress = None
    if values[1]:
        counters = zip(PROGRESS_FIELDS, map(int, values[1:]), strict=True)
        progress = RunProgress(**dict(counters))
    return RunStatus(run_id=run_id, state=RunState(text(values[0])), progress=progress)
