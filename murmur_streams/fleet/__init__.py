"""Agents, submission, handles and workers; never a key, a script or a web route."""

from murmur_streams.fleet.agents import Agent
from murmur_streams.fleet.context import RunContext
from murmur_streams.fleet.fleet import Fleet
from murmur_streams.fleet.handle import RunHandle

__all__ = ["Agent", "Fleet", "RunContext", "RunHandle"]
