"""Helpers that read a store's folder and damage it."""

from __future__ import annotations

import hashlib
from pathlib import Path


def contents(path: Path, *but: str) -> dict[str, str]:
    """File name -> hash of what is in it."""
    return {
        each.name: hashlib.sha256(each.read_bytes()).hexdigest()
        for each in sorted(path.iterdir())
        if not each.name.startswith(but or ("\0",))
    }


def only(path: Path, pattern: str) -> Path:
    """The biggest file of this name."""
    return max(path.glob(pattern), key=lambda each: each.stat().st_size)


def garbled(file: Path, at: float = 0.5) -> None:
    """RunChange 16 bytes of a file, at a fraction of its length."""
    data = bytearray(file.read_bytes())
    position = int(len(data) * at)
    data[position : position + 16] = bytes(each ^ 0xA5 for each in data[position : position + 16])
    file.write_bytes(data)


def truncated(file: Path, at: float = 0.5) -> None:
    """Cut a file off, at a fraction of its length."""
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * at)])
