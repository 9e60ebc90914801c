"""Runs on their way to or from a file: how export writes, how import reads, what was moved."""

from __future__ import annotations

import asyncio
import os
import shlex
import stat
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

from rich.console import Console

from murmur_streams.cli.shell.printing import print_message, printable
from murmur_streams.core.archive.lines import LONGEST_HEADER_BYTES, ArchiveDecoder, header, lines
from murmur_streams.core.archive.run_archive import RunArchive
from murmur_streams.core.model.errors import InvalidArchiveError, StoreConfigurationError

LONGEST_LINE_BYTES = 512 * 1024 * 1024
"""A line with three payloads, each at its limit."""
CHUNK_BYTES = 1024 * 1024
_GZIP = b"\x1f\x8b"
SHOWN_IDS = 10


class RunWriter:
    """Writes runs to a file, one after another."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = stream, name
        self.bytes = 0

    def begin(self, of: Mapping[str, object]) -> None:
        """Write the first line; ``of``: the selection of runs."""
        self._write([header(of)])

    def write(self, archive: RunArchive) -> None:
        """Write one run; between two calls the file ends with a whole run."""
        self._write(lines(archive))

    def finish(self) -> None:
        """Flush to the disk, so that the file survives a loss of power."""
        with file_errors(self._name):
            self._stream.flush()
            if stat.S_ISREG(os.fstat(self._stream.fileno()).st_mode):
                os.fsync(self._stream.fileno())

    def _write(self, texts: Iterator[str] | list[str]) -> None:
        with file_errors(self._name):
            for text in texts:
                raw = text.encode()
                self._stream.write(raw)
                self.bytes += len(raw)
            self._stream.flush()


@contextmanager
def writing(path: Path | None, size: int | None) -> Generator[RunWriter]:
    """Open the file or the stdout that an export writes to.

    Args:
        path: a new file; None for stdout.
        size: continue after so many bytes of the file, and cut off the rest; None: create it.

    Raises:
        StoreConfigurationError: the file cannot be written, or exists and should not.
    """
    if path is None:
        yield RunWriter(sys.stdout.buffer, "stdout")
        return
    check_plain(path)
    with file_errors(str(path)):
        stream = path.open("xb" if size is None else "r+b")
    try:
        with file_errors(str(path)):
            stream.truncate(size or 0)
            stream.seek(size or 0)
        yield RunWriter(stream, str(path))
    except BaseException:
        # Closing flushes again: on a full disk it would fail again, and hide the first error.
        with suppress(OSError):
            stream.close()
        raise
    with file_errors(str(path)):
        stream.close()


def check_plain(path: Path) -> None:
    """Raise StoreConfigurationError for a folder, a pipe or a device."""
    with file_errors(str(path)):
        try:
            kind = path.stat().st_mode
        except FileNotFoundError:
            return
    if stat.S_ISDIR(kind):
        raise StoreConfigurationError(f"{path} is a folder: name a file in it")
    if not stat.S_ISREG(kind):
        raise StoreConfigurationError(
            f"{path} is a pipe or a device: leave -o out, and send stdout there"
        )


class RunReader:
    """Reads the runs of a file or a pipe, one at a time; a context that closes it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.name = "stdin" if path is None else str(path)
        self.bytes = 0
        with file_errors(self.name):
            self._stream = sys.stdin.buffer if path is None else path.open("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._path is not None:
            self._stream.close()

    async def runs(self) -> AsyncGenerator[RunArchive]:
        """Yield run after run.

        Raises:
            InvalidArchiveError: the file is damaged, cut off or not an export; the runs that were
                yielded before are whole.
        """
        decoder = ArchiveDecoder()
        async with aclosing(self._lines()) as lines_of_file:
            async for line in lines_of_file:
                if not self.bytes:
                    self._check_first(line)
                self.bytes += len(line)
                with self._named():
                    archive = decoder.feed(line)
                if archive is not None:
                    yield archive
        with self._named():
            decoder.end()

    def _check_first(self, line: bytes) -> None:
        if line.startswith(_GZIP):
            file = "FILE" if self._path is None else shlex.quote(self.name)
            raise InvalidArchiveError(
                f"{self.name}: it is compressed: gunzip -c {file} | murmur-streams import"
            )

    @contextmanager
    def _named(self) -> Generator[None]:
        try:
            yield
        except InvalidArchiveError as error:
            raise type(error)(f"{self.name}: {error}") from None

    async def _lines(self) -> AsyncGenerator[bytes]:
        parts, size = list[bytes](), 0
        while chunk := await self._chunk():
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                yield b"".join((*parts, end, b"\n"))
                parts, size = [], 0
            parts.append(rest)
            size += len(rest)
            # Another kind of file may be one endless line: the header is at most so long.
            if size > (LONGEST_LINE_BYTES if self.bytes else LONGEST_HEADER_BYTES):
                break
        if size:
            yield b"".join(parts)

    async def _chunk(self) -> bytes:
        descriptor = self._stream.fileno()
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):
            # A blocking read of a pipe would hold up Ctrl-C.
            loop = asyncio.get_running_loop()
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_reader(descriptor, lambda: ready.done() or ready.set_result(None))
            try:
                await ready
            finally:
                loop.remove_reader(descriptor)
        with file_errors(self.name):
            return os.read(descriptor, CHUNK_BYTES)


@contextmanager
def file_errors(name: str) -> Generator[None]:
    """Turn an OSError into StoreConfigurationError; a write to stdout raises OutputError itself."""
    try:
        yield
    except FileExistsError:
        raise StoreConfigurationError(
            f"{name} is there already: go on with it by --resume, or choose another name"
        ) from None
    except OSError as error:
        raise StoreConfigurationError(f"{name}: {error.strerror or error}") from None


@dataclass(slots=True)
class TransferCounts:
    """Counts of one export or import."""

    runs: int = 0
    """Transferred by this command."""
    entries: int = 0
    bytes: int = 0
    skipped: int = 0
    """Already complete at the destination."""
    gone: int = 0
    """Expired or deleted since they were listed."""
    wrong: list[str] = field(default_factory=list[str])
    """Damaged runs: left out of an export, or not clean after an import."""
    has_begun: bool = False
    """Whether the file exists, so that --resume can continue it."""
    reads: bool = False
    """Whether the bytes were read, not written."""
    began: float = field(default_factory=time.monotonic)
    show: Callable[[], None] = lambda: None
    """Shows the current counts, where ``shown`` has put them on the screen."""

    def add(self, entries: int) -> None:
        """Count a transferred run."""
        self.runs += 1
        self.entries += entries

    @property
    def seconds(self) -> float:
        """The time since it began."""
        return time.monotonic() - self.began

    @property
    def text(self) -> str:
        """The counts for people."""
        text = f"{_counted(self.runs, 'run', 'runs')}, "
        text += f"{_counted(self.entries, 'entry', 'entries')}, {_size(self.bytes)}"
        text += " read" if self.reads else ""
        text += f", {self.skipped:,} there already" if self.skipped else ""
        return text + (f", {self.gone:,} gone meanwhile" if self.gone else "")

    @property
    def text_with_rate(self) -> str:
        """The counts and their rates."""
        seconds = max(self.seconds, 0.001)
        return f"{self.text}  ({self.runs / seconds:,.0f} runs/s, {_size(self.bytes / seconds)}/s)"

    def json(self) -> dict[str, Any]:
        """The counts for programs."""
        return {
            "runs": self.runs,
            "entries": self.entries,
            "bytes": self.bytes,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 3),
        }


@contextmanager
def shown(counts: TransferCounts) -> Generator[None]:
    """Show the counts on stderr while the block runs, and clear them; only on a terminal."""
    with Console(stderr=True).status(counts.text) as status:
        counts.show = lambda: status.update(counts.text_with_rate)
        yield


def print_run_ids(what: str, run_ids: list[str]) -> None:
    """Print the first of the ids on stderr, and how many more there are; nothing without ids."""
    if not run_ids:
        return
    names = ", ".join(run_ids[:SHOWN_IDS])
    more = len(run_ids) - SHOWN_IDS
    print_message(f"{what}: {printable(names)}" + (f" and {more:,} more" if more > 0 else ""))


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004  # the step between the units
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
