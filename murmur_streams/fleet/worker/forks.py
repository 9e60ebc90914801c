"""Forked children of agents get signal handlers of their own, so that a signal stops only them."""

from __future__ import annotations

import functools
import os
import signal
import threading

_EVENT_LOOPS = frozenset({"asyncio", "uvloop"})


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
