"""The fleet of a command: the user's, loaded from ``module:attribute``, or one without agents."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from types import ModuleType
from typing import cast

from murmur_streams.cli.shell.session import Session
from murmur_streams.core.exception_text import describe_error, traceback_of
from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.fleet import Fleet

_OUR_FILES = (__file__, importlib.__file__)
_FORM = "name it as MODULE:ATTRIBUTE, for example app:fleet"


class FleetNotFoundError(StoreConfigurationError):
    """The ``module:attribute`` of the command line does not lead to a fleet."""


def open_fleet(session: Session, app: str | None = None, *, may_be_new: bool = False) -> Fleet:
    """The fleet of ``app``, which checks targets and inputs, or a fleet that accepts any.

    Raises:
        StoreConfigurationError: the store does not exist, and ``may_be_new`` is false.
    """
    session.check_is_store(may_be_new=may_be_new)
    if app is None:
        return Fleet(session.url, **session.redis_options)
    os.environ.update(session.to_environment())
    return load_fleet(app)


def load_fleet(path: str) -> Fleet:
    """Import the module of ``MODULE:ATTRIBUTE``, with the current folder on the path.

    Raises:
        FleetNotFoundError: the module or the attribute does not exist, is not a Fleet, or the
            module raised an error while it was imported, which is the ``__cause__``.
    """
    module_name, colon, attribute = path.partition(":")
    if not (module_name and colon and attribute):
        raise FleetNotFoundError(f"{path!r} does not name a fleet; {_FORM}")
    here = os.getcwd()  # noqa: PTH109  # sys.path holds texts
    if here not in sys.path and not sys.flags.safe_path:
        sys.path.insert(0, here)
    found: object = _imported(module_name, here)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise FleetNotFoundError(f"module {module_name!r} has no {attribute!r}; {_FORM}")
        found = cast("object", getattr(found, part))
    if not isinstance(found, Fleet):
        raise FleetNotFoundError(f"{path} is of type {type(found).__name__}, not Fleet; {_FORM}")
    return found


def _imported(name: str, here: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed(name, str(error), error, here) from error
        raise FleetNotFoundError(
            f"no module {error.name!r} is in {here} or among the installed packages; {_FORM}"
        ) from None
    except SystemExit as error:
        # Else the command would end with the code of the user's module, perhaps with 0.
        code = "" if error.code is None else ascii(error.code)
        raise _failed(name, f"it called sys.exit({code})", error, here) from error
    except Exception as error:
        raise _failed(name, describe_error(error), error, here) from error


def _failed(name: str, why: str, error: BaseException, here: str) -> FleetNotFoundError:
    # The text of a SyntaxError names the file and the line already.
    location = "" if isinstance(error, SyntaxError) else _location(error, here)
    return FleetNotFoundError(f"importing {name!r} failed: {why}{location}")


def _location(error: BaseException, here: str) -> str:
    """The last line of the user's own code that led to the error, as they cannot mend libraries."""
    frames = [
        frame
        for frame in traceback.extract_tb(traceback_of(error))
        if not frame.filename.startswith("<frozen ") and frame.filename not in _OUR_FILES
    ]
    inside = os.path.join(here, "")  # noqa: PTH118  # tracebacks hold texts
    own = [
        frame
        for frame in frames
        if frame.filename.startswith(inside) and "site-packages" not in frame.filename
    ]
    if not frames:
        return ""
    last = own[-1] if own else frames[0]
    return f" ({last.filename.removeprefix(inside)}, line {last.lineno})"
