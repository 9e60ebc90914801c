"""The embedded server as its users see it: ensure that it runs, look at it, stop it."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from murmur_streams.core.model.errors import EmbeddedServerError
from murmur_streams.embedded import folder as data_folder
from murmur_streams.embedded.keeper import LOG, ServerConnection, field
from murmur_streams.embedded.launch import launch_keeper

IDLE_SECONDS = 30.0
# The promise is 60 s from the last client to the last process: ticks and the shutdown count, too.
LONGEST_IDLE_SECONDS = 40.0
_ANSWER_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running server. It may end when it has had no client for the idle time."""

    data_dir: Path
    """The folder of its data, as an absolute path without links."""
    socket_path: Path
    pid: int
    """Of the server itself, in its own PID namespace."""

    @property
    def url(self) -> str:
        """For ``redis.from_url`` and its like."""
        from urllib.parse import quote  # Slow; a program with URLs has it.

        return f"unix://{quote(str(self.socket_path))}?db=0"


def ensure_server(
    data_dir: Path, *, timeout_seconds: float = 15.0, idle_seconds: float = IDLE_SECONDS
) -> EmbeddedServer:
    """Attach to the folder's server, or start it; blocks until it has read its data and answers.

    Any number of processes may call this at the same moment: one server starts. Connect within
    ``idle_seconds`` and call this again before each reconnect, since a server without clients ends
    after ``idle_seconds`` (at most 40; heeded by the call that starts the server).

    Raises EmbeddedServerError when the server cannot be found, started or reached within
    ``timeout_seconds``, and ValueError for times that make no sense.
    """
    if not 0 < idle_seconds <= LONGEST_IDLE_SECONDS:
        raise ValueError(f"idle_seconds must be over 0 and at most 40, not {idle_seconds}")
    if not 0 < timeout_seconds < math.inf:
        raise ValueError(f"timeout_seconds must be over 0 and finite, not {timeout_seconds}")
    folder = data_folder.real_folder(data_dir)
    return _attach(folder) or _start(folder, timeout_seconds, idle_seconds)


async def ensure_server_async(
    data_dir: Path, *, timeout_seconds: float = 15.0, idle_seconds: float = IDLE_SECONDS
) -> EmbeddedServer:
    """:func:`ensure_server` in a thread; when cancelled, the start goes on in the background."""
    from murmur_streams.threads import call_in_thread

    # Not in the loop's executor: agents may have filled it when a server must be started again.
    return await call_in_thread(
        "embedded server",
        lambda: ensure_server(data_dir, timeout_seconds=timeout_seconds, idle_seconds=idle_seconds),
    )


def server_status(data_dir: Path) -> EmbeddedServer | None:
    """The folder's server, if it runs (it may still be reading its data); starts nothing.

    Raises EmbeddedServerError when the folder is another user's, or no folder.
    """
    return _look(data_folder.real_folder(data_dir))[0]


def stop_server(data_dir: Path, *, timeout_seconds: float = 15.0) -> bool:
    """Shut the folder's server down cleanly and wait until its processes are gone.

    Clients that are connected lose their connection; a keep marker is removed. Returns False
    when no server ran. Raises EmbeddedServerError when it still runs after ``timeout_seconds``.
    """
    folder = data_folder.real_folder(data_dir)
    if not data_folder.folder_exists(folder):
        return False
    data_folder.set_keep(folder, False)
    deadline = time.monotonic() + timeout_seconds
    ran = False
    while data_folder.is_locked(folder):
        ran = True
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"the embedded server in {str(folder)!r} still runs after {timeout_seconds:g} s: "
                f"see {str(folder / LOG)!r}, then try again"
            )
        _ask_to_shut_down(folder)
        time.sleep(0.01)
    return ran


def _ask_to_shut_down(folder: Path) -> None:
    """Send SHUTDOWN if the server can be reached; one that starts or ends is left alone."""
    if (socket_path := data_folder.current_socket(folder)) is None:
        return
    try:
        with closing(ServerConnection(str(socket_path), _ANSWER_SECONDS)) as connection:
            refusal = connection.ask("SHUTDOWN")
    except OSError:
        return  # It cannot be reached, or the end of the connection is its answer to SHUTDOWN.
    raise EmbeddedServerError(
        f"the embedded server in {str(folder)!r} refuses to shut down ({refusal}): "
        f"see {str(folder / LOG)!r}, free the disk if it is full, then try again"
    )


def _attach(folder: Path) -> EmbeddedServer | None:
    """The folder's server, if it is ready for commands."""
    server, is_loading = _look(folder)
    return None if is_loading else server


def _look(folder: Path) -> tuple[EmbeddedServer | None, bool]:
    """The folder's server if it answers, and whether it is still reading its data."""
    if (
        not data_folder.folder_exists(folder)
        or (socket_path := data_folder.current_socket(folder)) is None
    ):
        return None, False
    try:
        with closing(ServerConnection(str(socket_path), _ANSWER_SECONDS)) as connection:
            is_loading = connection.ask("PING").startswith("-LOADING")
            pid = field(connection.ask("INFO server"), "process_id")
    except OSError:
        return None, False
    if pid is None:
        return None, False
    return EmbeddedServer(folder, socket_path, pid), is_loading


def _start(folder: Path, timeout_seconds: float, idle_seconds: float) -> EmbeddedServer:
    """Launch keepers until one's server answers: each may lose a race with another, or an end."""
    deadline = time.monotonic() + timeout_seconds
    data_folder.prepare_folder(folder)
    pause = 0.005
    while True:
        if not data_folder.is_locked(folder):
            launch_keeper(folder, idle_seconds, deadline)
        if (server := _attach(folder)) is not None:
            return server
        if time.monotonic() > deadline:
            raise _no_answer(folder, timeout_seconds)
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def _no_answer(folder: Path, timeout_seconds: float) -> EmbeddedServerError:
    """The error for a server that is not ready in time, by what can be seen of it."""
    head = f"the embedded server in {str(folder)!r} was not ready within {timeout_seconds:g} s: "
    log = f"see {str(folder / LOG)!r}"
    if _look(folder)[1]:
        return EmbeddedServerError(head + "it is still reading its data; wait, then try again")
    if data_folder.is_locked(folder):
        return EmbeddedServerError(
            head + "another process holds the folder's lock but its server does not answer (does "
            f"another machine share the folder?); {log}, end that process, then try again"
        )
    return EmbeddedServerError(head + f"it ended each time it was started; {log}, then try again")
