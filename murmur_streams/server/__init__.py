"""The HTTP server: routes over a fleet and its store; no rule of the engine is decided here."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from murmur_streams.server.app import make_app
    from murmur_streams.server.options import ServerOptions

_MODULES = {
    "ServerOptions": "murmur_streams.server.options",
    "make_app": "murmur_streams.server.app",
}


def __getattr__(name: str) -> object:
    # Loaded on first use: FastAPI comes with an extra, and modules below this one work without it.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("murmur_streams"):
            raise
        raise ImportError(
            f"the HTTP server needs {error.name}: pip install 'murmur-streams[server]'"
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = ["ServerOptions", "make_app"]
