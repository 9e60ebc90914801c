"""The HTTP server: routes over a fleet and its store; no rule of the engine is decided here."""

from importlib import import_module
from typing import TYPE_CHECKING

from murmur_streams.server.options import ServerOptions

if TYPE_CHECKING:
    from murmur_streams.server.app import make_app

__all__ = ["ServerOptions", "make_app"]


def __getattr__(name: str) -> object:
    # Loaded on first use: FastAPI comes with an extra, and modules below this one work without it.
    if name != "make_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        globals()[name] = value = import_module("murmur_streams.server.app").make_app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("murmur_streams"):
            raise
        raise ImportError(
            f"the HTTP server needs {error.name}: pip install 'murmur-streams[server]'"
        ) from error
    return value


def __dir__() -> list[str]:
    return __all__
