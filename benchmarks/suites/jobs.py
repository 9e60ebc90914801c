"""No-op jobs of one worker process, and one job at a time: ours beside other engines over Redis."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.program import ROOT, Order, Program, process_of
from benchmarks.harness.results import Reading
from benchmarks.harness.session import BULLMQ, Session, Step
from benchmarks.peers.engine import URL

FOLDER = Path(sys.prefix) / "peers"
"""`make bench-peers` installs each peer in a folder of its own here."""
BULLMQ_APP = str(ROOT / "benchmarks" / "peers" / "bullmq_app.mjs")
OWN_APP = "benchmarks.peers.ours_app"
CLIENT = "benchmarks.peers.client"
WORKER = "benchmarks.peers.worker"


@dataclass(frozen=True, slots=True)
class JobEngine:
    """An engine: the commands of its worker and of its caller, and where they run."""

    name: str
    worker: tuple[str, ...]
    client: tuple[str, ...]
    environment: dict[str, str]
    folder: Path = ROOT
    path: str | None = None


async def jobs(session: Session) -> None:
    """Each step starts the engine's worker anew: an idle worker would take time from the others."""
    engines, sizes = _engines(session), session.sizes
    for work, count in (("jobs", sizes.jobs), ("ask", sizes.asked)):
        steps = [_step(session, engine, work, count) for engine in engines]
        await session.interleave("jobs", steps)


def _step(session: Session, engine: JobEngine, work: str, count: int) -> Step:
    order, failed = Order(work, "redis", session.url, {"count": count}), list[str]()

    async def do(_is_warm_up: bool) -> list[Reading]:
        try:
            return [] if failed else await _done(engine, order)
        except RuntimeError as error:
            failed.append(str(error))
            session.miss(f"{engine.name}: {error}")
            return []

    return Step(engine.name, do)


async def _done(engine: JobEngine, order: Order) -> list[Reading]:
    folder, path, environment = engine.folder, engine.path, engine.environment
    async with (
        process_of(
            *engine.worker, folder=folder, path=path, is_silent=True, environment=environment
        ),
        process_of(*engine.client, folder=folder, path=path, environment=environment) as client,
    ):
        return await Program(engine.name, client).do(order)


def _engines(session: Session) -> list[JobEngine]:
    environment = {URL: session.url}
    ours = [
        _engine(each.name, OWN_APP, environment, each.folder, each.path) for each in session.ours
    ]
    if not session.has_others:
        return ours
    peers: list[JobEngine] = []
    for name in session.sizes.peers:
        folder = FOLDER / name.lower()
        if not folder.is_dir():
            session.miss(f"{name} is not installed: `make bench-peers` installs it")
        elif name == BULLMQ:
            node = shutil.which("node") or ""
            worker, client = ((node, BULLMQ_APP, role) for role in ("worker", "client"))
            peers.append(
                JobEngine(name, worker, client, environment | {"NODE_FOLDER": str(folder)})
            )
        else:
            path = f"{folder}:{ROOT}"
            peers.append(_engine(name, f"benchmarks.peers.{name}_app", environment, ROOT, path))
    return [*ours, *peers]


def _engine(
    name: str, module: str, environment: dict[str, str], folder: Path, path: str | None
) -> JobEngine:
    return JobEngine(
        name,
        (sys.executable, "-m", WORKER, module, environment[URL]),
        (sys.executable, "-m", CLIENT, module),
        environment,
        folder,
        path,
    )
