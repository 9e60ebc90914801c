"""``python -m tests.guarantees``: the table of docs/guarantees.md, made from the tests.

A test names the faults that it makes: ``@pytest.mark.fault("F9")``. ``on="sentinel"`` says that it
runs on a Sentinel service, ``on="cluster"`` on a cluster; without it, on one server or without any.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.matrix import SERVICES, TESTS

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "guarantees.md"
BEGIN, END = (
    "<!-- The table is made by `make guarantees`. -->\n",
    "<!-- The end of the table. -->\n",
)
TOPOLOGIES = {"standalone": "one server", "sentinel": "Sentinel", "cluster": "Cluster"}
ANY = tuple(TOPOLOGIES)
ALONE = ("standalone",)
MATRIX = tuple(test.partition("::")[0] for test in TESTS)
"""The tests that run on every server of the matrix."""


@dataclass(frozen=True, slots=True)
class Row:
    """A fault, and what holds all the same."""

    fault: str
    guarantee: str
    applies: tuple[str, ...] = ANY
    """The topologies on which it can happen."""
    chaos: tuple[str, ...] = ()
    """The beginnings of the names of its kinds in a chaos run."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A test that names a fault."""

    row: str
    topology: str
    path: str
    test: str

    def is_on(self, topology: str) -> bool:
        """Whether the matrix of servers runs the test on this topology."""
        services = {name.partition("-")[0] for name in SERVICES}
        return topology in services and self.path.startswith(MATRIX)


ROWS: dict[str, Row] = {
    "F1": Row(
        "The reply to a submission is lost",
        "One run for each idempotency key; the retry gets the same id",
        chaos=("DROP_REPLY", "CUT_REPLY", "LOSE_REPLY"),
    ),
    "F2": Row(
        "The reply to a write is lost",
        "The write is in the journal once; `seq` has no hole",
        chaos=("DROP_REPLY", "CUT_REPLY", "LOSE_REPLY", "GARBAGE"),
    ),
    "F3": Row(
        "A request is lost, or only half of it arrives",
        "Nothing is applied; the retry applies it once",
        chaos=("DROP_REQUEST", "CUT_REQUEST", "LOSE_REQUEST"),
    ),
    "F4": Row(
        "The server stalls for longer than a call may take, then executes it",
        "The write counts once; the caller gets the answer, or `OutcomeUnknownError`",
        chaos=("STALL", "the server is frozen", "the primary hangs"),
    ),
    "F5": Row(
        "Frames in single bytes, delays",
        "The same results, later",
        chaos=("BYTE_BY_BYTE", "DELAY", "bytes come in pieces", "bytes come late"),
    ),
    "F6": Row(
        "The server closes an idle connection",
        "No caller notices it; nothing is sent twice",
        chaos=("idle clients are disconnected", "clients are killed"),
    ),
    "F7": Row(
        "A caller is cancelled at any moment",
        "Its write is applied at most once and whole; no connection or lease is left behind",
        chaos=("a program restarts",),
    ),
    "F8": Row(
        "Too many callers, too many clients",
        "Callers wait their turn, or are refused in time; heartbeats go on",
        chaos=("the most clients are connected",),
    ),
    "F9": Row(
        "The server is killed with SIGKILL, and has its data on the disk",
        "No acknowledged write is lost; streams continue; runs end once",
        ALONE,
        chaos=("the server is killed", "the server restarts"),
    ),
    "F11": Row(
        "The end of the server's file is cut off, or its middle is damaged",
        "Only the last write is lost; damage is a clear error, never an empty store",
        ALONE,
    ),
    "F12": Row(
        "The server comes back empty",
        "Readers get a reset, workers stop by their fence and go on with new runs",
    ),
    "F13": Row(
        "The server forgets scripts and functions",
        "They are loaded again; no caller notices it",
        chaos=("scripts are flushed", "functions are flushed", "the right to call functions"),
    ),
    "F14": Row(
        "The primary is killed, another one takes over",
        "Calls go on within seconds; at most the last moment of replication is lost, and with "
        '`durability="replicated"` nothing',
        ("sentinel", "cluster"),
        chaos=("the primary is killed", "the primary and a Sentinel", "the new primary is killed"),
    ),
    "F15": Row(
        "The primary is frozen or cut off, another one takes over, the old one comes back",
        "The two are never merged: writes to the old one are refused, or lost and reported",
        ("sentinel", "cluster"),
        chaos=("the primary is frozen until", "the primary is cut off until"),
    ),
    "F16": Row(
        "Replication is cut, then the replica is promoted",
        "`replicated` acknowledges nothing that is lost; without it readers get a reset, writers "
        "`StoreRewoundError`",
        ("sentinel", "cluster"),
        chaos=(
            "a replica is cut off",
            "a replica is killed",
            "a replica is frozen",
            "replicas are",
        ),
    ),
    "F17": Row(
        "Fewer replicas than `min-replicas-to-write`",
        "A write is refused before anything is written, and tried again",
        chaos=("too few replicas",),
    ),
    "F18": Row(
        "A slot moves under load",
        "No event is lost or doubled; callers wait",
        ("cluster",),
        chaos=("a slot moves",),
    ),
    "F19": Row(
        "A primary of a cluster is killed",
        "As for F14 in its partitions; the others go on",
        ("cluster",),
        chaos=("a primary is killed",),
    ),
    "F20": Row(
        "The server's memory is full",
        "New work is refused; ends, cancels and deletes are applied; no half state",
        chaos=("memory is full",),
    ),
    "F22": Row(
        "A run expires between two reads, or under an open stream",
        "A clear end",
    ),
    "F23": Row(
        "The server is busy with another program's script",
        "Calls are tried again until `retry_seconds` are over",
        chaos=("a script of another program",),
    ),
    "F24": Row(
        "The disk is full",
        "Reads work, writes are refused whole, and go on when there is room",
        ALONE,
        chaos=("the disk is full",),
    ),
    "F25": Row(
        "A worker is killed at any step",
        "Its runs begin again once its leases are over; each ends once",
        chaos=("a worker is killed",),
    ),
    "F26": Row(
        "A worker is frozen for longer than its lease, then goes on",
        "Everything that it still writes is refused",
        chaos=("a worker is frozen for longer",),
    ),
    "F27": Row(
        "A worker's event loop is blocked",
        "Its runs are taken over once; a warning says to put blocking work into threads",
        chaos=("the programs' event loop is blocked",),
    ),
    "F28": Row("Two workers take over the same runs", "One of them gets each run"),
    "F30": Row("A run that kills its workers", "It fails after `max_attempts`"),
    "F31": Row(
        "A cancel meets an end",
        "One end; a cancel that was acknowledged wins",
    ),
    "F32": Row(
        "A cancel of a run in any state",
        "One documented answer for each state; a second cancel changes nothing",
    ),
    "F33": Row(
        "A clock jumps, on the server or in a program",
        "Ids never go back; leases go by the server's clock alone",
        chaos=("a program's clock jumps",),
    ),
    "F34": Row(
        "An HTTP stream is cut at any byte",
        "The reader that resumes gets each event once, in order",
        ALONE,
    ),
    "F35": Row(
        "A reader that takes nothing",
        "Memory is bounded; others do not wait; the reader is let go and can resume",
        ALONE,
    ),
    "F37": Row(
        "A pod with many readers ends",
        "They miss nothing; their reconnects and reads are spread and shared",
        ALONE,
    ),
    "F38": Row(
        "The feed or a journal is trimmed under a reader that lags",
        "A gap that says where to go on, never a silent hole",
    ),
    "F39": Row(
        "The program with the embedded server is killed or interrupted",
        "One server at a time; no process is left; acknowledged writes are kept",
        ALONE,
    ),
    "F41": Row(
        "Stale sockets and locks, odd folder names, folders of others",
        "It works, or a clear error",
        ALONE,
    ),
    "F42": Row(
        "SQLite: kills in a commit, locks, a full disk, several processes",
        "The contract of every store",
        ALONE,
    ),
    "F43": Row(
        "RocksDB: kills, a second process, a log without its end",
        "The contract of every store, or a clear error",
        ALONE,
    ),
    "F44": Row(
        "Programs of two versions on one server",
        "Each uses scripts of its own; another key space is refused",
        ALONE,
    ),
    "F45": Row(
        "The user lacks a right",
        "The start names it; no script stops in its middle",
        chaos=("the right to",),
    ),
    "F46": Row(
        "The password changes",
        "Calls fail at once and write nothing; workers wait for it to work again",
        chaos=("the password is another one",),
    ),
    "F47": Row(
        "A name with several addresses, an expired or foreign certificate",
        "A clear error at once; no storm of retries",
        ALONE,
    ),
    "F48": Row(
        "A slow network: latency, small packets",
        "The same results, later",
        chaos=("bytes come late", "bytes come in pieces", "bytes are held back"),
    ),
    "F50": Row(
        "A black hole: packets vanish, nothing is closed. A worker waits for work",
        "It claims over a new connection within 11 s; a run that the server gave to the deaf one "
        "waits for the end of its lease",
        chaos=("connections are forgotten", "everything vanishes"),
    ),
    "F51": Row(
        "A black hole on the reads of streams and feeds",
        "Readers continue without a hole within 25 s",
        chaos=("connections are forgotten", "replies vanish", "everything vanishes"),
    ),
    "F52": Row(
        "A black hole on writes and heartbeats",
        "A call goes on over a new connection after `call_seconds` (5 s), and counts once",
        chaos=("connections are forgotten", "requests vanish", "replies vanish"),
    ),
    "F53": Row(
        "A black hole between a program and the Sentinels",
        "It listens again within 22 s, and asks the others meanwhile",
        ("sentinel",),
        chaos=("a Sentinel: connections are forgotten", "a Sentinel: everything vanishes"),
    ),
    "F54": Row(
        "A black hole between an HTTP client and a pod",
        "The client resumes after its cursor (`silence_seconds`, 45 s); the pod lets the reader go",
        ALONE,
    ),
}


def marks(root: Path = ROOT / "tests") -> Iterator[Mark]:
    """Every test that names a fault, by the text of the tests: nothing is imported."""
    for path in sorted(root.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for decorator in node.decorator_list:
                    yield from _named(decorator, str(path.relative_to(ROOT)), node.name)


def _named(decorator: ast.expr, path: str, test: str) -> Iterator[Mark]:
    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.fault":
        topology = "standalone"
        for keyword in decorator.keywords:
            topology = ast.literal_eval(keyword.value)
        for argument in decorator.args:
            yield Mark(ast.literal_eval(argument), topology, path, test)


def table(kinds: Mapping[str, frozenset[str]]) -> str:
    """The table of the page.

    Args:
        kinds: the names of the faults of a chaos run, by topology.
    """
    by_row: dict[str, list[Mark]] = defaultdict(list)
    for mark in marks():
        by_row[mark.row].append(mark)
    head = ["fault", "what holds", "how it is tested", *TOPOLOGIES.values()]
    lines = [f"| | {' | '.join(head)} |", f"|{' --- |' * (len(head) + 1)}"]
    for name, row in ROWS.items():
        results = [_result(row, by_row[name], topology, kinds) for topology in TOPOLOGIES]
        cells = [name, row.fault, row.guarantee, _how(row, by_row[name]), *results]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _how(row: Row, found: list[Mark]) -> str:
    files: dict[str, list[str]] = defaultdict(list)
    for mark in found:
        name = mark.test.removeprefix("test_").replace("_", " ")
        files[mark.path.removeprefix("tests/")].append(name)
    shown = [f"`{path}`: {'; '.join(tests)}" for path, tests in sorted(files.items())]
    return "<br>".join([*shown, *(["chaos"] if row.chaos else [])])


def _result(row: Row, found: list[Mark], topology: str, kinds: Mapping[str, frozenset[str]]) -> str:
    if topology not in row.applies:
        return ""
    has_test = any(mark.topology == topology or mark.is_on(topology) for mark in found)
    is_in_chaos = any(kind.startswith(row.chaos) for kind in kinds.get(topology, ()) if row.chaos)
    ways = ["tests"] * has_test + ["chaos"] * is_in_chaos
    return f"holds ({', '.join(ways)})" if ways else "not yet"


def page(text: str, new_table: str) -> str:
    """The page with its table made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{new_table}\n{END}{after}"


def main() -> int:
    """Write the page."""
    from tests.chaos.worlds import kinds_of_worlds

    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page(text, table(kinds_of_worlds())), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
