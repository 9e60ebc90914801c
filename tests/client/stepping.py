"""Takes the steps of calls and streams with a clock and a server that the test makes up."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from murmur_streams.client.patience import Patience
from murmur_streams.client.steps import (
    Answer,
    Ask,
    Close,
    Deliver,
    LostError,
    Open,
    Read,
    Wait,
    resume,
)

Outcome = Answer | LostError | bytes
HEAD = Answer(200, {"content-type": "text/event-stream; charset=utf-8"})
GONE = LostError("cut", may_have_arrived=True)
NEVER_SENT = LostError("refused", may_have_arrived=False)


@dataclass
class Play:
    """The steps that were taken, and their values."""

    now: float = 0.0
    asks: list[Ask] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    delivered: list[Any] = field(default_factory=list)
    closed: int = 0
    result: Any = None

    def patience(self, **options: Any) -> Patience:
        """A patience with this play's clock, and no dice."""
        return Patience(now=lambda: self.now, draw=lambda: 0.0, **options)

    def act(self, steps: Generator[Any, Any, Any], outcomes: Iterable[Outcome]) -> Any:
        """Take all steps; each request and each read meets the next outcome, and all are met."""
        left = iter(outcomes)
        self.drive(steps, left)
        assert next(left, None) is None, "the steps ended before their outcomes"
        return self.result

    def drive(self, steps: Generator[Any, Any, Any], outcomes: Iterator[Outcome]) -> None:
        """Take all steps."""
        outcome: Any = None
        try:
            while True:
                step = resume(steps, outcome)
                outcome = self._do(step, outcomes)
        except StopIteration as end:
            self.result = end.value

    def _do(self, step: object, outcomes: Iterator[Outcome]) -> Outcome | None:
        match step:
            case Wait(seconds):
                self.now += seconds
                self.waits.append(seconds)
                return None
            case Deliver(value):
                self.delivered.append(value)
                return None
            case Close():
                self.closed += 1
                return None
            case Open(ask):
                self.asks.append(ask)
            case Ask():
                self.asks.append(step)
            case _:
                assert isinstance(step, Read)
        outcome = next(outcomes, None)
        assert outcome is not None, f"nothing was expected any more, but: {step}"
        return outcome


def answer(status: int, document: object = None, **headers: str) -> Answer:
    """An answer with a JSON body."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, sent, b"" if document is None else json.dumps(document).encode())


def problem(slug: str, status: int, **members: Any) -> Answer:
    """A problem document."""
    document = {"type": f"urn:murmur-streams:problem:{slug}", "status": status, "detail": slug}
    return answer(status, {**document, **members}, x_request_id="req-1")
