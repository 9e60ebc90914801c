"""Three Sentinels, a primary and replicas on this machine: for trying out, and for tests.

All listen on loopback ports, need no password, and keep nothing on the disk but their own settings.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError

from murmur_streams.core.model.errors import EmbeddedServerError

SERVICE = "runs"
DOWN_AFTER_MS = 1_000
PATIENCE_SECONDS = 30.0
SENTINELS = 3
_SETTINGS = ('save ""', "repl-diskless-sync-delay 0", "repl-backlog-size 16mb")


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
        self.port = free_port(below=55_536)
        self.announced_port = self.port
        """Where others reach it: the port of a proxy, if there is one."""
        self.folder = folder
        self.password = password
        self._binary = binary
        self.settings = [*settings]
        self._is_sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None

    def announce(self, port: int) -> None:
        """Let others reach it through a proxy on this port; before its start."""
        self.announced_port = port
        self.settings += ["replica-announce-ip 127.0.0.1", f"replica-announce-port {port}"]

    @property
    def runs(self) -> bool:
        """Whether its process runs, also while it is frozen."""
        return self._process is not None and self._process.poll() is None

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

    def start(self) -> None:
        """Start it, and return when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "node.conf"
        if not config.exists():
            lines = [f"port {self.port}", "bind 127.0.0.1", f'dir "{self.folder}"', "logfile log"]
            lines += [f'requirepass "{self.password}"'] if self.password else []
            config.write_text("\n".join([*lines, *self.settings]) + "\n", encoding="latin-1")
        command = [str(self._binary), str(config), *(["--sentinel"] * self._is_sentinel)]
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

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)


class SentinelGroup:
    """The processes of a service.

    Args:
        binary: the server's executable.
        folder: where they keep their files.
        replicas: how many servers besides the primary.
        settings: further lines of the servers' settings.
        announced: the ports of proxies, one for each server, where all others reach it.
    """

    def __init__(
        self,
        binary: Path,
        folder: Path,
        replicas: int = 1,
        settings: Sequence[str] = (),
        announced: Sequence[int] = (),
    ) -> None:
        settings = [*_SETTINGS, *settings]
        self.servers = [
            Node(binary, folder / f"server{number}", settings) for number in range(replicas + 1)
        ]
        for node, port in zip(self.servers, announced, strict=False):
            node.announce(port)
        first = f"127.0.0.1 {self.servers[0].announced_port}"
        for node in self.servers[1:]:
            node.settings.append(f"replicaof {first}")
        monitor = [
            f"sentinel monitor {SERVICE} {first} 2",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {SERVICE} 5000",
        ]
        self.sentinels = [
            Node(binary, folder / f"sentinel{number}", monitor, sentinel=True)
            for number in range(SENTINELS)
        ]

    @property
    def url(self) -> str:
        """For a store."""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    @property
    def primary(self) -> Node:
        """The server that the Sentinels name."""
        for sentinel in self.sentinels:
            with sentinel.client as client, contextlib.suppress(RedisError, OSError):
                found = cast("Any", client).sentinel_get_master_addr_by_name(SERVICE)
                return next(each for each in self.servers if each.announced_port == found[1])
        raise EmbeddedServerError("none of the group's Sentinels answers")

    def start(self) -> None:
        """Start all of it, and return when a failover is possible."""
        for node in (*self.servers, *self.sentinels):
            node.start()
        self.wait_until_whole()

    def stop(self) -> None:
        """End every process."""
        for node in (*self.sentinels, *self.servers):
            node.kill()

    def fail_over(self) -> None:
        """Ask for an orderly failover."""
        with self.sentinels[0].client as client:
            cast("Any", client).execute_command("SENTINEL", "FAILOVER", SERVICE)

    def wait_for_other_primary(self, old: Node) -> None:
        """Wait until the Sentinels name another primary than ``old``."""
        wait_for(lambda: self.primary is not old, "another primary")

    def wait_until_whole(self) -> None:
        """Wait until every server follows the primary again, and the Sentinels know it.

        A server that was away gets a REPLICAOF from here: Sentinels send it only ten seconds later.
        """
        wait_for(self._are_linked, "the replicas follow the primary")
        wait_for(self._is_complete, "the Sentinels know each other and the replicas")

    def _are_linked(self) -> bool:
        primary, are_linked = self.primary, True
        for server in self.servers:
            if server is primary:
                continue
            with server.client as client:
                seen = cast("Any", client).info("replication")
                if seen.get("master_port") != primary.announced_port:
                    cast("Any", client).replicaof("127.0.0.1", primary.announced_port)
            are_linked &= seen.get("master_link_status") == "up"
        return are_linked

    def _is_complete(self) -> bool:
        for sentinel in self.sentinels:
            with sentinel.client as client:
                seen = cast("Any", client).sentinel_master(SERVICE)
                replicas = cast("Any", client).sentinel_slaves(SERVICE)
            sound = [each for each in replicas if each["master-link-status"] == "ok"]
            if seen["num-other-sentinels"] != len(self.sentinels) - 1:
                return False
            if len(sound) != len(self.servers) - 1:
                return False
        return True


@contextlib.contextmanager
def sentinel_group(
    binary: Path, folder: Path, replicas: int = 1, settings: Sequence[str] = ()
) -> Generator[SentinelGroup]:
    """A running group; its processes end with the block."""
    group = SentinelGroup(binary, folder, replicas, settings)
    try:
        group.start()
        yield group
    finally:
        group.stop()


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


def free_port(below: int = 65_536) -> int:
    """A free port on loopback."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < below:
            return port
