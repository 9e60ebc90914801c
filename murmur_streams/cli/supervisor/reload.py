"""Watches the Python files of a folder for changes, for ``--reload``."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path

from murmur_streams.core.model.errors import StoreConfigurationError


async def changed_files(folder: Path) -> AsyncGenerator[list[str]]:
    """Yield the Python files that have just changed, as paths relative to ``folder``.

    Raises:
        StoreConfigurationError: watchfiles is not installed.
    """
    try:
        from watchfiles import (
            PythonFilter,
            awatch,  # pyright: ignore[reportUnknownVariableType]  # it names a type of trio
        )
    except ModuleNotFoundError:
        raise StoreConfigurationError(
            "--reload needs watchfiles: pip install 'murmur-streams[cli]'"
        ) from None
    watching = awatch(
        folder, watch_filter=PythonFilter(), debounce=200, ignore_permission_denied=True
    )
    async for changes in watching:
        yield sorted({_relative(path, folder) for _, path in changes})


def _relative(path: str, folder: Path) -> str:
    return os.path.relpath(path, folder)
