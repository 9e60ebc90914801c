"""A parent from its start to its end: signals, probes, reload, and the processes it keeps."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from murmur_streams.cli.shell.printing import print_json
from murmur_streams.cli.shell.session import Session
from murmur_streams.cli.supervisor.child import Child
from murmur_streams.cli.supervisor.health import HealthFile, fresh_seconds
from murmur_streams.cli.supervisor.options import Options
from murmur_streams.cli.supervisor.parent import Parent
from murmur_streams.cli.supervisor.probes import serve_probes
from murmur_streams.cli.supervisor.reload import changed_files
from murmur_streams.cli.supervisor.supervisor_health import CrewHealth
from murmur_streams.core.model.errors import InvalidInputError

logger = logging.getLogger("murmur_streams.processes")


def keep_processes(
    session: Session, options: Options, began: Callable[[Child], None] = lambda _: None
) -> int:
    """Keep worker processes until told to stop; returns the exit code.

    Args:
        session: of the command.
        options: of the workers.
        began: called when the first of them works.
    """
    if os.name == "nt":
        raise InvalidInputError("--processes and --reload need Linux or macOS")
    return asyncio.run(_keep(session, options, began))


async def _keep(session: Session, options: Options, began: Callable[[Child], None]) -> int:
    file = None if options.probes.file is None else HealthFile(options.probes.file)
    health = CrewHealth(
        options.processes,
        fresh_seconds(options.lease_seconds),
        (lambda: None) if file is None else file.touch,
    )
    more = ["--json"] if session.as_json else []
    more += ["--debug"] if session.given.debug else []
    parent = Parent(options, more, health, began)
    try:
        async with serve_probes(options.probes, health) as address:
            if session.as_json:
                told = {"parent": os.getpid(), "processes": options.processes}
                print_json(told | ({"health": address} if address else {}))
            code = await (_reloaded(parent) if options.reload else parent.run())
    finally:
        if file is not None:
            file.remove()
    if session.as_json:
        print_json({"parent": os.getpid(), "stopped": True})
    return code


async def _reloaded(parent: Parent) -> int:
    watching = asyncio.create_task(_restart_on_change(parent))
    running = asyncio.create_task(parent.run())
    try:
        await asyncio.wait([watching, running], return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            watching.result()
        return await running
    finally:
        watching.cancel()
        running.cancel()
        await asyncio.gather(watching, running, return_exceptions=True)


async def _restart_on_change(parent: Parent) -> None:
    async for names in changed_files(Path.cwd()):
        logger.warning("%s changed; the worker is started again", ", ".join(names[:3]))
        parent.restart()
