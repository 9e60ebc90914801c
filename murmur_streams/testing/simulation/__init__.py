"""Deterministic simulation: agents, workers and a store on an event loop with virtual time.

A scenario runs from a seed, which chooses the order of tasks, the time that calls take, and the
faults. The same seed gives the same run, so that what a seed found can be looked at again.
"""

from murmur_streams.testing.simulation.handles import Process
from murmur_streams.testing.simulation.loop import SimulatedLoop, StuckError
from murmur_streams.testing.simulation.simulation import Simulation, simulate
from murmur_streams.testing.simulation.store import Faults, SimulatedRunStore

__all__ = [
    "Faults",
    "Process",
    "SimulatedLoop",
    "SimulatedRunStore",
    "Simulation",
    "StuckError",
    "simulate",
]
