"""Each rule of the house finds a fault that was planted, and nothing in what is right."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from textwrap import dedent

import pytest

from tests.house.__main__ import RULES
from tests.house.language import (
    dialect_in_names,
    headless_sentences,
    is_no,
    long_test_names,
    missing_docstrings,
)
from tests.house.source import Fault, Tree
from tests.house.structure import (
    hidden_imports,
    import_circles,
    long_files,
    long_functions,
    long_with_comments,
    repeated_classes,
)

Rule = Callable[[Tree], Iterable[Fault]]
Files = dict[str, str]
NO = "no"  # apart from its verb, or the rule would find it here


def code(*lines: str) -> str:
    return "\n".join([*lines, ""])


def steps(number: int) -> str:
    """A function body of so many lines."""
    return code(*(f"    step({n})" for n in range(number)))


# Each rule: files that break it, what is said of them (a part), and files that keep it.
PLANTED: dict[str, tuple[Rule, Files, list[str], Files]] = {
    "a function's name": (
        dialect_in_names,
        {"murmur_streams/a.py": "def tell_all(): ..."},
        ["murmur_streams/a.py:1: tell_all"],
        {"murmur_streams/a.py": "def notify_all(): ..."},
    ),
    "a name in an f-string": (
        dialect_in_names,
        {"tests/a.py": 'print(f"{told}")'},
        ["tests/a.py:1: told"],
        {"tests/a.py": 'print(f"told {reported}")'},
    ),
    "a parameter, an attribute and a class": (
        dialect_in_names,
        {"benchmarks/a.py": code("class ToldTwice: ...", "def f(place): ...", "a.keptWords = 2")},
        [
            "benchmarks/a.py:1: ToldTwice",
            "benchmarks/a.py:2: place",
            "benchmarks/a.py:3: keptWords",
        ],
        {
            "benchmarks/a.py": code(
                "replaced = keyword = password = foretold = theirs(places=1)", "# told"
            )
        },
    ),
    "a file's name": (
        dialect_in_names,
        {"murmur_streams/some_words.py": ""},
        ["murmur_streams/some_words.py:1: some_words"],
        {"murmur_streams/keywords.py": ""},
    ),
    "a cursor's own place": (
        dialect_in_names,
        {"murmur_streams/core/model/feed.py": "place = told = 1"},
        ["murmur_streams/core/model/feed.py:1: told"],
        {"murmur_streams/core/model/feed.py": "place = 1"},
    ),
    "a name in Lua": (
        dialect_in_names,
        {"lua/a.lua": code("--[[ one", "two ]]", "local kept_id = 1")},
        ["lua/a.lua:3: kept_id"],
        {"lua/a.lua": "local id = 'kept' .. \"told\" -- nobody"},
    ),
    "a sentence in a comment over two lines": (
        is_no,
        {"murmur_streams/a.py": code("# This is", f"# {NO} stream.")},
        ["murmur_streams/a.py:1:"],
        {"murmur_streams/a.py": "# This is not a stream; `that is no quotation` neither."},
    ),
    "a sentence in a page and in a script": (
        is_no,
        {
            "docs/a.md": f"It was {NO} stream.",
            "README.md": f"They are {NO} streams.",
            "lua/a.lua": "",
        },
        ["README.md:1:", "docs/a.md:1:"],
        {"docs/a.md": "There is not one, and this noun is notable."},
    ),
    "a sentence without a subject": (
        headless_sentences,
        {"docs/a.md": code("Runs end. Who asks", "gets 204.", "- What is left is", "deleted.")},
        ["docs/a.md:1:", "docs/a.md:3:"],
        {
            "docs/a.md": code(
                "# 1. What ends",
                "What happens then? It ends.",
                "```",
                "What is this.",
                "```",
                "`What`.",
            )
        },
    ),
    "a test's name": (
        long_test_names,
        {"tests/test_a.py": f"async def test_{'a' * 56}(): ..."},
        ["tests/test_a.py:1:"],
        {"tests/test_a.py": f"def test_{'a' * 55}(): ..."},
    ),
    "a test without a docstring": (
        missing_docstrings,
        {"tests/test_a.py": "def test_a(): ..."},
        ["tests/test_a.py:1: test_a"],
        {"tests/test_a.py": code("def test_a():", '    """Shows it."""')},
    ),
    "a class name twice": (
        repeated_classes,
        {"murmur_streams/a.py": "class _Call: ...", "murmur_streams/b.py": "class _Call: ..."},
        ["murmur_streams/b.py:1: class _Call is in murmur_streams/a.py too"],
        {
            "murmur_streams/a.py": "class _Call: ...",
            "murmur_streams/interop/a.py": "class _Call: ...",
            "tests/b.py": "class _Call: ...",
        },
    ),
    "a circle through a function": (
        import_circles,
        {
            "murmur_streams/a.py": "from murmur_streams import b",
            "murmur_streams/b.py": code("def f():", "    from murmur_streams.c import d"),
            "murmur_streams/c.py": "import murmur_streams.a",
        },
        ["circle of imports: murmur_streams.a, murmur_streams.b, murmur_streams.c"],
        {
            "murmur_streams/a.py": "from murmur_streams import b",
            "murmur_streams/b.py": "from murmur_streams.c import d",
            "murmur_streams/c.py": "import json",
        },
    ),
    "a circle under TYPE_CHECKING": (
        import_circles,
        {
            "murmur_streams/a.py": code("if TYPE_CHECKING:", "    from murmur_streams.b import c"),
            "murmur_streams/b.py": "from murmur_streams.a import c",
        },
        ["circle of imports: murmur_streams.a, murmur_streams.b"],
        {"murmur_streams/a.py": "from murmur_streams.a import itself"},
    ),
    "a circle through a string": (
        import_circles,
        {
            "murmur_streams/a.py": "import_module('murmur_streams.b')",
            "murmur_streams/b.py": "from murmur_streams.a import c",
        },
        ["circle of imports: murmur_streams.a, murmur_streams.b"],
        {"murmur_streams/a.py": "import_module('json')", "murmur_streams/b.py": ""},
    ),
    "an import in a string": (
        hidden_imports,
        {
            "murmur_streams/a.py": "import_module(f'murmur_streams.server.{name}')",
            "murmur_streams/server/__init__.py": "",
        },
        ["murmur_streams/a.py:1: murmur_streams.server is named in a string"],
        {
            "murmur_streams/__init__.py": "import_module('murmur_streams.server')",
            "murmur_streams/a.py": "logging.getLogger('murmur_streams.server')",
            "murmur_streams/server/__init__.py": "",
        },
    ),
    "a file of 241 lines": (
        long_files,
        {"murmur_streams/a.py": code("def f():", steps(240))},
        ["murmur_streams/a.py:1: 241 lines of code, 240 allowed"],
        {
            "murmur_streams/a.py": code('"""One."""', "", "# Two.", "def f():", steps(239)),
            "tests/a.py": code("def f():", steps(240)),
        },
    ),
    "a blank line inside of a string": (
        long_files,
        {"murmur_streams/a.py": code("text = '''", "", "# ''' ", "def f():", steps(237))},
        ["murmur_streams/a.py:1: 241 lines of code, 240 allowed"],
        {"murmur_streams/a.py": code("text = '''", "", "# '''", "def f():", steps(236))},
    ),
    "a file of 401 lines, and a script of 121": (
        long_with_comments,
        {"murmur_streams/a.py": "# One.\n" * 401, "lua/a.lua": "-- One.\n" * 121},
        [
            "murmur_streams/a.py:1: 401 lines with comments, 400 allowed",
            "lua/a.lua:1: 121 lines with comments, 120 allowed",
        ],
        {
            "murmur_streams/a.py": "# One.\n" * 400,
            "lua/a.lua": "-- One.\n" * 120,
            "tests/a.py": "# One.\n" * 401,
        },
    ),
    "a function of 51 lines": (
        long_functions,
        {"murmur_streams/a.py": code("@cache", "def f():", steps(50))},
        ["murmur_streams/a.py:2: f: 51 lines, 50 allowed"],
        {"murmur_streams/a.py": code("def f():", '    """One', "", '    two."""', steps(49))},
    ),
}


def tree_of(root: Path, files: Files) -> Tree:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return Tree(root)


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_fault_is_found(planted: str, tmp_path: Path) -> None:
    """Each fault is reported with its file, line and reason, and nothing besides."""
    rule, files, expected, _ = PLANTED[planted]
    found = [str(fault) for fault in rule(tree_of(tmp_path, files))]
    assert len(found) == len(expected), found
    assert all(part in fault for part, fault in zip(expected, found, strict=True)), found


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_right_is_not_a_fault(planted: str, tmp_path: Path) -> None:
    """The nearest code that keeps the rule is accepted."""
    rule, _, _, files = PLANTED[planted]
    assert [str(fault) for fault in rule(tree_of(tmp_path, files))] == []


def test_every_rule_has_a_planted_fault() -> None:
    """A new rule fails here until it has one."""
    assert {rule for rule, *_ in PLANTED.values()} == set(RULES)
