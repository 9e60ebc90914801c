"""The program with all its commands."""

from __future__ import annotations

import typer

from murmur_streams.cli.data import (
    audit,
    export_runs,
    import_runs,
    keys,
    partitions,
    rebuild,
    redis,
    server,
)
from murmur_streams.cli.runs import cancel, list_runs, result, retry, show, submit, tail
from murmur_streams.cli.shell import settings
from murmur_streams.cli.shell.command import AsJson, Debug, Prefix, Server, TokenFile, Url
from murmur_streams.cli.shell.session import Globals
from murmur_streams.cli.shell.version import Version, register_version
from murmur_streams.cli.work import dead, demo, dev, pause, serve, token, worker, workers

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


@app.callback()
def begin(
    ctx: typer.Context,
    url: Url = None,
    prefix: Prefix = None,
    as_json: AsJson = False,
    debug: Debug = False,
    server_url: Server = None,
    token_file: TokenFile = None,
    version: Version = False,  # noqa: ARG001  # it prints and ends before this is called
) -> None:
    """Store the options that stand before the command."""
    ctx.obj = Globals(url, prefix, as_json, debug, server_url, token_file)


for module in (
    *(demo, dev, worker, workers, pause, serve, token),
    *(submit, tail, result, cancel, retry, list_runs, show, dead),
    *(export_runs, import_runs),
    *(keys, audit, rebuild, partitions, redis, server, settings),
):
    module.register(app)
register_version(app)
