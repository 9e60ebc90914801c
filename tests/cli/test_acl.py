"""``murmur-streams acl``: a line to copy, for each role, without a server."""

from __future__ import annotations

import json

from murmur_streams.stores.redis.roles import Role, Way, rights_of
from tests.cli.conftest import CommandLine


def test_the_line_of_a_role_is_printed(line: CommandLine) -> None:
    """It stands alone on stdout, with the prefix of the settings, and no server is started."""
    shown = line.run("acl", "worker", MURMUR_KEY_PREFIX="shop:runs")
    assert (shown.returncode, shown.stderr) == (0, "")
    expected = rights_of(Role.WORKER, "shop:runs").line("murmur-worker", "PASSWORD")
    assert shown.stdout == expected + "\n"
    assert line.run("acl", "worker", "--prefix", "shop:runs").stdout == shown.stdout


def test_the_options_of_a_role(line: CommandLine) -> None:
    """Name, way, database of the URL, replicated writes, Sentinels; as JSON, too."""
    argv = ("acl", "api", "--json", "--user", "web", "--way", "scripts")
    url = "redis://web:hunter2@127.0.0.1:1/3"
    shown = line.run(*argv, MURMUR_URL=url, MURMUR_DURABILITY="replicated")
    known = json.loads(shown.stdout)
    rights = rights_of(Role.API, "murmur:runs", Way.SCRIPTS, is_replicated=True, has_database=True)
    assert known == {
        "role": "api",
        "user": "web",
        "keys": [*rights.keys],
        "channels": [],
        "commands": [*rights.commands],
        "rules": rights.rules,
        "line": rights.line("web", "PASSWORD"),
    }
    assert "hunter2" not in shown.stdout + shown.stderr
    of_cluster = line.run("acl", "worker", MURMUR_URL="redis+cluster://127.0.0.1:1").stdout.split()
    assert {"+ssubscribe", "+cluster|slots", "&murmur:runs:*"} <= set(of_cluster)
    assert line.run("acl", "worker", "--cluster").stdout.split() == of_cluster
    at_sentinels = line.run("acl", "reader", "--sentinel").stdout.split()
    assert {"+sentinel|master", "&+switch-master", "resetkeys"} <= set(at_sentinels)


def test_a_command_line_that_only_reads(line: CommandLine) -> None:
    """With MURMUR_READ_ONLY=1 commands look at runs, and those that would write say why not."""
    assert line.run("submit", "echo", '"hi"', "--run-id", "r-1").returncode == 0
    for argv in (["runs"], ["show", "r-1"], ["audit", "r-1"], ["keys", "r-1"], ["workers"]):
        shown = line.run(*argv, MURMUR_READ_ONLY="1")
        assert shown.returncode == 0, shown.stderr
    for argv in (["submit", "echo"], ["cancel", "r-1"], ["pause", "echo"], ["rebuild", "r-1"]):
        refused = line.run(*argv, MURMUR_READ_ONLY="1")
        assert refused.returncode == 2
        assert "MURMUR_READ_ONLY" in refused.stderr
    assert '"pending"' in line.run("show", "r-1", "--json").stdout


def test_what_is_not_a_role_or_a_name_is_refused(line: CommandLine) -> None:
    """With exit code 2, and the choices."""
    shown = line.run("acl", "boss")
    assert shown.returncode == 2
    assert "operator" in shown.stderr
    assert line.run("acl", "api", "--user", "two words").returncode == 2
