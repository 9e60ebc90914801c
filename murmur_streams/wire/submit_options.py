"""The options of a submission, for the fleet, the client and the command line alike."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TypedDict

from pydantic import JsonValue

LONGEST_KEY = 1_024
"""Characters of an idempotency key."""
LONGEST_HEADER_KEY = 255
"""Characters of an idempotency key that travels by HTTP, in the header Idempotency-Key."""


class CommonSubmitOptions(TypedDict, total=False):
    """The options that every way to submit has; ``Fleet.submit`` explains them."""

    run_id: str | None
    metadata: Mapping[str, JsonValue] | None
    idempotency_key: str | None
    delay: float | timedelta | None
    at: datetime | None
    priority: int
    deadline: float | timedelta | None
    trace: Mapping[str, str] | None


class SubmitOptions(CommonSubmitOptions, total=False):
    """The keywords of ``Fleet.submit``."""

    tenant: str | None


class ClientSubmitOptions(CommonSubmitOptions, total=False):
    """The keywords of a client's ``submit``."""

    wait: float | None
