"""Reads compiled Lua 5.1: globals, upvalues and locals, as the compiler sees them.

A search in the text would miss a name that a line break or a nested function hides.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from lupa.lua51 import LuaRuntime

_MOVE, _GET_UPVALUE, _GET_GLOBAL, _SET_GLOBAL, _SET_UPVALUE, _CLOSURE = 0, 4, 5, 7, 8, 36


@dataclass(slots=True)
class Compiled:
    """One function, or the whole chunk."""

    first_line: int
    code: tuple[int, ...]
    constants: list[Any]
    inner: list[Compiled]
    locals: list[tuple[str, int, int]]
    """Of each local its name, and the instructions between which it exists."""
    upvalues: list[str]
    chunk_names: list[str] = field(default_factory=list[str])
    """Of each upvalue its name if it is a local of the chunk, else an empty text."""

    def globals_read(self) -> set[str]:
        return {self.constants[bx] for op, _, bx in self._instructions() if op == _GET_GLOBAL}

    def globals_set(self) -> set[str]:
        return {self.constants[bx] for op, _, bx in self._instructions() if op == _SET_GLOBAL}

    def chunk_locals_set(self) -> set[str]:
        """The locals of the chunk that this function assigns when it is called."""
        sets = (b for op, b, _ in self._instructions() if op == _SET_UPVALUE)
        return {self.chunk_names[b] for b in sets} - {""}

    def most_locals(self) -> int:
        """The largest number of locals that exist at one instruction."""
        return max(
            (
                sum(start <= at < end for _, start, end in self.locals)
                for at in range(len(self.code))
            ),
            default=0,
        )

    def all(self) -> Iterator[Compiled]:
        """The function and all functions in it."""
        yield self
        for each in self.inner:
            yield from each.all()

    def name_upvalues(self, *, is_chunk: bool = True) -> None:
        """Find out which upvalues of the inner functions are locals of the chunk."""
        at = 0
        instructions = list(self._instructions())
        while at < len(instructions):
            op, _, bx = instructions[at]
            at += 1
            if op != _CLOSURE:
                continue
            inner = self.inner[bx]
            # One pseudo instruction for each upvalue: a local of this function, or its own upvalue.
            for (kind, b, _), name in zip(instructions[at:], inner.upvalues, strict=False):
                assert kind in {_MOVE, _GET_UPVALUE}
                own = name if is_chunk else ""
                inner.chunk_names.append(own if kind == _MOVE else self.chunk_names[b])
            at += len(inner.upvalues)
            inner.name_upvalues(is_chunk=False)

    def _instructions(self) -> Iterator[tuple[int, int, int]]:
        """Of each instruction its number, B and Bx."""
        for each in self.code:
            yield each & 0x3F, each >> 23 & 0x1FF, each >> 14 & 0x3FFFF


def compiled(text: str) -> Compiled:
    """Compile a chunk; ValueError is the compiler's message."""
    lua: Any = cast("Any", LuaRuntime)(unpack_returned_tuples=True, encoding="latin-1")
    # loadstring returns nil and a message for a text that is not Lua 5.1.
    loaded = lua.globals().loadstring(text)
    message = loaded[1] if isinstance(loaded, tuple) else ""
    if message:
        raise ValueError(message)
    chunk = _Reader(lua.globals().string.dump(loaded).encode("latin-1")).function()
    chunk.name_upvalues()
    return chunk


class _Reader:
    def __init__(self, data: bytes) -> None:
        assert data[:5] == b"\x1bLua\x51", "bytecode of Lua 5.1"
        assert data[6:12] == bytes([1, 4, 8, 4, 8, 0]), "of a little-endian 64-bit machine"
        self._data, self._at = data, 12

    def function(self) -> Compiled:
        self._text()
        (first_line, _) = self._take("<ii")
        self._take("<BBBB")
        code = self._take(f"<{self._count()}I")
        constants = [self._constant() for _ in range(self._count())]
        inner = [self.function() for _ in range(self._count())]
        self._take(f"<{self._count()}i")
        found = [(self._text(), *self._take("<ii")) for _ in range(self._count())]
        upvalues = [self._text() for _ in range(self._count())]
        return Compiled(first_line, code, constants, inner, found, upvalues)

    def _take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return values

    def _count(self) -> int:
        return self._take("<i")[0]

    def _text(self) -> str:
        (size,) = self._take("<Q")
        (text,) = self._take(f"<{size}s")
        return text[:-1].decode("latin-1")

    def _constant(self) -> Any:
        (kind,) = self._take("<B")
        if kind == 4:
            return self._text()
        return self._take({0: "<", 1: "<B", 3: "<d"}[kind])
