"""The program with all its commands."""

from __future__ import annotations

import typer

from murmur_streams.cli.data import (
    acl,
    audit,
    export_runs,
    import_runs,
    keys,
    partitions,
    redis,
    server,
)
from murmur_streams.cli.runs import cancel, show, submit, watch
from murmur_streams.cli.shell.about import Version, show_settings, show_version
from murmur_streams.cli.shell.options import parameters_of, with_options
from murmur_streams.cli.shell.session import Globals
from murmur_streams.cli.work import dead, demo, serve, worker, workers

HELP = """Event-sourced runs: submit work, watch it live, look inside afterwards.

They are on Redis, or in a file on this machine: --url sqlite:runs.db. Without --url or \
MURMUR_URL, everything happens on the embedded server: the first command starts it, and it ends \
by itself.
"""
EPILOG = """Begin here:

$ murmur-streams demo

$ murmur-streams worker app:fleet

$ murmur-streams submit researcher '{"text": "why?"}' --follow

Exit codes: 0 completed, 1 failed, 2 usage or configuration, 3 cancelled, 130 interrupted, \
141 the reader of stdout has ended.
"""

app = typer.Typer(
    name="murmur-streams",
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def begin(
    ctx: typer.Context,
    given: Globals,
    version: Version = False,  # noqa: ARG001  # it prints and ends before this is called
) -> None:
    """Store the options that stand before the command."""
    ctx.obj = given


app.callback()(with_options(begin, parameters_of(begin)))
for register in (
    *(demo.demo, worker.dev, worker.worker, workers.workers, workers.pause, workers.resume),
    *(serve.serve, serve.token, submit.submit, watch.tail, watch.result, cancel.cancel),
    *(submit.retry, show.runs, show.show, dead.dead),
    *(export_runs.export, import_runs.import_, keys.keys, audit.audit, audit.rebuild),
    *(partitions.partitions, redis.redis, acl.acl, server.server, show_settings, show_version),
):
    register(app)
