"""Turns any exception into text, for journals, logs and the errors of callers.

While an exception is turned into text, its own code runs: ``__str__``, ``__notes__``,
``__getattr__``, a property, a metaclass. All of these may raise anything. The functions here always
return, and leave out what they cannot read. They read an exception's type, frames, cause and
members by the descriptors of the built-in classes, which no subclass can replace.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any, cast

from murmur_streams.core.model.errors import RemoteAgentError
from murmur_streams.core.model.limits import MAX_ERROR_CHARACTERS

MAX_TRACEBACK_BYTES = 8_192
MAX_TYPE_CHARACTERS = 255
UNREADABLE = "(its text cannot be read)"
_MOST_LEAVES = 20
"""The message of a group has the texts of at most this many exceptions."""
_LEAF_CHARACTERS = 1_000
_MOST_CAUSES = 20

_TYPE_NAME: Any = type.__dict__["__name__"]
_TRACEBACK: Any = BaseException.__traceback__
_CAUSE: Any = BaseException.__cause__
_CONTEXT: Any = BaseException.__context__
_SUPPRESS_CONTEXT: Any = BaseException.__suppress_context__
_MEMBERS: Any = BaseExceptionGroup.exceptions


def error_type_name(error: BaseException) -> str:
    """The name of an error's type, also of one that came through several processes."""
    name = _remote(error, "type_name") or _plain(_TYPE_NAME.__get__(type(error)))
    return name[:MAX_TYPE_CHARACTERS]


def error_message(error: BaseException) -> str:
    """The message of an error, cut to its limit. A group's message has those of its leaves."""
    text = _own_text(error)
    if is_group(error):
        text = f"{text}: {_leaves(error)}"
    return text[:MAX_ERROR_CHARACTERS]


def describe_error(error: BaseException) -> str:
    """The type and the message of an error in one text, for logs."""
    name, message = error_type_name(error), error_message(error)
    return f"{name}: {message}" if message else name


def error_traceback(error: BaseException) -> str | None:
    """The end of the traceback that came with an error of another process; None for others."""
    text = _remote(error, "traceback")
    return _end_of(text) if text else None


def format_traceback(error: BaseException, first: TracebackType | None = None) -> str:
    """The end of an error's traceback, with its causes.

    Args:
        error: any exception.
        first: its first frame to show; None for all of them.
    """
    frames = first or traceback_of(error)
    try:
        return _end_of("".join(traceback.format_exception(type(error), error, frames)))
    except BaseException:  # noqa: BLE001  # the exception's own code may raise anything
        return _end_of(_plain_traceback(error, frames))


def as_data(error: BaseException, first: TracebackType | None = None) -> RemoteAgentError:
    """An exception of any kind as text that every store takes; arguments as format_traceback."""
    is_remote = issubclass(type(error), RemoteAgentError)
    frames = error_traceback(error) if is_remote else format_traceback(error, first)
    return RemoteAgentError(error_type_name(error), error_message(error), frames)


def traceback_of(error: BaseException) -> TracebackType | None:
    """The frames that an error came through."""
    return cast("TracebackType | None", _TRACEBACK.__get__(error))


def cause_of(error: BaseException) -> BaseException | None:
    """The error that this one was explicitly raised from; None without one."""
    return cast("BaseException | None", _CAUSE.__get__(error))


def is_group(error: BaseException) -> bool:
    """Whether an error is a group of others."""
    return issubclass(type(error), BaseExceptionGroup)


def members_of(error: BaseException) -> tuple[BaseException, ...]:
    """The exceptions of a group; none of any other error."""
    if not is_group(error):
        return ()
    return cast("tuple[BaseException, ...]", _MEMBERS.__get__(error))


def _own_text(error: BaseException) -> str:
    message = _remote(error, "message")
    if message is not None:
        return message
    try:
        return _plain(str.__str__(str(error))[:MAX_ERROR_CHARACTERS])
    except BaseException:  # noqa: BLE001  # the exception's own code may raise anything
        return UNREADABLE


def _remote(error: BaseException, name: str) -> str | None:
    """An attribute of an error of another process; None for other errors, or if it is not text.

    A subclass may have replaced the attribute by anything.
    """
    if not issubclass(type(error), RemoteAgentError):
        return None
    try:
        value: object = getattr(error, name)
        return _plain(value) if issubclass(type(value), str) else None
    except BaseException:  # noqa: BLE001  # the exception's own code may raise anything
        return None


def _plain(text: object) -> str:
    """A text as a plain ``str`` of valid Unicode.

    A path from the file system, for example, may hold lone surrogates.
    """
    return str.__str__(cast("str", text)).encode("utf-8", "backslashreplace").decode()


def _leaves(group: BaseException) -> str:
    shown: list[str] = []
    more = 0
    for leaf in _walked(group):
        if len(shown) == _MOST_LEAVES:
            more += 1
            continue
        name, text = error_type_name(leaf), _own_text(leaf)
        text = text if len(text) <= _LEAF_CHARACTERS else f"{text[:_LEAF_CHARACTERS]}…"
        shown.append(f"{name}: {text}" if text else name)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _walked(group: BaseException) -> Iterator[BaseException]:
    """The leaves of a group, in order, however deep it is nested."""
    waiting = [group]
    while waiting:
        error = waiting.pop()
        members = members_of(error)
        if members:
            waiting.extend(reversed(members))
        else:
            yield error


def _plain_traceback(error: BaseException, frames: TracebackType | None) -> str:
    """Frames, type and text of an error and its causes, without notes and other additions."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None and len(parts) < _MOST_CAUSES:
        parts.append(f"{_frames_text(frames)}{describe_error(current)}\n")
        context = None if _SUPPRESS_CONTEXT.__get__(current) else _CONTEXT.__get__(current)
        current = cause_of(current) or cast("BaseException | None", context)
        frames = None if current is None else traceback_of(current)
    return "\nThe above exception led to the following one:\n\n".join(reversed(parts))


def _frames_text(frames: TracebackType | None) -> str:
    try:
        lines = traceback.format_tb(frames) if frames is not None else []
    except BaseException:  # noqa: BLE001  # source lines come from loaders of any make
        return ""
    return "Traceback (most recent call last):\n" + "".join(lines) if lines else ""


def _end_of(text: str) -> str:
    # The end has the innermost frames and the error itself.
    raw = text.encode("utf-8", "backslashreplace")
    return raw[-MAX_TRACEBACK_BYTES:].decode("utf-8", "ignore")
