"""``murmur-streams acl ROLE``: the least rights of a program at the server, to copy."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from murmur_streams.cli.shell.command import command
from murmur_streams.cli.shell.session import Session
from murmur_streams.fleet.stores import kind_on_disk
from murmur_streams.stores.redis.connection.maker import ConnectionMaker
from murmur_streams.stores.redis.connection.urls import client_from_url
from murmur_streams.stores.redis.roles import Role, Way, rights_at_sentinels, rights_of

PASSWORD = "PASSWORD"  # noqa: S105  # what the reader replaces
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")

TheRole = Annotated[Role, typer.Argument(metavar="ROLE", help="api, worker, reader or operator.")]
User = Annotated[str | None, typer.Option("--user", metavar="NAME", help="Default: murmur-ROLE.")]
HowCalled = Annotated[
    Way,
    typer.Option(
        "--way",
        help="How scripts are called: functions, for servers from 7.0 on; preloaded: as functions "
        "that an operator has loaded; scripts: for servers before 7.0, or that refuse functions.",
    ),
]
AtSentinels = Annotated[
    bool, typer.Option("--sentinel", help="The rights at the Sentinels, not at the servers.")
]
OfCluster = Annotated[
    bool, typer.Option("--cluster", help="For a node of a cluster; so for redis+cluster:// URLs.")
]
Replicated = Annotated[
    bool,
    typer.Option("--replicated", help="For MURMUR_DURABILITY=replicated, also the default then."),
]


@command("acl")
def acl(  # one for each option
    session: Session,
    role: TheRole,
    user: User = None,
    way: HowCalled = Way.FUNCTIONS,
    sentinel: AtSentinels = False,
    cluster: OfCluster = False,
    replicated: Replicated = False,
) -> None:
    """Print the least rights of a program, as the line that makes its user at the server.

    api: submits, cancels, lists and streams runs, as pods and your own programs do. worker: also
    executes them. reader: looks at runs and streams them and writes nothing; its programs set
    MURMUR_READ_ONLY=1. operator: audits, rebuilds, purges, and looks around by hand.

    The line needs another password in the position of PASSWORD, and the prefix of the programs:
    --prefix or MURMUR_KEY_PREFIX. Nothing is sent to a server.

    Examples:
        murmur-streams acl api
        murmur-streams acl worker --user crew --prefix shop:runs
        murmur-streams acl reader --way scripts
        murmur-streams acl worker --sentinel
        murmur-streams acl worker --cluster
        murmur-streams acl api | sed "s/PASSWORD/$SECRET/" | redis-cli
    """
    name = user or f"murmur-{role}"
    if not _USER.fullmatch(name):
        raise typer.BadParameter(
            "a user has 1 to 64 characters of A-Z a-z 0-9 . _ @ - and begins with a letter or digit"
        )
    if sentinel:
        rights = rights_at_sentinels()
    else:
        rights = rights_of(
            role,
            session.prefix,
            way,
            is_replicated=replicated or session.settings.durability == "replicated",
            has_database=_has_database(session),
            is_cluster=cluster or "+cluster:" in session.url,
        )
    line = rights.line(name, PASSWORD)
    known = {"keys": rights.keys, "channels": rights.channels, "commands": rights.commands}
    known |= {"rules": rights.rules, "line": line}
    session.print({"role": role, "user": name, **known}, line)


def _has_database(session: Session) -> bool:
    """Whether the URL names another database than 0: its programs then call SELECT."""
    url = session.url
    has_none = session.is_embedded or url.startswith("memory:") or "+cluster:" in url
    if has_none or kind_on_disk(url):
        return False
    return bool(ConnectionMaker.of(client_from_url(url)).settings.get("db"))
