"""The story: submit, watch, cut a subscriber, kill a worker, wait for the end."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from murmur_streams.cli.demo.agents import fleet, reviewer
from murmur_streams.cli.demo.corpus import Corpus
from murmur_streams.cli.demo.crew import Crew, WorkerProcess
from murmur_streams.cli.demo.reports import Report, Sources
from murmur_streams.cli.demo.screen import Screen, counted
from murmur_streams.cli.demo.watching import Watched
from murmur_streams.core.model.errors import MurmurError, RunFailedError
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.store import RedisRunStore, redis_only

CUT_AT = 0.12
KILL_AT = 0.3
"""Shares of the files that are done by then."""
LOOK_SECONDS = 0.2
STALL_SECONDS = 45.0
LEAST_TO_COME = 3


class StalledError(MurmurError):
    """Nothing has happened for so long that nothing will."""


@dataclass
class Story:
    """What happened, for the report and the proof."""

    corpus: Corpus
    runs: list[Watched]
    cut: Watched | None = None
    killed: WorkerProcess | None = None
    orphans: list[Watched] = field(default_factory=list[Watched])
    """The runs that the killed worker was executing."""
    seconds: float = 0.0
    reports: dict[str, Report] = field(default_factory=dict[str, Report])


async def play(corpus: Corpus, screen: Screen, environ: Mapping[str, str]) -> Story:
    """Play the whole story; however it ends, no worker and no unfinished run is left."""
    tag = secrets.token_hex(2)
    story = Story(corpus, [Watched(batch, f"{batch.name}-{tag}") for batch in corpus.batches])
    store = redis_only(await fleet.store())
    await store.sweep()  # what expiry left behind of the last demo
    screen.say(f"server    {store.where}")
    try:
        async with Crew(environ) as crew:
            for worker in (await crew.start(), await crew.start()):
                screen.say(f"worker    {worker.name} is process {worker.pid}")
            await _submit(story, screen)
            await _watch(story, crew, screen, store)
    except BaseException:
        await _remove_unfinished(story, store)
        raise
    for run in story.runs:
        story.reports[run.name] = await _report(run)
    return story


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names for a sentence: not more than fit."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"


async def _submit(story: Story, screen: Screen) -> None:
    corpus = story.corpus
    for run in story.runs:
        sources = Sources(root=corpus.root, files=list(run.batch.files))
        await fleet.submit(reviewer, sources, run_id=run.run_id, metadata={"corpus": corpus.title})
    screen.say(
        f"submitted {counted(len(story.runs), 'run')} over {counted(corpus.file_count, 'file')}"
    )


async def _watch(story: Story, crew: Crew, screen: Screen, store: RedisRunStore) -> None:
    screen.begin_board(story.runs)
    try:
        async with asyncio.TaskGroup() as tasks:
            subscribers = [tasks.create_task(_follow(run, screen)) for run in story.runs]
            director = tasks.create_task(_direct(story, crew, screen, store))
            await asyncio.wait(subscribers)
            director.cancel()
    except BaseExceptionGroup as group:
        # One of them is what happened; the others were only in the same boat.
        raise group.exceptions[0] from None
    story.seconds = screen.seconds
    screen.end_board()


async def _follow(run: Watched, screen: Screen) -> None:
    await run.subscribe()
    screen.ended(run)


async def _direct(story: Story, crew: Crew, screen: Screen, store: RedisRunStore) -> None:
    """Keep the board current, and do the two mean things when it is time for them."""
    loop = asyncio.get_running_loop()
    last_change, last_picture = loop.time(), (-1, -1)
    taken_over: set[str] = set()
    while True:
        await _look(story.runs, store)
        crew.check()
        done = sum(run.done_files for run in story.runs)
        picture = (done, sum(len(run.seen) for run in story.runs))
        if picture != last_picture:
            last_change, last_picture = loop.time(), picture
        elif loop.time() - last_change > STALL_SECONDS:
            raise StalledError(f"nothing has happened for {STALL_SECONDS:g} s; the demo gives up")
        if story.cut is None and done >= CUT_AT * story.corpus.file_count:
            _cut_one(story, screen)
        if story.cut is not None:
            await _resume(story.cut, screen, store)
        if story.killed is None and done >= KILL_AT * story.corpus.file_count:
            await _kill_one(story, crew, screen, store)
        _tell_take_overs(story, screen, taken_over)
        await asyncio.sleep(LOOK_SECONDS)


async def _look(runs: list[Watched], store: RedisRunStore) -> None:
    """Poll the runs under way: one read each, of what the journal's fold says now."""
    for run in runs:
        if run.is_running:
            found = await store.snapshot(run.run_id)
            run.worker = _name(found)
            if run.is_running and found.progress is not None and found.attempt == run.attempt:
                run.done_files = found.progress.completed


def _name(run: Run) -> str | None:
    """The name that the crew gave the run's worker; each life of it has a suffix of its own."""
    return None if run.worker is None else run.worker.partition(".")[0]


def _cut_one(story: Story, screen: Screen) -> None:
    """Cut the subscriber of the run that has most left to tell."""
    able = [run for run in story.runs if run.is_running and run.expected_events >= LEAST_TO_COME]
    if not able:
        return
    run = story.cut = max(able, key=lambda run: run.expected_events)
    cut = run.break_off()
    screen.say(f"cut       the subscriber of {run.name}, after event #{cut.after_seq}", "yellow")


async def _resume(run: Watched, screen: Screen, store: RedisRunStore) -> None:
    """Let it go on once there is something that it has missed."""
    cut = run.cut
    if cut is None or cut.resume.is_set():
        return
    found = await store.snapshot(run.run_id)
    missed = found.version - cut.after_seq
    if missed >= LEAST_TO_COME or found.state.is_terminal:
        cut.resume.set()
        screen.say(
            f"resumed   the subscriber of {run.name} by its cursor; "
            f"{missed} entries were written meanwhile",
            "green",
        )


async def _kill_one(story: Story, crew: Crew, screen: Screen, store: RedisRunStore) -> None:
    """SIGKILL the worker that is in the middle of the most runs, and start another one."""
    held = Counter(run.worker for run in story.runs if run.is_running and run.worker)
    if not held:
        return
    name, _ = held.most_common(1)[0]
    story.killed = await crew.kill(name)
    # It may have begun others since the last look; the store knows, and nobody takes over yet.
    for run in story.runs:
        if not run.state.is_terminal:
            found = await store.snapshot(run.run_id)
            if found.state is RunState.RUNNING and _name(found) == name:
                story.orphans.append(run)
    screen.say(
        f"killed    {name} (SIGKILL, process {story.killed.pid}) in the middle of "
        + listed([run.name for run in story.orphans]),
        "bold red",
    )
    worker = await crew.start()
    screen.say(f"worker    {worker.name} is process {worker.pid}")


def _tell_take_overs(story: Story, screen: Screen, told: set[str]) -> None:
    for run in story.orphans:
        if run.attempt > 1 and run.run_id not in told and run.worker:
            told.add(run.run_id)
            screen.say(f"took over {run.name}: attempt {run.attempt}, by {run.worker}", "green")


async def _report(run: Watched) -> Report:
    try:
        return await fleet.handle(run.run_id, reviewer).output(timeout=5)
    except RunFailedError as error:
        raise RunFailedError(run.run_id, f"the demo's own agent failed: {error.error}") from None


async def _remove_unfinished(story: Story, store: RedisRunStore) -> None:
    """A demo that was cut off leaves no work for the workers of the next one."""
    for run in story.runs:
        if not run.state.is_terminal:
            with contextlib.suppress(MurmurError):
                await asyncio.shield(store.delete(run.run_id, force=True))
