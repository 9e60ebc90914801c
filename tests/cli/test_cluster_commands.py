"""Commands that are typed go to the node of a cluster that has their key."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any, cast

import pytest

from murmur_streams.cli.data.raw_server import key_in
from murmur_streams.embedded.cluster_group import SLOTS, ClusterGroup
from murmur_streams.embedded.launch import find_binary
from tests.cli.conftest import CommandLine
from tests.running_server import short_folder

KEYS = {
    "GET a": "a",
    "ssubscribe channel": "channel",
    "XRANGE a - +": "a",
    "XINFO STREAM a": "a",
    "OBJECT ENCODING a": "a",
    "EVALSHA sha 1 a b": "a",
    "EVALSHA sha 0": None,
    "FCALL name 1 a": "a",
    "XREAD COUNT 1 streams a b 0 0": "a",
    "PING": None,
    "SCAN 0": None,
    "CLUSTER NODES": None,
    "QUITE-NEW a": "a",
}
SPREAD = [f"key{number}" for number in range(9)]
"""Their slots lie on all of three nodes."""
OF_LAST_SLOT = "39296"


@pytest.fixture(scope="module")
def group() -> Iterator[ClusterGroup]:
    """Three primaries without replicas."""
    with short_folder() as folder:
        group = ClusterGroup(find_binary(), folder, replicas=0)
        try:
            group.start()
            yield group
        finally:
            group.stop()


@pytest.mark.parametrize("text", KEYS)
def test_the_key_of_a_command_is_found(text: str) -> None:
    """Its first one; none in a command without keys."""
    assert key_in(text.split()) == KEYS[text]


def test_each_command_goes_to_the_node_of_its_key(line: CommandLine, group: ClusterGroup) -> None:
    """Also one whose key is guessed wrong: the node's answer says where it belongs."""
    commands = [f"SET {key} {number}" for number, key in enumerate(SPREAD)]
    commands += [f"GET {key}" for key in SPREAD]
    commands += [f"BITOP NOT not-{{{key}}} {key}" for key in SPREAD]
    done = line.run("redis", "--url", group.url, stdin="\n".join(commands))
    assert (done.returncode, done.stderr) == (0, "")
    expected = ["OK"] * 9 + [str(number) for number in range(9)] + ["1"] * 9
    assert done.stdout.splitlines() == expected
    held = [_held(line, node.port) for node in group.nodes]
    assert len(held) == 3
    assert all(held)
    assert sum(map(len, held)) == 18


def _held(line: CommandLine, port: int) -> list[str]:
    found = line.run("redis", "--url", f"redis://127.0.0.1:{port}", "KEYS", "*")
    return found.stdout.splitlines()


def test_a_command_without_a_key_follows_the_one_before(
    line: CommandLine, group: ClusterGroup
) -> None:
    """So that a transaction stays on one node."""
    commands = "SET key1 a\nMULTI\nGET key1\nEXEC\nSET key2 a\nMULTI\nGET key2\nEXEC"
    done = line.run("redis", "--url", group.url, stdin=commands)
    assert done.stdout.split() == ["OK", "OK", "QUEUED", "a"] * 2


def test_an_error_of_a_node_is_printed(line: CommandLine, group: ClusterGroup) -> None:
    """Keys of two slots are one command too few."""
    done = line.run("redis", "--url", group.url, "MGET", "key1", "key2")
    assert done.returncode == 1
    assert done.stderr.startswith("(error) CROSSSLOT")


def test_the_printed_commands_work(line: CommandLine, group: ClusterGroup) -> None:
    """Every line of `keys` is executed, wherever its key is."""
    line.run("submit", "work", "--run-id", "looked-at", "--url", group.url)
    shown = line.run("keys", "looked-at", "--url", group.url)
    lines = [each for each in shown.stdout.splitlines() if not each.startswith("#")]
    assert len(lines) > 8
    for each in lines:
        program, *argv = shlex.split(each)
        done = line.run(*argv)
        assert (program, done.returncode, done.stderr) == ("murmur-streams", 0, "")
    number = line.run("partitions", "show", "--url", group.url, "--json")
    assert json.loads(number.stdout)["partitions"] == 16


def test_the_number_of_partitions_is_raised(line: CommandLine, group: ClusterGroup) -> None:
    """Each partition records it, on whichever node it is, and all programs go on with it."""
    where = ("--url", group.url, "--prefix", "raised")
    line.run("runs", *where)
    done = line.run("partitions", "raise", "20", *where)
    assert (done.returncode, done.stderr) == (0, "")
    assert line.run("partitions", "show", *where).stdout == "20 (earlier runs: 16)\n"
    assert line.run("runs", *where).returncode == 0
    assert line.run("partitions", "forget", *where).stdout == "20\n"
    commands = "\n".join(f"HGET raised:{{{number}}}:meta partitions" for number in range(20))
    assert line.run("redis", *where, stdin=commands).stdout.split() == ["20"] * 20
    assert line.run("runs", *where, MURMUR_PARTITIONS="16").returncode == 2
    assert line.run("runs", *where).returncode == 0


def test_a_slot_that_no_node_serves_is_an_error(line: CommandLine, group: ClusterGroup) -> None:
    """The keys of other slots are still there."""
    for node in group.nodes:
        with node.client as client:
            cast("Any", client).execute_command("CLUSTER", "DELSLOTS", SLOTS - 1)
    done = line.run("redis", "--url", group.url, "GET", OF_LAST_SLOT)
    assert (done.returncode, done.stderr[:19]) == (1, "(error) CLUSTERDOWN")
    assert line.run("redis", "--url", group.url, "SET", "key1", "b").stdout == "OK\n"
