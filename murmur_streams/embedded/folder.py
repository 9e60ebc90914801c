"""The data folder: where it is by default, who may use it, and whether a server holds it."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

from murmur_streams.core.model.errors import EmbeddedServerError
from murmur_streams.embedded.keeper import KEEP, LOCK
from murmur_streams.settings import variable

_NAME = "murmur-streams"
_OURS = frozenset({LOCK, "server.sock", "appendonlydir"})
_ELSEWHERE = "choose another folder with MURMUR_DATA_DIR, or set MURMUR_URL to a running server"
_WHAT_TO_DO = {
    errno.EROFS: "it is on a read-only file system; " + _ELSEWHERE,
    errno.EACCES: "this user may not enter or write it; " + _ELSEWHERE,
    errno.EPERM: "this user may not enter or write it; " + _ELSEWHERE,
    errno.ENOSPC: "the disk is full; free some space, or " + _ELSEWHERE,
    errno.EDQUOT: "the disk quota is used up; free some space, or " + _ELSEWHERE,
    errno.ENOTDIR: "a part of the path is a file; " + _ELSEWHERE,
    errno.EEXIST: "it is a file, not a folder; " + _ELSEWHERE,
    errno.ENAMETOOLONG: "the path is too long; " + _ELSEWHERE,
}


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """MURMUR_DATA_DIR of ``environ``, else ``murmur-streams`` in the user's data folder.

    Creates nothing. Raises EmbeddedServerError when the user has no home folder.
    """
    chosen = variable("data_dir").read(environ)
    if isinstance(chosen, Path):
        return _expanded(chosen)
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or _home(environ) / "AppData" / "Local") / _NAME
    if sys.platform == "darwin":
        return _home(environ) / "Library" / "Application Support" / _NAME
    xdg = Path(environ.get("XDG_DATA_HOME", ""))
    # A relative one is invalid by the XDG rules, and would differ from folder to folder.
    return (xdg if xdg.is_absolute() else _home(environ) / ".local" / "share") / _NAME


def _home(environ: Mapping[str, str]) -> Path:
    home = Path(environ.get("HOME", ""))
    return home if home.is_absolute() else _expanded(Path("~"))


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise EmbeddedServerError(
            "this user has no home folder for the data: set MURMUR_DATA_DIR to a folder, "
            "or MURMUR_URL to a running server"
        ) from None


def require_unix() -> None:
    """Raise EmbeddedServerError on a system without unix sockets and file locks (Windows)."""
    if sys.platform == "win32":
        raise EmbeddedServerError(
            "the embedded server does not run on Windows: set MURMUR_URL to a running Redis or "
            "Valkey (WSL or a container will do), or to sqlite:runs.db"
        )


def real_folder(data_dir: Path) -> Path:
    """The one absolute path of the folder, whatever links and relative parts lead to it."""
    require_unix()
    return Path(os.path.realpath(data_dir))


def folder_exists(folder: Path) -> bool:
    """Whether the folder is there and ours, tightened to mode 0700; False: it is not there.

    Raises EmbeddedServerError when it belongs to another user or is not a folder. It is checked
    before each connect: a socket in such a folder may belong to anyone.
    """
    try:
        state = folder.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise unusable(folder, error) from None
    if not stat.S_ISDIR(state.st_mode):
        raise unusable(folder, FileExistsError(errno.EEXIST, ""))
    if state.st_uid != os.geteuid():
        raise EmbeddedServerError(
            f"the data folder {str(folder)!r} belongs to {user_name(state.st_uid)}, and this "
            f"process runs as {user_name(os.geteuid())}: run as that user, or {_ELSEWHERE}"
        )
    if state.st_mode & 0o077:
        _tighten(folder)
    return True


def _tighten(folder: Path) -> None:
    try:
        names = {path.name for path in folder.iterdir()}
        if names and not names & _OURS:
            # A shared folder, such as /tmp: closing it would lock all other users out.
            raise EmbeddedServerError(
                f"the data folder {str(folder)!r} is open to other users and holds other files; "
                f"name a folder of its own, such as {str(folder / _NAME)!r}"
            )
        folder.chmod(0o700)
    except OSError as error:
        raise unusable(folder, error) from None


def prepare_folder(folder: Path) -> None:
    """Create the folder with mode 0700 if need be, and see that the server can write to it.

    Raises EmbeddedServerError when it cannot be used; the text says why and what to do.
    """
    try:
        if not folder_exists(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            folder_exists(folder)  # Another process may have been first.
        os.close(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        raise unusable(folder, error) from None


def unusable(folder: Path, error: OSError) -> EmbeddedServerError:
    """The error that says why the folder cannot be used, and what to do."""
    reason = _WHAT_TO_DO.get(error.errno or 0, f"{error.strerror}; {_ELSEWHERE}")
    return EmbeddedServerError(f"the data folder {str(folder)!r} cannot be used: {reason}")


def user_name(uid: int) -> str:
    """``name (uid 1000)``, or ``uid 1000`` when the system has no name for it."""
    import pwd  # Not on Windows, where this module is imported.

    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def is_locked(folder: Path) -> bool:
    """Whether a keeper or a server holds the folder; touches it for microseconds only."""
    import fcntl  # Not on Windows, where this module is imported.

    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # Unlocked by hand: a fork in another thread may have copied the descriptor.
        fcntl.flock(lock, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def set_keep(data_dir: Path, keep: bool) -> None:
    """Set whether the folder's server stays when idle; it follows within seconds.

    ``keep`` lasts until :func:`stop_server`, or until it is taken back. Works before the server is
    started, too. Raises EmbeddedServerError when the folder cannot be used.
    """
    folder = real_folder(data_dir)
    prepare_folder(folder)
    marker = folder / KEEP
    try:
        if keep:
            marker.touch(mode=0o600)
        else:
            marker.unlink(missing_ok=True)
    except OSError as error:
        raise unusable(folder, error) from None


def is_keep_set(data_dir: Path) -> bool:
    """Whether the folder's server stays when idle (see :func:`set_keep`)."""
    return (real_folder(data_dir) / KEEP).exists()
