"""The socket between a supervisor and one of its worker processes.

The child reports its health as lines of JSON. The parent never writes. When the parent ends, in
whatever way, the kernel closes its side, and the child reads the end: it is an orphan and stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from typing import Any, cast

from murmur_streams.cli.supervisor.health import Health

ORPHAN_SECONDS = 30.0
"""How long an orphan may take beyond its drain."""
TICK_SECONDS = 1.0


class Reporter:
    """The child's side.

    Args:
        descriptor: of the socket, as the parent passed it.
        drain_seconds: how long this worker drains.
    """

    def __init__(self, descriptor: int, drain_seconds: float) -> None:
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._longest_seconds = drain_seconds + ORPHAN_SECONDS
        threading.Thread(target=self._stop_when_orphaned, name="parent", daemon=True).start()

    def send(self, health: Health) -> None:
        """Report to the parent; the report is dropped while the parent does not read."""
        line = {**health.as_json(), "status": str(health.status), "beats": health.beats}
        with contextlib.suppress(OSError):
            self._socket.send(json.dumps(line).encode() + b"\n", socket.MSG_DONTWAIT)

    def _stop_when_orphaned(self) -> None:
        with contextlib.suppress(OSError):
            while self._socket.recv(1):
                pass
        # SIGTERM drains the worker; before its handler is installed, it ends the process.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self._longest_seconds)
        os._exit(1)


def parse_report(line: bytes) -> dict[str, Any]:
    """A child's report; empty for half a line, which a child leaves that dies while it writes."""
    try:
        found: object = json.loads(line)
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
