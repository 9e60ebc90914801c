"""The fleet that a command submits to, asks and tells."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from murmur_streams.cli.shell.loading import load_fleet
from murmur_streams.cli.shell.session import Session
from murmur_streams.fleet import Fleet

App = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:FLEET",
        help="Check target and input against this fleet first, and take the agent's deadline.",
    ),
]


def open_fleet(session: Session, app: str | None = None, *, may_be_new: bool = False) -> Fleet:
    """The user's fleet, which knows its agents and their inputs, or one that takes any name.

    Raises:
        StoreConfigurationError: there is no store, and none may be made (``may_be_new``).
    """
    session.check_is_store(may_be_new=may_be_new)
    if app is None:
        return Fleet(session.url, **session.redis_options)
    os.environ.update(session.to_environment())
    return load_fleet(app)
