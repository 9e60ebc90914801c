"""Faults for tests of stores and of programs that use them: proxies, servers, schedules.

A ``FaultProxy`` stands between a store and its server and breaks the requests of a plan; a
``TcpProxy`` does the same to the bytes of any protocol. A ``ServerHandle`` is a server that a test
kills, freezes and empties. A ``FaultSchedule`` lets seeded faults happen. None of them needs
pytest. ``docs/testing.md`` shows how to use them.
"""

from murmur_streams.testing.faults.kinds import (
    network_faults,
    process_faults,
    request_faults,
    server_faults,
)
from murmur_streams.testing.faults.plans import (
    CUTS,
    Answer,
    Fault,
    Parts,
    Plan,
    always,
    calls,
    commands,
    executed_by,
    in_turn,
    nothing,
    number_of,
    once,
)
from murmur_streams.testing.faults.proxy import FaultProxy
from murmur_streams.testing.faults.schedule import Act, FaultReport, FaultSchedule
from murmur_streams.testing.faults.servers import Failover, ServerHandle, fail_over
from murmur_streams.testing.faults.tcp_proxy import Direction, TcpProxy

__all__ = [
    "CUTS",
    "Act",
    "Answer",
    "Direction",
    "Failover",
    "Fault",
    "FaultProxy",
    "FaultReport",
    "FaultSchedule",
    "Parts",
    "Plan",
    "ServerHandle",
    "TcpProxy",
    "always",
    "calls",
    "commands",
    "executed_by",
    "fail_over",
    "in_turn",
    "network_faults",
    "nothing",
    "number_of",
    "once",
    "process_faults",
    "request_faults",
    "server_faults",
]
