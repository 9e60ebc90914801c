"""From ``module:attribute`` to the user's fleet."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from types import ModuleType
from typing import cast

from murmur_streams.core.exception_text import describe_error, traceback_of
from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.fleet import Fleet

_NOT_THEIRS = (__file__, importlib.__file__)
_FORM = "name it as MODULE:ATTRIBUTE, for example app:fleet"


class FleetNotFoundError(StoreConfigurationError):
    """The ``module:attribute`` of the command line leads to no fleet."""


def load_fleet(where: str) -> Fleet:
    """Import the module, with the current folder on the path, and take its fleet.

    Raises:
        FleetNotFoundError: no such module, no such attribute, it is no Fleet, or the module raised
            something while it was imported, which is the error's ``__cause__``.
    """
    module_name, colon, attribute = where.partition(":")
    if not (module_name and colon and attribute):
        raise FleetNotFoundError(f"{where!r} names no fleet; {_FORM}")
    here = os.getcwd()  # noqa: PTH109  # sys.path holds texts
    if here not in sys.path and not sys.flags.safe_path:
        sys.path.insert(0, here)
    found: object = _imported(module_name, here)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise FleetNotFoundError(f"module {module_name!r} has no {attribute!r}; {_FORM}")
        found = cast("object", getattr(found, part))
    if not isinstance(found, Fleet):
        raise FleetNotFoundError(f"{where} is of type {type(found).__name__}, not Fleet; {_FORM}")
    return found


def _imported(name: str, here: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed(name, str(error), error, here) from error
        raise FleetNotFoundError(
            f"there is no module {error.name!r} in {here} or among the installed packages; {_FORM}"
        ) from None
    except SystemExit as error:
        # Or the command would end as if it had done what it was asked for.
        code = "" if error.code is None else ascii(error.code)
        raise _failed(name, f"it called sys.exit({code})", error, here) from error
    except Exception as error:
        raise _failed(name, describe_error(error), error, here) from error


def _failed(name: str, why: str, error: BaseException, here: str) -> FleetNotFoundError:
    # A SyntaxError tells its place by itself.
    place = "" if isinstance(error, SyntaxError) else _place(error, here)
    return FleetNotFoundError(f"importing {name!r} failed: {why}{place}")


def _place(error: BaseException, here: str) -> str:
    """The last line of the user's own code that led to an error: libraries are not his to mend."""
    frames = [
        frame
        for frame in traceback.extract_tb(traceback_of(error))
        if not frame.filename.startswith("<frozen ") and frame.filename not in _NOT_THEIRS
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
