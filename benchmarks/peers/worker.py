"""Becomes the worker of an engine: ``python -m benchmarks.peers.worker MODULE URL``."""

from __future__ import annotations

import os
import sys
from importlib import import_module


def main() -> None:
    """Start the engine's own command in the place of this process."""
    command = import_module(sys.argv[1]).worker(sys.argv[2])
    os.execv(sys.executable, [sys.executable, "-m", *command])


if __name__ == "__main__":
    main()
