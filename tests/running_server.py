"""The chosen server, running: on a socket in a temporary folder, a service, or in a container."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

from redis import Redis

from murmur_streams.embedded import ensure_server, stop_server
from murmur_streams.embedded.launch import config_text
from murmur_streams.embedded.node import wait_for
from tests.cluster_service import running_cluster
from tests.sentinel_service import sentinel_service
from tests.server_choice import (
    CLUSTER,
    DOCKER,
    EMBEDDED,
    SENTINEL,
    chosen,
    own_settings,
    server_binary,
)


@contextlib.contextmanager
def running_server(folder: Path) -> Generator[tuple[str, Redis]]:
    """The chosen server: its URL, and a client that may do everything."""
    name = chosen()
    if name.startswith(SENTINEL):
        with (
            short_folder() as short,
            sentinel_service(short) as group,
            group.primary.client as admin,
        ):
            yield group.url, admin
        return
    if name.startswith(CLUSTER):
        with short_folder() as short, running_cluster(short) as cluster:
            yield cluster
        return
    if name == EMBEDDED:
        server = _embedded(folder)
    elif name.startswith(DOCKER):
        server = _container(name.removeprefix(DOCKER))
    else:
        server = _process(server_binary(name))
    with server as url:
        # The embedded server ends when it has no client; this one keeps it alive.
        admin = Redis.from_url(url)
        try:
            wait_for(lambda: bool(cast("Any", admin).ping()), "the server answers")
            yield url, admin
        finally:
            admin.close()


@contextlib.contextmanager
def _embedded(folder: Path) -> Generator[str]:
    try:
        yield ensure_server(folder).url
    finally:
        stop_server(folder)


@contextlib.contextmanager
def _process(binary: Path) -> Generator[str]:
    with short_folder() as folder:
        yield from _process_in(folder, binary)


def _process_in(folder: Path, binary: Path) -> Generator[str]:
    socket, config = folder / "s", folder / "server.conf"
    # Every version knows each of these settings.
    text = config_text(folder, socket)
    for setting, value in own_settings().items():
        text += f"\n{setting} {value}\n"
    config.write_text(text, encoding="latin-1")
    process = subprocess.Popen(
        [str(binary), str(config)], cwd=folder, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield f"unix://{socket}"
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def short_folder() -> Generator[Path]:
    """A folder with a short name: a socket's path has at most about a hundred bytes."""
    folder = Path(tempfile.mkdtemp(prefix="murmur-test-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _container(image: str) -> Generator[str]:
    from testcontainers.core.container import DockerContainer

    container: Any = DockerContainer(image).with_exposed_ports(6379)
    with container:
        host, port = container.get_container_host_ip(), container.get_exposed_port(6379)
        yield f"redis://{host}:{port}/0"
