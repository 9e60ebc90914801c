"""A worker as a process: its id, its name, and the signals of the children of its agents."""

from __future__ import annotations

import functools
import os
import re
import secrets
import signal
import socket
import threading

from murmur_streams.core.model.errors import InvalidInputError

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9._-]")
_EVENT_LOOPS = frozenset({"asyncio", "uvloop"})


def host_name() -> str:
    """This machine's name, limited to the characters of a worker's id."""
    return _NOT_IN_AN_ID.sub("-", socket.gethostname()).lstrip("._-")[:60] or "host"


def worker_id_of(given: str | None) -> str:
    """Check the id that the user gave, or make one of host, process id and four random digits.

    Raises:
        InvalidInputError: the id breaks the rules.
    """
    if given is None:
        # At most 64 characters: a longer value doubles the memory of a run's hash. The names of
        # pods differ at their end.
        host = host_name()[-48:].lstrip("._-")
        return f"{host}-{os.getpid()}-{secrets.token_hex(2)}"
    if _ID.fullmatch(given):
        return given
    raise InvalidInputError(
        f"worker id {ascii(given)[:60]} is refused: use 1 to 128 characters of "
        "A-Z a-z 0-9 . _ - that begin with a letter or a digit"
    )


def name_of(worker_id: str) -> str:
    """A name that no other process has, even with the same worker id; it names control streams."""
    return f"{worker_id}.{secrets.token_hex(4)}"


@functools.cache
def let_go_of_children() -> None:
    """From now on, give each forked child signal handlers of its own.

    A child inherits the event loop's signal handlers and the descriptor that wakes the loop. When
    an agent forks (``multiprocessing``, a ``Pool``, ``os.fork``) and terminates its child, that
    child's SIGTERM is written into the parent's loop, and the worker stops as if it had been its
    own. From Python 3.12 on the descriptor is gone, but the handler stays: the child ignores the
    signal, and a parent that joins it waits for ever. So the child gets the default handlers back.
    A signal may come before the child has done that: all are blocked until then.
    """
    if not hasattr(os, "register_at_fork"):
        return  # Windows has no fork.
    before = threading.local()

    def block_signals() -> None:
        before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def unblock_signals() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    def forget_the_loop() -> None:
        signal.set_wakeup_fd(-1)
        loops = {each for each in signal.valid_signals() if _is_of_loop(signal.getsignal(each))}
        for number in loops:
            signal.signal(number, signal.SIG_DFL)
        unblock_signals()
        if signal.SIGINT in loops:
            # After the others: a KeyboardInterrupt that is raised in here is lost.
            signal.signal(signal.SIGINT, signal.default_int_handler)

    os.register_at_fork(
        before=block_signals, after_in_parent=unblock_signals, after_in_child=forget_the_loop
    )


def _is_of_loop(handler: object) -> bool:
    # asyncio's runner installs a partial of its method.
    function = getattr(handler, "func", handler)
    return str(getattr(function, "__module__", "")).partition(".")[0] in _EVENT_LOOPS
