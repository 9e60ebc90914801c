"""The proof: every journal is compared with what its subscriber saw, and every run is audited."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.markup import escape

from code_review.agents import KEY_PREFIX, Report
from code_review.analysis import FindingKind
from murmur_streams import RunState

if TYPE_CHECKING:
    from code_review.demo import Demo
    from code_review.watched import Watched

SHOWN_FINDINGS, SHOWN_MODULES, SHOWN_LINES = 5, 10, 10
HEADS = {
    FindingKind.LONG_FUNCTION: ("longest functions", "lines"),
    FindingKind.DEEP_NESTING: ("deepest nesting", "levels"),
    FindingKind.UNUSED_IMPORT: ("possibly unused imports", ""),
    FindingKind.UNPARSABLE: ("unparsable files", ""),
}


@dataclass
class Proof:
    """The result of the comparison over all runs."""

    entries: int = 0
    events: int = 0
    seen: int = 0
    missing: int = 0
    twice: int = 0
    unordered: int = 0
    foreign: int = 0
    """Events that were seen, but are in no journal."""
    miscounted: int = 0
    """Journals with another number of entries than the server counts."""
    clean: int = 0
    problems: list[str] = field(default_factory=list[str])

    @property
    def holds(self) -> bool:
        """Whether every event was seen once and in order, and every audit is clean."""
        wrong = self.missing + self.twice + self.unordered + self.foreign + self.miscounted
        return not wrong and not self.problems and self.events > 0


async def prove(store: Any, runs: Sequence[Watched]) -> Proof:
    """Compare every run's journal with the events that its subscriber saw."""
    proof = Proof()
    for run in runs:
        run_id = run.handle.run_id
        entries = [entry async for entry in store.journal(run_id)]
        in_server = await store.client.xlen(f"{KEY_PREFIX}:{{0}}:journal:{run_id}")
        journal = Counter(entry.cursor for entry in entries if entry.event() is not None)
        seen = Counter(event.id for event in run.seen)
        order = [event.seq or 0 for event in run.seen]
        proof.entries += len(entries)
        proof.events += journal.total()
        proof.seen += seen.total()
        proof.miscounted += in_server != len(entries)
        proof.missing += (journal - seen).total()
        proof.twice += sum(count - 1 for count in seen.values())
        proof.foreign += sum(cursor not in journal for cursor in seen)
        proof.unordered += sum(after < before for before, after in pairwise(order))
        report = await store.audit(run_id)
        proof.clean += report.ok
        proof.problems += [f"{run_id}: {problem}" for problem in report.problems]
        if run.state is not RunState.COMPLETED:
            proof.problems.append(f"{run_id} ended {run.state}")
    return proof


def print_proof(console: Console, proof: Proof, demo: Demo) -> None:
    """Print each claim with its numbers."""
    count = len(demo.runs)
    wrong = proof.missing or proof.twice or proof.unordered or proof.foreign
    seen = f"{proof.seen:,} events by {count} subscribers: {proof.missing} missing, "
    seen += f"{proof.twice} twice, {proof.unordered} out of order"
    claims: list[tuple[bool, str, str]] = [
        (
            not proof.miscounted,
            "journals",
            f"{proof.entries:,} entries in {count} journals, {proof.events:,} are events",
        ),
        (not wrong, "seen", seen),
        (proof.clean == count, "audit", f"{proof.clean} of {count} runs clean"),
    ]
    if demo.cut is not None:
        after = demo.cut.cut_after or 0
        later = [event.seq for event in demo.cut.seen if (event.seq or 0) > after]
        text = f"{demo.cut.batch.name} after event #{after}; its next event was #{later[0]}"
        claims.append((True, "cut", text))
    if demo.killed is not None:
        again = sum(run.attempt > 1 for run in demo.orphans)
        ended = sum(run.state is RunState.COMPLETED for run in demo.orphans)
        text = f"{demo.killed} in the middle of {len(demo.orphans)} runs: {again} taken over"
        claims.append((ended == len(demo.orphans), "killed", f"{text}, {ended} completed"))
    console.print("\n[bold]Proof[/]")
    for holds, name, text in claims:
        mark = "[green]✓[/]" if holds else "[bold red]✗[/]"
        console.print(f"  {mark} [bold]{name:<10}[/] {escape(text)}")
    for happened, name in ((demo.cut, "cut"), (demo.killed, "killed")):
        if happened is None:
            console.print(f"  - {name:<10} the work was over before")
    for problem in proof.problems:
        console.print(f"  [red]{escape(problem)}[/]")


def print_ranking(console: Console, report: Report) -> None:
    """Print the first findings of each kind."""
    totals = f"{report.files:,} files, {report.lines:,} lines, {report.functions:,} functions"
    console.print(f"\n[bold]Found in {totals}[/]")
    for kind, (head, unit) in HEADS.items():
        findings, count = report.top.get(kind, [])[:SHOWN_FINDINGS], report.counts[kind]
        more = f", the first {len(findings)}" if count > len(findings) else ""
        console.print(f"  [cyan]{head}: {count}{more}[/]")
        for finding in findings:
            size = f"{finding.size:>5} {unit}  " if unit else ""
            location = escape(printable(finding.location))
            console.print(f"    {size}[bold]{location}[/]  {escape(printable(finding.subject))}")
    modules = ", ".join(f"{name} {n}" for name, n in report.imports.most_common(SHOWN_MODULES))
    console.print(f"  [cyan]most imported modules[/]\n    {escape(modules)}")


async def print_commands(console: Console, run_id: str, at: Sequence[str]) -> None:
    """Run commands that look at the run's keys, and print them with the first of their output."""
    journal = f"{KEY_PREFIX}:{{0}}:journal:{run_id}"
    looks = (
        ["redis", "HGETALL", f"{KEY_PREFIX}:{{0}}:run:{run_id}"],
        ["redis", "XLEN", journal],
        ["redis", "XRANGE", journal, "-", "+", "COUNT", "2"],
        ["redis", "PTTL", journal],
    )
    console.print("\n[bold]Look for yourself: these lines ran just now, and work for an hour[/]")
    replies = await _send([look[1:] for look in looks])
    for look, reply in zip(looks, replies, strict=True):
        shown = shlex.join(["murmur-streams", look[0], *at, *look[1:]])
        console.print(f"  [bold]$ {escape(shown)}[/]")
        lines = list(_lines(reply))
        for line in lines[:SHOWN_LINES]:
            console.print(f"    {escape(printable(line))}")
        if len(lines) > SHOWN_LINES:
            console.print(f"    [dim]… and {len(lines) - SHOWN_LINES} more lines[/]")
    for name in ("show", "keys", "tail"):
        more = ["murmur-streams", name, run_id, "--prefix", KEY_PREFIX, *at]
        console.print(f"  $ {escape(shlex.join(more))}")


async def _send(commands: list[list[str]]) -> list[Any]:
    """Send them through one `murmur-streams redis --json`; returns the replies."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "murmur_streams", "redis", "--json"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate("\n".join(map(shlex.join, commands)).encode())
    return [json.loads(line) for line in output.splitlines()]


def _lines(reply: Any) -> Iterator[str]:
    """The elements of a reply, nested ones too, each on a line."""
    if isinstance(reply, list):
        for part in cast("list[Any]", reply):
            yield from _lines(part)
    else:
        yield str(reply)


def printable(text: str) -> str:
    """The text with its control characters escaped: a file's name must not drive the terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
