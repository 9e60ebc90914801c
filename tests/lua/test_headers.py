"""Every script says what it takes, answers, writes and costs, and says the truth."""

from __future__ import annotations

import re

import pytest

from murmur_streams.stores.redis.scripts import load_scripts
from tests.key_audit import key_table
from tests.lua.generated import failure_texts_lua, states_lua
from tests.lua.headers import (
    INCLUDES,
    SCRIPTS,
    Row,
    code_of,
    header_of,
    included,
    names_of,
    path_of,
    reachable_code,
    used_names,
)

every_script = pytest.mark.parametrize("script", SCRIPTS)
every_file = pytest.mark.parametrize(
    ("name", "include"),
    [(name, False) for name in SCRIPTS] + [(name, True) for name in INCLUDES],
)
ARGUMENT = re.compile(r"(text|texts|integer|0 or 1)( or '')?\b.*")
GROUPS = re.compile(r"groups: \w+ (text|integer)( or '')?(, \w+ (text|integer|texts)( or '')?)*")
"""As often as the row before says: these arguments, of which the last may be a list."""
ANSWER = re.compile(r"([A-Z_]+)((?: \(?\w+\*?|\s\w+\)\*)*)(?:\s{2,}.+)?")
ANSWER_OF_EACH = re.compile(r"each ([A-Z_]+) (\w+|-)")
"""Two texts for each group."""
SHARED = ("run_id", "producer", "n", "now_ms", "feed_max", "live_ttl_ms", "max_events")
"""The arguments that every numbered write gets, whether it needs them or not."""
WRITING = re.compile(
    r"redis\.call\('(HSET|HSETNX|HDEL|XADD|XTRIM|SET|DEL|ZADD|ZREM|PEXPIREAT|PERSIST)', ([\w.]+)"
)


def tags_in(code: str) -> set[str]:
    """Every upper-case tag that begins a table, or a pair of texts."""
    return set(re.findall(r"(?:\{|return |= )'([A-Z_]+)'(?=[,}])", code))


def is_list(row: Row) -> bool:
    """Whether the row stands for any number of arguments."""
    return row.rest.startswith(("texts", "groups"))


@every_script
def test_a_header_begins_with_a_summary(script: str) -> None:
    """The summary is one sentence."""
    assert re.fullmatch(r"[A-Z].*\.", header_of(script).summary)


@every_script
def test_a_header_has_the_cost(script: str) -> None:
    """The commands that a call executes."""
    assert header_of(script).cost


@every_script
def test_keys_and_arguments_are_numbered_without_a_gap(script: str) -> None:
    """The numbers begin with 1."""
    header = header_of(script)
    for rows in (header.keys, header.argv):
        assert [row.number for row in rows] == list(range(1, len(rows) + 1))


@every_script
def test_no_two_rows_of_a_section_have_one_name(script: str) -> None:
    """Names can be searched for."""
    header = header_of(script)
    for rows in (header.keys, header.argv):
        assert len({row.name for row in rows}) == len(rows)


@every_script
def test_a_key_is_a_row_of_the_key_table_with_its_type(script: str) -> None:
    """The prefix of a partition is allowed, too."""
    table = {row.key: row.type for row in key_table()}
    for row in header_of(script).keys:
        kind, key = row.rest.split()
        assert (kind, key) == ("prefix", "<prefix>:{p}") or table.get(key) == kind


@every_script
def test_an_argument_has_a_known_type(script: str) -> None:
    """It is text, an integer, or one of a few other types."""
    argv = header_of(script).argv
    strangers = [
        row
        for row in argv
        if not (ARGUMENT if row.rest[:6] != "groups" else GROUPS).fullmatch(row.rest)
    ]
    assert strangers == []


@every_script
def test_groups_come_after_their_number(script: str) -> None:
    """So that a script knows how many there are."""
    argv = header_of(script).argv
    if argv[-1].rest.startswith("groups"):
        assert argv[-2].rest == "integer"


@every_script
def test_the_keys_that_are_used_are_those_that_are_declared(script: str) -> None:
    """Script and includes are searched for KEYS."""
    used = {int(number) for number in re.findall(r"KEYS\[(\d+)\]", reachable_code(script))}
    assert used == {row.number for row in header_of(script).keys}


@every_script
def test_the_arguments_that_are_used_are_those_that_are_declared(script: str) -> None:
    """Script and includes are searched for ARGV."""
    code, argv = reachable_code(script), header_of(script).argv
    used = {int(number) for number in re.findall(r"ARGV\[(\d+)\]", code)}
    for first in re.findall(r"read_events\((\d+),", code):
        used.add(int(first))
    # A list is read by a computed index, ARGV[5 + i] or from there on, and is always the last row.
    last = argv[-1].number
    if is_list(argv[-1]) and re.search(rf"ARGV\[\d+ \+ |\b(?:at|i) = {last}\b", code):
        used.add(last)
    if tuple(row.name for row in argv[: len(SHARED)]) == SHARED:
        used |= set(range(1, len(SHARED) + 1))
    assert used == {row.number for row in argv}


@every_script
def test_only_the_last_argument_is_a_list(script: str) -> None:
    """Everything after it would have no fixed number."""
    assert not any(is_list(row) for row in header_of(script).argv[:-1])


@every_script
def test_the_answers_that_are_given_are_those_that_are_declared(script: str) -> None:
    """The tags of all answers are compared."""
    declared = {line.removeprefix("each ").split()[0] for line in header_of(script).returns}
    assert tags_in(reachable_code(script)) == declared


@every_script
def test_an_answer_is_a_tag_and_the_names_of_its_fields(script: str) -> None:
    """Each row of RETURNS has this form."""
    odd = [
        line
        for line in header_of(script).returns
        if not ANSWER.fullmatch(line) and not ANSWER_OF_EACH.fullmatch(line)
    ]
    assert odd == []


@every_script
def test_a_script_answers_for_each_of_its_groups_or_has_none(script: str) -> None:
    """Both are declared together."""
    header = header_of(script)
    answers_each = any(line.startswith("each ") for line in header.returns)
    assert answers_each == header.argv[-1].rest.startswith("groups")


@every_script
def test_what_is_written_is_a_declared_key(script: str) -> None:
    """The row WRITES names keys of the header."""
    header = header_of(script)
    assert header.writes
    assert set(header.writes) <= {row.name for row in header.keys}


@every_script
def test_keys_that_are_written_by_name_are_declared(script: str) -> None:
    """Each writing command on a key of the run is in the row WRITES."""
    header = header_of(script)
    names = {row.name for row in header.keys}
    written = {key.removeprefix("keys.") for _, key in WRITING.findall(code_of(path_of(script)))}
    assert {name for name in written if name in names} <= set(header.writes)


@every_file
def test_a_file_names_each_include_that_it_uses(name: str, include: bool) -> None:
    """Each called function's own include is named, and no include is named in vain."""
    used = used_names(path_of(name, include=include))
    others = [each for each in INCLUDES if not (include and each == name)]
    needed = {each for each in others if names_of(each) & used}
    assert set(included(name, include=include)) == needed


@every_script
def test_an_include_comes_before_what_uses_it(script: str) -> None:
    """Lua calls a local function only below its definition."""
    text = load_scripts()[script].text
    for match in re.finditer(r"^local function (\w+)\(", text, re.MULTILINE):
        before = text[: match.start()]
        assert not re.search(rf"\b{match[1]}\(", before), f"{match[1]} is used before it is there"


@every_file
def test_every_include_exists(name: str, include: bool) -> None:
    """Each named include is a file."""
    assert set(included(name, include=include)) <= set(INCLUDES)


def test_every_include_is_used() -> None:
    """Each file is named by a script or an include."""
    used = {part for name in SCRIPTS for part in included(name)}
    used |= {part for name in INCLUDES for part in included(name, include=True)}
    assert used == set(INCLUDES)


def test_the_generated_tables_are_not_stale() -> None:
    """They equal what the generator writes now."""
    generated = {"states": states_lua(), "failure_texts": failure_texts_lua()}
    for name, text in generated.items():
        assert path_of(name, include=True).read_text(encoding="utf-8") == text


def test_every_script_has_a_hash_of_its_own() -> None:
    """Two equal scripts would be one too many."""
    scripts = load_scripts()
    assert len({script.sha for script in scripts.values()}) == len(scripts) == len(SCRIPTS)


@every_script
def test_a_write_checks_for_a_repeat_before_everything_else(script: str) -> None:
    """A repeated call must do nothing else."""
    if "producer" not in {row.name for row in header_of(script).argv}:
        return
    code = code_of(path_of(script))
    first = min(match.start() for match in re.finditer(r"recorded_answer\(", code))
    assert "redis.call" not in code[:first]


@every_script
def test_nothing_random_decides(script: str) -> None:
    """Replicas of old versions execute scripts again."""
    assert not re.search(r"math\.random|RANDOMKEY|SRANDMEMBER", load_scripts()[script].text)


@every_script
def test_payloads_are_never_decoded(script: str) -> None:
    """Only the Python side reads JSON."""
    assert "cjson" not in load_scripts()[script].text
