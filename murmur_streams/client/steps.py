"""The steps of a call, as values: a call yields them, and the shell executes them with httpx.

A call is a generator without I/O. It yields an ``Ask`` and receives the ``Answer``, or a
``LostError`` when there is none; it yields a ``Wait`` and receives nothing. It returns the value of
the call. A stream yields ``Open``, ``Read``, ``Close`` and ``Wait``, and a ``Deliver`` for each of
its values.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, without the server's address and the credentials."""

    method: str = "GET"
    path: str
    """Below the base URL, percent-encoded."""
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None
    """JSON text."""
    wait_seconds: float = 0.0
    """How long the server may wait before it answers, because the request asks for that."""
    run_id: str = ""
    """The run that it is about, for the error."""
    target: str = ""
    key: str = ""
    """The idempotency key, for the error."""

    @property
    def is_read(self) -> bool:
        """Whether it changes nothing."""
        return self.method == "GET"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request."""

    status: int
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: bytes = b""


class LostError(Exception):
    """The connection failed before the whole answer arrived."""

    def __init__(self, message: str, *, may_have_arrived: bool) -> None:
        super().__init__(message)
        self.may_have_arrived = may_have_arrived
        """False when the server cannot have seen the request."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Let this time pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a stream; its Answer has a body only when it is not a stream."""

    ask: Ask


@dataclass(frozen=True, slots=True)
class Read:
    """The next bytes of the open stream; none at its end."""


@dataclass(frozen=True, slots=True)
class Close:
    """End the open stream's connection."""


@dataclass(frozen=True, slots=True)
class Deliver(Generic[T]):
    """A value for the caller."""

    value: T


Steps = Generator[Ask | Wait, Any, T]
StreamSteps = Generator[Open | Read | Close | Wait | Deliver[T], Any, None]


def resume(steps: Generator[T, Any, Any], outcome: object) -> T:
    """Pass on the outcome of the last step, None before the first; the next step."""
    return steps.throw(outcome) if isinstance(outcome, LostError) else steps.send(outcome)
