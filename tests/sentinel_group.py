"""Three Sentinels, a primary and replicas, on loopback ports: a service that can fail over."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError

from tests.server_choice import own_settings, server_binary

SERVICE = "runs"
DOWN_AFTER_MS = 1_000
PATIENCE_SECONDS = 30.0


class Node:
    """One process of the group."""

    def __init__(self, folder: Path, *arguments: str, sentinel: bool = False) -> None:
        self.port = free_port()
        self.folder = folder
        self._arguments = arguments
        self._is_sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def client(self) -> Redis:
        """A plain client; the caller closes it."""
        return Redis(host="127.0.0.1", port=self.port, socket_timeout=5, protocol=2)

    def start(self) -> None:
        """Start it, and return when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "node.conf"
        if not config.exists():
            lines = [f"port {self.port}", "bind 127.0.0.1", f'dir "{self.folder}"', "logfile log"]
            config.write_text("\n".join([*lines, *self._arguments]) + "\n", encoding="latin-1")
        command = [str(server_binary()), str(config), *(["--sentinel"] * self._is_sentinel)]
        self._process = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.DEVNULL, start_new_session=True
        )
        wait_for(self.answers, f"the node on port {self.port} answers")

    def answers(self) -> bool:
        with self.client as client, contextlib.suppress(RedisError, OSError):
            return bool(cast("Any", client).ping())
        return False

    def kill(self) -> None:
        """End it with SIGKILL, also while it is frozen."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop it: it keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class SentinelGroup:
    """The processes of a service.

    Args:
        folder: where they keep their files; its path should be short.
        replicas: how many servers besides the primary.
    """

    def __init__(self, folder: Path, replicas: int = 1) -> None:
        settings = ['save ""', "repl-diskless-sync-delay 0", "repl-backlog-size 16mb"]
        settings += [f"{name} {value}" for name, value in own_settings().items()]
        self.servers = [Node(folder / "server0", *settings)]
        first = f"127.0.0.1 {self.servers[0].port}"
        for number in range(1, replicas + 1):
            self.servers.append(Node(folder / f"server{number}", f"replicaof {first}", *settings))
        monitor = [
            f"sentinel monitor {SERVICE} {first} 2",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {SERVICE} 5000",
        ]
        self.sentinels = [
            Node(folder / f"sentinel{number}", *monitor, sentinel=True) for number in range(3)
        ]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    @property
    def primary(self) -> Node:
        """The server that the Sentinels name."""
        for sentinel in self.sentinels:
            with sentinel.client as client, contextlib.suppress(RedisError, OSError):
                found = cast("Any", client).sentinel_get_master_addr_by_name(SERVICE)
                return next(each for each in self.servers if each.port == found[1])
        raise AssertionError("no Sentinel answers")

    def start(self) -> None:
        """Start all of it, and return when a failover is possible."""
        for server in self.servers:
            server.start()
        # Sentinels look at a replica every ten seconds: it should be linked when they begin.
        wait_for(self._are_linked, "the replicas follow the primary")
        for sentinel in self.sentinels:
            sentinel.start()
        wait_for(self._is_complete, "the Sentinels know each other and the replicas")

    def stop(self) -> None:
        for node in (*self.sentinels, *self.servers):
            node.kill()

    def fail_over(self) -> None:
        """Ask for an orderly failover."""
        with self.sentinels[0].client as client:
            cast("Any", client).execute_command("SENTINEL", "FAILOVER", SERVICE)

    def _are_linked(self) -> bool:
        for server in self.servers[1:]:
            with server.client as client:
                seen = cast("Any", client).info("replication")
            if seen["master_link_status"] != "up":
                return False
        return True

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
def sentinel_group(folder: Path, replicas: int = 1) -> Generator[SentinelGroup]:
    """A running group."""
    group = SentinelGroup(folder, replicas)
    try:
        group.start()
        yield group
    finally:
        group.stop()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds; an AssertionError after half a minute."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_SECONDS:g} s"
        time.sleep(0.05)


def free_port() -> int:
    """A free port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
