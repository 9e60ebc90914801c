"""W3C trace context: passed on from the submission of a run to the agent that executes it."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from murmur_streams.core.model.errors import InvalidInputError

MOST_STATE_CHARACTERS = 512
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_STATE = re.compile(r"[\x20-\x7e]*")
_PROPAGATOR = "opentelemetry.trace.propagation.tracecontext"


def trace_to_carry(given: Mapping[str, str] | None) -> dict[str, str] | None:
    """The trace of a new run: the caller's, else OpenTelemetry's current span if there is one.

    Args:
        given: ``traceparent`` and optionally ``tracestate``, such as a request's headers: other
            names in it are left out. None for the current span; empty for no trace at all.

    Returns:
        None without a trace, or with one that breaks W3C's grammar: headers that a caller passes
        on from its own clients must not make the submission fail.

    Raises:
        InvalidInputError: it is not a mapping, which is the caller's own mistake.
    """
    if given is None:
        return _current() or None
    if not isinstance(cast("object", given), Mapping):
        raise InvalidInputError(
            f"trace is {ascii(given)[:40]}, but must be a mapping with traceparent"
        )
    named = {name.lower(): text for name, text in given.items()}
    parent, state = named.get("traceparent", ""), named.get("tracestate", "")
    if not _PARENT.fullmatch(parent):
        return None
    if not state or len(state) > MOST_STATE_CHARACTERS or not _STATE.fullmatch(state):
        return {"traceparent": parent}
    return {"traceparent": parent, "tracestate": state}


def _current() -> dict[str, str]:
    # A program that has not imported the library has no current span.
    if "opentelemetry.trace" not in sys.modules:
        return {}
    carrier: dict[str, str] = {}
    _propagator().inject(carrier)
    # Another library may have set the propagator, so its header is checked, too.
    return carrier if _PARENT.fullmatch(carrier.get("traceparent", "")) else {}


def enter_trace(trace: Mapping[str, str]) -> None:
    """Make the run's trace OpenTelemetry's current context in the running task.

    Spans that the agent begins are children of the submitter's span. Nothing happens in a program
    that does not use OpenTelemetry.
    """
    if not trace or "opentelemetry.trace" not in sys.modules:
        return
    context: Any = import_module("opentelemetry.context")
    context.attach(_propagator().extract(dict(trace)))


def _propagator() -> Any:
    return import_module(_PROPAGATOR).TraceContextTextMapPropagator()
