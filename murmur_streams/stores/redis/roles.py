"""The least rights of the programs that use a server, by role.

The commands are those that a store checks at its start (``connection/checks.py``), and these come
from the text of the scripts. So a role has no list of its own that could miss a command.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from murmur_streams.stores.redis import script_rights
from murmur_streams.stores.redis.connection import checks, sentinel
from murmur_streams.stores.redis.keys import Keys


class Role(StrEnum):
    """What a program does with the runs."""

    API = "api"
    WORKER = "worker"
    READER = "reader"
    OPERATOR = "operator"


class Way(StrEnum):
    """How a store calls its scripts."""

    FUNCTIONS = "functions"
    PRELOADED = "preloaded"
    """As functions that another user has loaded."""
    SCRIPTS = "scripts"
    """On servers before 7.0, and on those that refuse functions."""


_CALLING = {
    Way.FUNCTIONS: {"fcall", "function|load"},
    Way.PRELOADED: {"fcall"},
    Way.SCRIPTS: {"evalsha", "script|exists", "script|load"},
}
_LOOKS = frozenset({"info", "role"})
"""What every store asks, and works without: INFO for its warnings, ROLE after a failover."""
_AROUND = "acl|whoami command dbsize memory|usage object|encoding scan type xlen"
"""What an operator calls by hand, besides the commands of the store."""
_AT_SENTINELS = "ping sentinel|get-master-addr-by-name sentinel|master subscribe"
_WITH_SUBCOMMANDS = frozenset({"XGROUP", "XINFO"})


@dataclass(frozen=True, slots=True)
class Rights:
    """What a user may do: everything else is denied."""

    keys: tuple[str, ...]
    channels: tuple[str, ...]
    commands: tuple[str, ...]

    @property
    def rules(self) -> str:
        """The rules of the user, without its name and password, for services that ask for these."""
        keys = self.keys or ("resetkeys",)
        granted = [f"+{name}" for name in self.commands]
        return " ".join(["on", *keys, "resetchannels", *self.channels, "-@all", *granted])

    def line(self, user: str, password: str) -> str:
        """The command that makes the user, whatever it was before."""
        return f"ACL SETUSER {user} reset >{password} {self.rules}"


def rights_of(
    role: Role,
    prefix: str,
    way: Way = Way.FUNCTIONS,
    *,
    is_replicated: bool = False,
    has_database: bool = False,
    is_cluster: bool = False,
) -> Rights:
    """The rights of a role at the server of the runs; at each server, if there are several.

    Args:
        role: what the program does.
        prefix: the beginning of every key.
        way: how it calls scripts.
        is_replicated: whether its writes wait for replicas.
        has_database: whether its URL names another database than 0.
        is_cluster: whether the servers are nodes of a cluster, replicas included.
    """
    granted = _rights(checks.READ_PROBES) | _LOOKS
    if role is not Role.READER:
        optional = {each.lower() for each in script_rights.MAY_BE_DENIED}
        granted |= _rights((*checks.PROBES, *checks.OWN_PROBES)) | optional | _CALLING[way]
    if role is Role.WORKER:
        granted |= _rights(checks.WORKER_PROBES)
    if role is Role.OPERATOR:
        granted |= set(_AROUND.split())
    if role is Role.OPERATOR and way is not Way.SCRIPTS:
        # It loads the library for users that may not, and removes those of earlier versions.
        granted |= {"function|delete", "function|load"}
    if is_cluster:
        granted |= _of_cluster(role)
    if is_replicated and role is not Role.READER:
        granted |= _rights(checks.REPLICATED_PROBES)
    if has_database:
        granted |= {"select"}
    # Servers before 7.0 know no right to a key that is for reading alone.
    form = "%R~" if role is Role.READER and way is not Way.SCRIPTS else "~"
    own = f"{Keys(prefix).prefix}:*"
    channels = (f"&{own}",) if is_cluster and role is not Role.READER else ()
    return Rights((f"{form}{own}",), channels, tuple(sorted(granted)))


def _of_cluster(role: Role) -> set[str]:
    """What a cluster needs besides: its nodes are found, and its workers are woken by messages."""
    finding = {"cluster|nodes", "cluster|slots"}
    if role is Role.READER:
        return finding
    listening = {"ssubscribe"} if role is Role.WORKER else set[str]()
    return finding | listening | _rights(checks.CLUSTER_PROBES)


def rights_at_sentinels() -> Rights:
    """The rights of every role at the Sentinels."""
    channels = tuple(f"&{channel}" for channel in sentinel.CHANNELS)
    return Rights((), channels, tuple(_AT_SENTINELS.split()))


def _rights(probes: Iterable[str]) -> set[str]:
    """The rights to call commands, each in the form in which the store calls it."""
    rights: set[str] = set()
    for probe in probes:
        name, *arguments = probe.split()
        parts = [name, arguments[0]] if name in _WITH_SUBCOMMANDS else [name]
        rights.add("|".join(parts).lower())
    return rights
