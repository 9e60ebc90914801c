"""What callers hand to a store, checked and turned into commands."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from murmur_streams.core.commands import Create
from murmur_streams.core.identifiers import check_run_id, check_target, new_epoch
from murmur_streams.core.json_values import encode_json
from murmur_streams.core.limits import Limits


def create_command(
    run_id: str,
    target: str,
    given: JsonValue,
    metadata: Mapping[str, JsonValue] | None,
    limits: Limits,
) -> Create:
    """Check what a run is created with.

    Raises:
        InvalidInputError: an id, target, input or metadata breaks a rule.
    """
    check_run_id(run_id)
    return Create(
        check_target(target),
        new_epoch(),
        None if given is None else limits.input(encode_json(given, "the input")),
        None if metadata is None else limits.metadata(encode_json(dict(metadata), "the metadata")),
    )
