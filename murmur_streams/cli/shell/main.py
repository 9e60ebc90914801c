"""The entry point of ``murmur-streams`` and ``mstreams``, and the process's three streams.

The streams may be closed, on a full disk, or read by a program that has ended. A failed write to
stdout raises OutputError, which only ``main`` handles. An OSError would be handled in between:
click and rich exit with 1 for a broken pipe, Python prints a traceback. A failed write to stderr is
dropped: it cannot be reported anywhere, and the exit code still counts.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from typing_extensions import Buffer

FAILED, INTERRUPTED, BROKEN_PIPE = 1, 130, 141
_STDIN, _STDOUT, _STDERR = range(3)


def main() -> None:
    """Run the command line, and end with its exit code."""
    _prepare_streams()
    try:
        try:
            _run()
        finally:
            sys.stdout.flush()
    except OutputError as error:
        raise SystemExit(_give_up(error)) from None


def _run() -> None:
    """Run the command line; without the extra ``cli``, print what to install."""
    try:
        from murmur_streams.cli.shell.app import app
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        print(
            "murmur-streams: the command line needs typer and rich: "
            "pip install 'murmur-streams[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        # The imports take half a second; after them, typer and the commands handle Ctrl-C.
        raise SystemExit(INTERRUPTED) from None
    if "--json" not in sys.argv[1:]:
        app(prog_name="murmur-streams")
    raise SystemExit(_answer_in_json(app))


def _answer_in_json(app: Callable[..., int | None]) -> int:
    """Run a command for a program: errors of usage are JSON, too."""
    try:
        return app(prog_name="murmur-streams", standalone_mode=False) or 0
    except Exception as error:
        message: Callable[[], str] | None = getattr(error, "format_message", None)
        if message is None:
            raise
        from murmur_streams.cli.shell.command import USAGE, error_json

        print(error_json("UsageError", message(), USAGE), file=sys.stderr)
        return USAGE


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


def _prepare_streams() -> None:
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


def _give_up(error: OutputError) -> int:
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
