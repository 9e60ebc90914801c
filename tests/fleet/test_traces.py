"""Which trace context a run carries."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from murmur_streams import Fleet, RunContext
from murmur_streams.fleet import current
from murmur_streams.fleet.current import enter_trace, trace_to_carry
from tests.fleet.working import working

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_of_a_requests_headers_the_trace_is_carried() -> None:
    """Only traceparent and tracestate are taken, in any case."""
    headers = {"Traceparent": PARENT, "tracestate": "a=1", "authorization": "Bearer secret"}
    assert trace_to_carry(headers) == {"traceparent": PARENT, "tracestate": "a=1"}
    assert trace_to_carry({"traceparent": PARENT}) == {"traceparent": PARENT}


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "nonsense",
        PARENT.upper(),
        PARENT + "-",
        "ff" + PARENT[2:],
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
    ],
)
def test_what_breaks_the_grammar_is_left_out(parent: str) -> None:
    """Without a valid traceparent, nothing is carried."""
    assert trace_to_carry({"traceparent": parent, "tracestate": "a=1"}) is None


@pytest.mark.parametrize("state", ["x" * 513, "a=\n", "ä=1"])
def test_a_state_that_breaks_the_grammar_is_left_out(state: str) -> None:
    """The traceparent is carried alone."""
    assert trace_to_carry({"traceparent": PARENT, "tracestate": state}) == {"traceparent": PARENT}


class Propagator:
    """A stand-in for OpenTelemetry, with one fixed span."""

    parent = PARENT

    def inject(self, carrier: dict[str, str]) -> None:
        carrier["traceparent"] = self.parent

    def extract(self, carrier: dict[str, str]) -> tuple[str, ...]:
        return tuple(carrier.values())


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """A program that uses OpenTelemetry, as far as we look at it; the contexts it attached."""
    attached: list[tuple[str, ...]] = []
    modules: dict[str, object] = {
        "opentelemetry.trace": ModuleType("trace"),
        "opentelemetry.context": SimpleNamespace(attach=attached.append),
        current._PROPAGATOR: SimpleNamespace(TraceContextTextMapPropagator=Propagator),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(current, "import_module", modules.__getitem__)
    return attached


@pytest.mark.usefixtures("attached")
def test_without_a_given_trace_the_current_span_is_carried() -> None:
    """An empty dict carries none."""
    assert trace_to_carry(None) == {"traceparent": PARENT}
    assert trace_to_carry({}) is None


def test_a_carried_trace_becomes_the_current_one(attached: list[tuple[str, ...]]) -> None:
    """OpenTelemetry's context is set for the handler."""
    enter_trace({})
    enter_trace({"traceparent": PARENT})
    assert attached == [(PARENT,)]


def test_without_the_library_there_is_no_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program without OpenTelemetry passes no trace on, and enters none."""
    # Other tests may have brought it.
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    assert trace_to_carry(None) is None
    enter_trace({"traceparent": PARENT})


async def test_an_agent_gets_the_trace_of_its_submitter(fleet: Fleet) -> None:
    """run.trace has it; without one it is empty."""

    @fleet.agent
    async def reports(run: RunContext) -> dict[str, str]:
        return dict(run.trace)

    given = {"traceparent": PARENT, "tracestate": "a=1"}
    async with working(fleet):
        with_trace = await fleet.submit(reports, trace=given)
        without = await fleet.submit(reports)
        assert await with_trace.output(timeout=30) == given
        assert await without.output(timeout=30) == {}
