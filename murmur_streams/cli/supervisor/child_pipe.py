"""The socket between a parent and a worker process that it keeps.

The child reports its health as lines. The parent says nothing: the end of its side, which the
kernel sees to whatever becomes of it, tells the child that it is alone.
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
        threading.Thread(target=self._await_end, name="parent", daemon=True).start()

    def send(self, health: Health) -> None:
        """Tell the parent; one that does not read misses it."""
        line = {**health.as_json(), "status": str(health.status), "beats": health.beats}
        with contextlib.suppress(OSError):
            self._socket.send(json.dumps(line).encode() + b"\n", socket.MSG_DONTWAIT)

    def _await_end(self) -> None:
        with contextlib.suppress(OSError):
            while self._socket.recv(1):
                pass
        # As if it had been told to stop: before the signal is handled, it ends the process.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self._longest_seconds)
        os._exit(1)


def read_report(line: bytes) -> dict[str, Any]:
    """What a child has said, or nothing: its end may come in the middle of a line."""
    try:
        found: object = json.loads(line)
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
