"""Reads the replies of the queue's scripts and streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from murmur_streams.core.model.work import Claim, ControlMessage
from murmur_streams.core.rules.decision import Answer
from murmur_streams.stores.redis.server import pairs


def read_groups(flat: Answer) -> Iterator[tuple[str, dict[str, str]]]:
    """Split the claim script's reply into groups, each a kind and its fields."""
    at = 0
    while at < len(flat):
        first = at + 2
        end = first + int(flat[at + 1])
        fields = flat[first:end]
        yield flat[at], dict(zip(fields[::2], fields[1::2], strict=True))
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
