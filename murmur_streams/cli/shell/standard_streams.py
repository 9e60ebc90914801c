"""The process's stdin, stdout and stderr: closed ones, full disks, and readers that have ended.

A failed write to stdout raises OutputError, which only ``main`` handles. An OSError would be
handled in between: click and rich exit with 1 for a broken pipe, Python prints a traceback. A
failed write to stderr is dropped: it cannot be reported anywhere, and the exit code still counts.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from typing_extensions import Buffer

FAILED, BROKEN_PIPE = 1, 141
_STDIN, _STDOUT, _STDERR = range(3)


class OutputError(Exception):
    """Stdout cannot be written: its reader has ended, or its disk is full."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"stdout: {error.strerror or error}")
        self.is_broken_pipe = error.errno == errno.EPIPE


class _Stdout(io.FileIO):
    def write(self, data: Buffer, /) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error) from None


class _Stderr(io.FileIO):
    def write(self, data: Buffer, /) -> int | None:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def prepare() -> None:
    """Make the three streams safe to use.

    A closed one becomes /dev/null. Otherwise the next file or socket that the process opens would
    get its number, and a library that prints would write into that file.
    """
    for number in (_STDIN, _STDOUT, _STDERR):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It gets the lowest free number, which is this one.
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]  # it was closed
        sys.stdin = open(_STDIN, encoding="utf-8", closefd=False)  # noqa: SIM115  # it stays open
    sys.stdout = _over(_Stdout, _STDOUT, sys.stdout)
    sys.stderr = _over(_Stderr, _STDERR, sys.stderr)


def give_up(error: OutputError) -> int:
    """Report why stdout cannot be written, unless its reader has ended; returns the exit code."""
    # Python flushes the buffer at the end of the process, which would fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
    if error.is_broken_pipe:
        return BROKEN_PIPE
    if "--json" in sys.argv[1:]:
        report = {"error": "OutputError", "message": str(error), "exit_code": FAILED}
        print(json.dumps(report, ensure_ascii=False), file=sys.stderr)
    else:
        print(f"murmur-streams: {error}", file=sys.stderr)
    return FAILED


def _over(kind: type[io.FileIO], number: int, stream: TextIO | None) -> TextIO:
    """A text stream on the descriptor, with the settings of the stream that Python made."""
    buffer = getattr(stream, "buffer", None)
    is_unbuffered = isinstance(buffer, io.FileIO)  # by PYTHONUNBUFFERED
    raw = buffer if is_unbuffered else getattr(buffer, "raw", None)
    if stream is not None and type(raw) is not io.FileIO:
        # A console of Windows, or the replacement of a test: it is left as it is.
        return stream
    file = kind(number, "w", closefd=False)
    return io.TextIOWrapper(
        cast("io.BufferedWriter", file) if is_unbuffered else io.BufferedWriter(file),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        # A terminal that cannot show a character gets an escape instead of a traceback.
        errors="backslashreplace",
        line_buffering=number == _STDERR or getattr(stream, "line_buffering", False),
        write_through=is_unbuffered,
    )
