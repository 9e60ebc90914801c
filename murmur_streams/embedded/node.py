"""One server process of a group on this machine, for trying out and for tests."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError

from murmur_streams.core.model.errors import EmbeddedServerError

PATIENCE_SECONDS = 30.0


class Node:
    """One process of the group.

    Args:
        binary: the server's executable, which is a Sentinel, too.
        folder: where it keeps its settings and its log.
        settings: lines of its settings.
        sentinel: whether it is a Sentinel.
        password: of its user ``default``; None: it asks for none.
    """

    def __init__(
        self,
        binary: Path,
        folder: Path,
        settings: Sequence[str],
        *,
        sentinel: bool = False,
        password: str | None = None,
    ) -> None:
        # A node of a cluster has a second port, 10,000 above the first.
        self.port = free_port(further=10_000)
        self.announced_port = self.port
        """Where others reach it: the port of a proxy, if there is one."""
        self.folder = folder
        self.password = password
        self._binary = binary
        self.settings = [*settings]
        self._is_sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None
        self.is_frozen = False

    def announce(self, port: int) -> None:
        """Let others reach it through a proxy on this port; before its start."""
        self.announced_port = port
        self.settings += ["replica-announce-ip 127.0.0.1", f"replica-announce-port {port}"]

    @property
    def runs(self) -> bool:
        """Whether its process runs, also while it is frozen."""
        return self._process is not None and self._process.poll() is None

    @property
    def is_started(self) -> bool:
        """Whether it has been started, and not been killed since."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Of the process that runs; EmbeddedServerError when none does."""
        if self._process is None:
            raise EmbeddedServerError(f"the node on port {self.port} does not run")
        return self._process.pid

    @property
    def client(self) -> Redis:
        """A plain client; the caller closes it."""
        return Redis(
            host="127.0.0.1",
            port=self.port,
            password=self.password,
            socket_timeout=5,
            protocol=2,
        )

    def start(self, *options: str) -> None:
        """Start it, and return when it answers; ``options`` stand behind those of its settings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "node.conf"
        if not config.exists():
            lines = [f"port {self.port}", "bind 127.0.0.1", f'dir "{self.folder}"', "logfile log"]
            lines += [f'requirepass "{self.password}"'] if self.password else []
            config.write_text("\n".join([*lines, *self.settings]) + "\n", encoding="latin-1")
        command = [str(self._binary), str(config), *(["--sentinel"] * self._is_sentinel), *options]
        # Python ignores SIGXFSZ; the server shall, too, so that a limit is a full disk to it.
        self._process = subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            restore_signals=False,
        )
        wait_for(self.answers, f"the node on port {self.port} answers")
        if self._is_sentinel:
            # Servers from 7.0 on: else it looks at replicas only every ten seconds.
            with self.client as client, contextlib.suppress(RedisError):
                cast("Any", client).execute_command("SENTINEL", "DEBUG", "info-period", "500")

    def answers(self) -> bool:
        """Whether it answers a PING."""
        with self.client as client, contextlib.suppress(RedisError, OSError):
            return bool(cast("Any", client).ping())
        return False

    def kill(self) -> None:
        """End it with SIGKILL, also while it is frozen."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.is_frozen = False
            self._process = None

    def stop(self) -> None:
        """End it in order, with SIGTERM; with SIGKILL when that takes too long."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE_SECONDS)
            self.kill()

    def freeze(self) -> None:
        """Stop it: it keeps its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        self.is_frozen = True

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)
        self.is_frozen = False


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds; a server that does not answer is one reason why it does not.

    Raises:
        EmbeddedServerError: it did not hold within half a minute.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with contextlib.suppress(RedisError, OSError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise EmbeddedServerError(f"waited {PATIENCE_SECONDS:g} s in vain until {what}")
        time.sleep(0.05)


def free_port(*, further: int = 0) -> int:
    """A free port on loopback, where the port that is ``further`` is free, too."""
    while True:
        with socket.socket() as probe, socket.socket() as another:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if not further:
                return port
            with contextlib.suppress(OSError, OverflowError):
                another.bind(("127.0.0.1", port + further))
                return port
