"""Agents, submission, handles and workers; no keys, no scripts, no HTTP."""

from murmur_streams.core.rules.evolve import Cancellation
from murmur_streams.fleet.agents import Agent
from murmur_streams.fleet.context import RunContext
from murmur_streams.fleet.fleet import Fleet
from murmur_streams.fleet.handle import RunHandle
from murmur_streams.fleet.logs import RunLogFilter
from murmur_streams.fleet.policy import Backoff, RetryLater

__all__ = [
    "Agent",
    "Backoff",
    "Cancellation",
    "Fleet",
    "RetryLater",
    "RunContext",
    "RunHandle",
    "RunLogFilter",
]
