"""A private certificate authority, and a proxy that speaks TLS for servers that do not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates with the openssl command; all files are in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.file = folder / "ca.pem"
        """The certificate that clients must trust."""
        _openssl(
            *("req", "-x509", *KEY, "-days", "2", "-subj", "/CN=tests"),
            *("-keyout", str(folder / "ca.key"), "-out", str(self.file)),
        )

    def sign(self, name: str, subject: str, *, days: int = 2) -> Certificate:
        """Make a certificate for ``DNS:host`` or ``IP:address``; -1 day is one that has expired."""
        key, request, made = (self._folder / f"{name}{end}" for end in (".key", ".csr", ".pem"))
        names = self._folder / f"{name}.ext"
        names.write_text(f"subjectAltName={subject}\n", encoding="ascii")
        _openssl("req", *KEY, "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request))
        _openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.file), "-CAcreateserial"),
            *("-CAkey", str(self._folder / "ca.key"), "-days", str(days)),
            *("-extfile", str(names), "-out", str(made)),
        )
        return Certificate(made, key)

    def context(self, certificate: Certificate, *, asks_clients: bool = False) -> ssl.SSLContext:
        """The TLS context of a server with this certificate.

        Args:
            certificate: the server's.
            asks_clients: whether it takes only clients with a certificate of this authority.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        if asks_clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.file)
        context.load_cert_chain(certificate.certificate, certificate.key)
        return context

    @contextlib.contextmanager
    def server_that_asks_clients(self, certificate: Certificate) -> Generator[int]:
        """A server that refuses clients without a certificate; its port.

        Asyncio's own server closes the connection without the alert that others send.
        """
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        process = subprocess.Popen(
            [
                *("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-Verify", "1"),
                *("-verify_return_error", "-CAfile", str(self.file), "-quiet"),
                *("-cert", str(certificate.certificate), "-key", str(certificate.key)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while process.poll() is None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.01)
            yield port
        finally:
            process.kill()
            process.wait()


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@contextlib.asynccontextmanager
async def tls_front(
    upstream: tuple[str, int], context: ssl.SSLContext
) -> AsyncGenerator[tuple[int, list[None]]]:
    """Speak TLS before a server; the port, and a list that grows with each connection."""
    connections: list[None] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        connections.append(None)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            up_reader, up_writer = await asyncio.open_connection(*upstream)
            pumps = [
                asyncio.create_task(_pump(reader, up_writer)),
                asyncio.create_task(_pump(up_reader, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                up_writer.transport.abort()
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        writer.transport.abort()
        tasks.discard(task)

    # A handshake that a test lets fail does not reach the loop's exception handler.
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], connections
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
