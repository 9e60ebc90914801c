"""The demo: two workers review real files while one subscriber is cut and one worker is killed.

`murmur-streams demo` calls `run`. Everything here uses what any program can import.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from code_review.agents import Sources, fleet, merge, reviewer
from code_review.files import Corpus, find_corpus
from code_review.proof import print_commands, print_proof, print_ranking, prove
from code_review.watched import Watched
from murmur_streams import MurmurError, RunState

CUT_AT, KILL_AT = 0.12, 0.3
"""The shares of the files after which a subscriber is cut and a worker is killed."""
EXPECTED_EVENTS = 3
STALL_SECONDS = 45.0
STOP_SECONDS = 5.0
WORKER_OPTIONS = ("--concurrency", "4", "--lease-seconds", "2", "--drain-seconds", "1")


class Demo:
    """The story: submit, watch, cut a subscriber, kill a worker, wait for the end."""

    def __init__(self, corpus: Corpus, console: Console, board: Progress) -> None:
        self.corpus, self.console, self.board = corpus, console, board
        self.began = time.monotonic()
        self.runs: list[Watched] = []
        self.workers: dict[str, Process] = {}
        self.cut: Watched | None = None
        self.killed: str | None = None
        self.orphans: list[Watched] = []
        """The runs that the killed worker was executing."""

    def say(self, text: str, style: str = "none") -> None:
        """Print a line with the time since the beginning."""
        seconds = time.monotonic() - self.began
        self.console.print(f"[dim]{seconds:5.1f} s[/]  [{style}]{escape(text)}[/]")

    async def play(self) -> None:
        """Play the whole story; however it ends, no worker and no unfinished run is left."""
        try:
            for _ in range(2):
                await self.start_worker()
            await self.submit()
            with self.board:
                await self.watch()
        finally:
            await self.stop_workers()
            for run in self.runs:
                if not run.state.is_terminal:
                    store = await fleet.store()
                    await asyncio.shield(store.delete(run.handle.run_id, force=True))

    async def start_worker(self) -> None:
        """Start a worker process: `murmur-streams worker code_review.agents:fleet`."""
        name = f"worker-{len(self.workers) + 1}"
        folder = str(Path(__file__).parents[1])
        path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        self.workers[name] = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "murmur_streams", "worker", "code_review.agents:fleet"),
            *("--id", name, *WORKER_OPTIONS),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "MURMUR_LOG_LEVEL": "error"},
        )
        self.say(f"worker    {name} is process {self.workers[name].pid}")

    async def stop_workers(self) -> None:
        """SIGTERM for every worker, then SIGKILL for those that do not end."""
        alive = [worker for worker in self.workers.values() if worker.returncode is None]
        for worker in alive:
            worker.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.gather(*(worker.wait() for worker in alive))
        except TimeoutError:
            for worker in alive:
                if worker.returncode is None:
                    worker.kill()

    async def submit(self) -> None:
        """Submit one run for each batch of files."""
        tag = secrets.token_hex(2)
        for batch in self.corpus.batches:
            handle = await fleet.submit(
                reviewer,
                Sources(root=self.corpus.root, files=list(batch.files)),
                run_id=f"{batch.name}-{tag}",
                metadata={"corpus": self.corpus.title},
            )
            bar = self.board.add_task(batch.name, total=len(batch.files), visible=False)
            self.runs.append(Watched(batch, handle, bar))
        self.say(f"submitted {len(self.runs)} runs over {self.corpus.file_count} files")

    async def watch(self) -> None:
        """Follow every run live, and meanwhile disturb two of them."""
        try:
            async with asyncio.TaskGroup() as tasks:
                subscribers = [tasks.create_task(self.watch_one(run)) for run in self.runs]
                disturbing = tasks.create_task(self.disturb())
                await asyncio.wait(subscribers)
                disturbing.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        self.say(f"ended     {len(self.runs)} runs")

    async def watch_one(self, run: Watched) -> None:
        """Follow one run and print its end."""
        await run.watch()
        self.board.update(run.bar, visible=False)
        again = f", attempt {run.attempt}" if run.attempt > 1 else ""
        counts = f"{len(run.batch.files)} files, {run.findings} findings{again}"
        self.say(f"{run.state}  {run.batch.name}: {counts}")

    async def disturb(self) -> None:
        """Cut a subscriber and kill a worker, each when enough files are done."""
        last, changed_at = -1, time.monotonic()
        while True:
            await self.poll_running()
            for name, worker in self.workers.items():
                if worker.returncode is not None and name != self.killed:
                    raise MurmurError(f"{name} ended with exit code {worker.returncode}")
            done = sum(run.done for run in self.runs)
            progress = done + sum(len(run.seen) for run in self.runs)
            if progress != last:
                last, changed_at = progress, time.monotonic()
            elif time.monotonic() - changed_at > STALL_SECONDS:
                raise MurmurError(f"nothing has happened for {STALL_SECONDS:g} s")
            if self.cut is None and done >= CUT_AT * self.corpus.file_count:
                self.cut_subscriber()
            elif self.cut is not None and not self.cut.resume.is_set():
                await self.resume_subscriber(self.cut)
            if self.killed is None and done >= KILL_AT * self.corpus.file_count:
                await self.kill_worker()
            await asyncio.sleep(0.2)

    async def poll_running(self) -> None:
        """Poll the status of the runs under way: their progress and their worker."""
        for run in self.runs:
            if run.state is not RunState.RUNNING:
                continue
            found = await run.handle.snapshot()
            worker = (found.worker or "").partition(".")[0] or None
            if run in self.orphans and run.attempt > 1 and worker != run.worker:
                self.say(f"took over {run.batch.name}: attempt {run.attempt}, by {worker}", "green")
            run.worker = worker
            if found.progress is not None and found.attempt == run.attempt:
                run.done = found.progress.completed
            name = run.batch.name + (" ↻" if run.attempt > 1 else "")
            self.board.update(run.bar, completed=run.done, description=name, visible=True)

    def cut_subscriber(self) -> None:
        """Cut the subscription of the run that has the most events to come."""
        running = [run for run in self.runs if run.state is RunState.RUNNING and run.seen]
        run = max(running, key=lambda run: run.expected_events, default=None)
        if run is None or run.expected_events < EXPECTED_EVENTS or run.subscription is None:
            return
        self.cut, run.cut_after = run, run.seen[-1].seq
        run.subscription.cancel()
        self.say(
            f"cut       the subscriber of {run.batch.name}, after event #{run.cut_after}", "yellow"
        )

    async def resume_subscriber(self, run: Watched) -> None:
        """Let the subscriber resume, once there are events that it has missed."""
        found = await run.handle.snapshot()
        missed = found.version - (run.cut_after or 0)
        if missed >= EXPECTED_EVENTS or found.state.is_terminal:
            run.resume.set()
            self.say(
                f"resumed   the subscriber of {run.batch.name} at its cursor; "
                f"{missed} entries were written meanwhile",
                "green",
            )

    async def kill_worker(self) -> None:
        """SIGKILL the worker that executes the most runs, and start another one."""
        held = Counter(run.worker for run in self.runs if run.state is RunState.RUNNING)
        del held[None]
        if not held:
            return
        name = self.killed = str(held.most_common(1)[0][0])
        self.workers[name].kill()
        await self.workers[name].wait()
        # It may have claimed others since the last poll; until its leases end, they stay its own.
        for run in self.runs:
            if run.state.is_terminal:
                continue
            found = await run.handle.snapshot()
            if found.state is RunState.RUNNING and f"{found.worker}".partition(".")[0] == name:
                run.worker = name
                self.orphans.append(run)
        orphans = ", ".join(run.batch.name for run in self.orphans)
        self.say(f"killed    {name} (SIGKILL) in the middle of {orphans}", "bold red")
        await self.start_worker()


async def run(
    path: Path | None, url: str, at: Sequence[str], console: Console
) -> tuple[bool, dict[str, Any]]:
    """Run the demo on the files under ``path``; returns whether the proof holds, and a summary.

    Args:
        path: a file or a folder; None: Python's standard library.
        url: of the Redis server, or ``embedded:``.
        at: the options that commands need to find that server; they are printed.
        console: where to print.
    """
    corpus = find_corpus(path)
    _cancel_on_signals()
    os.environ["MURMUR_URL"] = url  # for the fleet, in this process and in the workers
    board = Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    async with fleet:
        store = await fleet.store()
        await store.sweep()  # what expiry left behind of the last demo
        console.print(f"  [bold]murmur-streams demo[/]: reading {escape(corpus.title)}")
        demo = Demo(corpus, console, board)
        demo.say(f"server    {store.where}")
        await demo.play()
        report = merge([await run.handle.output(timeout=5) for run in demo.runs])
        print_ranking(console, report)
        proof = await prove(store, demo.runs)
        print_proof(console, proof, demo)
        shown: Sequence[Watched] = demo.orphans or demo.runs
        await print_commands(console, shown[0].handle.run_id, at)
    seconds = time.monotonic() - demo.began
    verdict = "[bold green]The proof holds.[/]"
    if not proof.holds:
        verdict = "[bold red]The proof does NOT hold; please report this.[/]"
    console.print(f"\n  {verdict} {seconds:.1f} s in all.")
    return proof.holds, {
        "holds": proof.holds,
        "seconds": round(seconds, 3),
        "runs": [run.handle.run_id for run in demo.runs],
        "taken_over": [run.handle.run_id for run in demo.orphans if run.attempt > 1],
        "killed": demo.killed,
        "cut": None if demo.cut is None else demo.cut.handle.run_id,
        "proof": asdict(proof),
        "report": report.model_dump(mode="json"),
    }


def _cancel_on_signals() -> None:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does, and stop its workers."""
    task = asyncio.current_task()
    for name in ("SIGTERM", "SIGHUP"):
        # Windows has neither of them for an event loop.
        with contextlib.suppress(AttributeError, NotImplementedError):
            if task is not None:
                asyncio.get_running_loop().add_signal_handler(getattr(signal, name), task.cancel)
