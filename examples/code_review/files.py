"""The Python files of a folder, in batches: each batch becomes one run."""

from __future__ import annotations

import os
import re
import stat
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from murmur_streams import InvalidInputError

MODULES_PER_RUN = 20
MAX_FILES_PER_RUN = 500
MAX_NAME = 60
LEFT_OUT = frozenset(
    {
        "__pycache__",
        "dist-packages",
        "idle_test",
        "lib2to3",
        "node_modules",
        "site-packages",
        "test",
        "tests",
    }
)
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Batch:
    """The files of one run."""

    name: str
    """Valid as a part of a run id."""
    files: tuple[str, ...]
    """Relative to the corpus's root, in order."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """All files that the demo reads."""

    root: Path
    title: str
    batches: tuple[Batch, ...]

    @property
    def file_count(self) -> int:
        """How many files there are in all."""
        return sum(len(batch.files) for batch in self.batches)


def standard_library() -> Path:
    """The folder of this Python's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def find_corpus(path: Path | None) -> Corpus:
    """Find the Python files under ``path`` (None: the standard library) and batch them.

    Each package is a batch, and the modules beside them are batches of about twenty.

    Raises:
        InvalidInputError: the path does not exist, or has no Python files.
    """
    root = standard_library() if path is None else path
    title = "the standard library" if path is None else str(path)
    if not root.exists():
        raise InvalidInputError(
            f"{root} does not exist; give a folder with Python files, or nothing"
        )
    if root.is_file():
        root, files = root.parent, [root.name]
    else:
        files = sorted(_python_files(root))
    batches = tuple(_batches(files))
    if not batches:
        raise InvalidInputError(
            f"no Python files under {root}; give another folder, or nothing for this machine's "
            "standard library"
        )
    return Corpus(root.resolve(), title, batches)


def _python_files(root: Path) -> Iterator[str]:
    """Paths relative to the root. Links to folders are not followed: they may form cycles."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            name for name in folders if name not in LEFT_OUT and not name.startswith(".")
        )
        for name in names:
            path = Path(folder, name)
            if name.endswith(".py") and _is_regular(path) and _is_text(name):
                relative = path.relative_to(root).as_posix()
                if _is_text(relative):
                    yield relative


def _is_regular(path: Path) -> bool:
    """False for a pipe or a device named like a module, which would be read for ever."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True  # A file that cannot be read becomes a finding.


def _is_text(name: str) -> bool:
    """Whether the name fits into JSON; names of other bytes are left out."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _batches(files: list[str]) -> Iterator[Batch]:
    packages: dict[str, list[str]] = {}
    modules: list[str] = []
    for file in files:
        package, slash, _ = file.partition("/")
        if slash:
            packages.setdefault(package, []).append(file)
        else:
            modules.append(file)
    named: dict[str, int] = {}
    for package, members in packages.items():
        for part in _parts(members, MAX_FILES_PER_RUN):
            yield Batch(_unique(package, named), part)
    for part in _parts(modules, MODULES_PER_RUN):
        first, last = Path(part[0]).stem.strip("_"), Path(part[-1]).stem.strip("_")
        yield Batch(_unique(first if first == last else f"{first}-to-{last}", named), part)


def _parts(files: list[str], most: int) -> Iterator[tuple[str, ...]]:
    """As few parts as possible, all about as long, and none longer than ``most``."""
    count = -(-len(files) // most)
    for number in range(count):
        yield tuple(files[len(files) * number // count : len(files) * (number + 1) // count])


def _unique(name: str, named: dict[str, int]) -> str:
    """The name as a part of a run id, with a number when another batch has it."""
    plain = _NOT_IN_NAMES.sub("-", name)[:MAX_NAME].strip("._-") or "files"
    named[plain] = named.get(plain, 0) + 1
    return plain if named[plain] == 1 else f"{plain}.{named[plain]}"
