"""From ``module:attribute`` to the user's fleet."""

from __future__ import annotations

import importlib
import os
import sys
from typing import cast

from murmur_streams.core.errors import StoreConfigurationError
from murmur_streams.fleet import Fleet

_FORM = "name it as MODULE:ATTRIBUTE, for example app:fleet"


class FleetNotFoundError(StoreConfigurationError):
    """The ``module:attribute`` of the command line leads to no fleet."""


def load_fleet(where: str) -> Fleet:
    """Import the module, with the current folder on the path, and take its fleet.

    Raises:
        FleetNotFoundError: no such module, no such attribute, or it is no Fleet. What the module
            itself raises while it is imported is the user's, and comes with its traceback.
    """
    module_name, colon, attribute = where.partition(":")
    if not (module_name and colon and attribute):
        raise FleetNotFoundError(f"{where!r} names no fleet; {_FORM}")
    here = os.getcwd()  # noqa: PTH109  # sys.path holds texts
    if here not in sys.path and not sys.flags.safe_path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise FleetNotFoundError(f"importing {module_name!r} failed: {error}") from error
        raise FleetNotFoundError(
            f"there is no module {error.name!r} in {here} or among the installed packages; {_FORM}"
        ) from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise FleetNotFoundError(f"module {module_name!r} has no {attribute!r}; {_FORM}")
        found = cast("object", getattr(found, part))
    if not isinstance(found, Fleet):
        raise FleetNotFoundError(f"{where} is of type {type(found).__name__}, not Fleet; {_FORM}")
    return found
