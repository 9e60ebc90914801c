"""Every script and command says what it takes, answers, writes and costs, and says the truth."""

from __future__ import annotations

import re

import pytest

from murmur_streams.stores.redis.script_rights import CLUSTER_PROBES
from murmur_streams.stores.redis.scripts import HOT_COMMIT, load_library, load_scripts
from tests.key_audit import key_table
from tests.lua.generated import failure_texts_lua, states_lua
from tests.lua.headers import (
    CLUSTER,
    CLUSTER_INCLUDES,
    CLUSTER_SCRIPTS,
    COMMANDS,
    INCLUDES,
    SCRIPTS,
    Row,
    arguments_of,
    code_of,
    functions_of,
    group_of,
    header_of,
    included,
    names_of,
    path_of,
    reachable_code,
    used_names,
)

TEXTS = {name: script.text for name, script in load_scripts().items()}
TEXTS["library"] = load_library().text
TEXTS.update(
    (f"{CLUSTER}{name}", script.text) for name, script in load_scripts(is_cluster=True).items()
)
TEXTS[f"{CLUSTER}library"] = load_library(is_cluster=True).text
"""All that a server is sent."""
RUN_KEYS = set(re.findall(r"^    (\w+) = ", functions_of("keys")["keys_of_run"], re.MULTILINE))
every_header = pytest.mark.parametrize("script", [*SCRIPTS, *COMMANDS, *CLUSTER_SCRIPTS])
every_script = pytest.mark.parametrize("script", [*SCRIPTS, *CLUSTER_SCRIPTS])
every_command = pytest.mark.parametrize("command", COMMANDS)
every_text = pytest.mark.parametrize("name", TEXTS)
every_file = pytest.mark.parametrize(
    ("name", "include"),
    [(name, False) for name in [*SCRIPTS, *COMMANDS, *CLUSTER_SCRIPTS]]
    + [(name, True) for name in [*INCLUDES, *CLUSTER_INCLUDES]],
)
ARGUMENT = re.compile(r"(text|texts|integer|0 or 1)( or '')?\b.*")
GROUPS = re.compile(r"groups: \w+ (text|integer)( or '')?(, \w+ (text|integer|texts)( or '')?)*")
"""As often as the row before says: these arguments, of which the last may be a list."""
ANSWER = re.compile(r"([A-Z_]+)((?: \(?\w+\*?|\s\w+\)\*)*)(?:\s{2,}.+)?")
ANSWER_OF_COMMAND = re.compile(r"(each )?[A-Z_]+( \w+)?(\s{2,}.+)?")
"""One text for each group, or for the command."""
WRITING = re.compile(
    r"redis\.call\('(?:HSET|HSETNX|HDEL|XADD|XTRIM|SET|DEL|ZADD|ZREM|PEXPIREAT|PERSIST|RENAME)', "
    r"([^)]+)\)"
)
ANSWERING = re.compile(r"(?:return|\w+ =) (\w+)\(run_id,")
"""A call of a function whose answer is the command's."""


def tags_in(code: str) -> set[str]:
    """Every upper-case tag that begins a table."""
    return set(re.findall(r"(?:\{|return |= )'([A-Z_]+)'(?=[,}])", code))


def tags_of_command(command: str) -> set[str]:
    """Every upper-case word that begins an answer of a command."""
    code = code_of(path_of(command))
    functions = {name: text for each in INCLUDES for name, text in functions_of(each).items()}
    code += "".join(functions.get(name, "") for name in ANSWERING.findall(code))
    return set(re.findall(r"(?:return|=|or) '([A-Z_]+)[' ]", code))


def written_by_name(script: str) -> set[str]:
    """The keys that the code itself writes, by the names that it has for them."""
    called = WRITING.findall(code_of(path_of(script)))
    names = {part.removeprefix("keys.") for each in called for part in each.split(", ")}
    return {name for name in names if re.fullmatch(r"\w+", name)}


def is_list(row: Row) -> bool:
    """Whether the row stands for any number of arguments."""
    return row.rest.startswith(("texts", "groups"))


@every_header
def test_a_header_begins_with_a_summary(script: str) -> None:
    """The summary is one sentence."""
    assert re.fullmatch(r"[A-Z].*\.", header_of(script).summary)


@every_header
def test_a_header_has_the_cost(script: str) -> None:
    """The commands that a call executes."""
    assert header_of(script).cost


@every_header
def test_keys_and_arguments_are_numbered_without_a_gap(script: str) -> None:
    """The numbers begin with 1."""
    header = header_of(script)
    for rows in (header.keys, header.argv):
        assert [row.number for row in rows] == list(range(1, len(rows) + 1))


@every_header
def test_no_two_rows_of_a_section_have_one_name(script: str) -> None:
    """Names can be searched for."""
    header = header_of(script)
    for rows in (header.keys, header.argv):
        assert len({row.name for row in rows}) == len(rows)


@every_header
def test_a_key_is_a_row_of_the_key_table_with_its_type(script: str) -> None:
    """The prefix of a partition is allowed, too."""
    table = {row.key: row.type for row in key_table()}
    for row in header_of(script).keys:
        kind, key = row.rest.split()
        assert (kind, key) == ("prefix", "<prefix>:{p}") or table.get(key) == kind


@every_header
def test_an_argument_has_a_known_type(script: str) -> None:
    """It is text, an integer, or one of a few other types."""
    argv = header_of(script).argv
    strangers = [
        row
        for row in argv
        if not (ARGUMENT if row.rest[:6] != "groups" else GROUPS).fullmatch(row.rest)
    ]
    assert strangers == []


@every_header
def test_groups_come_after_their_number(script: str) -> None:
    """So that a script knows how many there are."""
    argv = header_of(script).argv
    if argv and argv[-1].rest.startswith("groups"):
        assert argv[-2].rest == "integer"


@pytest.mark.parametrize("script", ["commit", "append"])
def test_the_names_of_a_group_are_those_of_the_code(script: str) -> None:
    """In their order, up to the list at the group's end."""
    groups = header_of(script).argv[-1].rest
    declared = re.findall(r"(\w+) (?:text|integer)\b", groups)
    assert declared == group_of(script)


@every_header
def test_the_keys_that_are_used_are_those_that_are_declared(script: str) -> None:
    """Script and includes are searched for KEYS."""
    code = reachable_code(script)
    used = {int(number) for number in re.findall(r"KEYS\[(\d+)\]", code)}
    # A script that serves a partition is always sent its feed.
    used |= {2} if script in CLUSTER_SCRIPTS else set()
    assert used == {row.number for row in header_of(script).keys}
    # A script that is called for several keys of one kind goes through them.
    named = re.findall(r"KEYS\[\d+\]|ipairs\(KEYS\)", code)
    assert len(re.findall(r"\bKEYS\b", code)) == len(named)


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
    assert used == {row.number for row in argv}


@every_command
def test_arguments_have_the_names_of_the_code(command: str) -> None:
    """A command unpacks them in the order in which it declares them."""
    names, lists = arguments_of(command)
    argv = header_of(command).argv
    declared = {row.number: {row.name} for row in argv if not is_list(row)}
    assert names == declared
    assert lists == {row.number for row in argv if is_list(row)}


@every_command
def test_a_command_counts_its_arguments_from_at(command: str) -> None:
    """Where they begin depends on the commands before it in the call."""
    assert not re.search(r"ARGV\[\d|unpack\(ARGV, \d|#ARGV", reachable_code(command))
    used = re.search(r"\bARGV\b", code_of(path_of(command))) or "read_" in reachable_code(command)
    parameters = "run_id, at" if header_of(command).argv else "run_id"
    assert f"\nlocal function {command}({parameters})\n" in f"\n{code_of(path_of(command))}"
    assert used or not header_of(command).argv


@every_command
def test_a_command_file_is_one_function_and_its_helpers(command: str) -> None:
    """Other code would be executed once in a library, and by each call of a script."""
    outside = re.sub(r"(?ms)^local function .*?^end$", "", code_of(path_of(command)))
    strangers = [
        line
        for line in outside.splitlines()
        if line and not re.match(r"local [A-Z_]+ = \d+$", line)
    ]
    assert strangers == []


@every_header
def test_only_the_last_argument_is_a_list(script: str) -> None:
    """Everything after it would have no fixed number."""
    assert not any(is_list(row) for row in header_of(script).argv[:-1])


@every_script
def test_the_answers_that_are_given_are_those_that_are_declared(script: str) -> None:
    """The tags of all answers are compared."""
    declared = {line.split()[0] for line in header_of(script).returns}
    assert tags_in(reachable_code(script)) == declared


@every_command
def test_the_texts_that_are_answered_are_those_that_are_declared(command: str) -> None:
    """Their first words are compared."""
    declared = {line.removeprefix("each ").split()[0] for line in header_of(command).returns}
    assert tags_of_command(command) == declared


@every_script
def test_an_answer_is_a_tag_and_the_names_of_its_fields(script: str) -> None:
    """Each row of RETURNS has this form."""
    assert [line for line in header_of(script).returns if not ANSWER.fullmatch(line)] == []


@every_command
def test_an_answer_of_a_command_is_a_tag_and_a_value(command: str) -> None:
    """Each row of RETURNS has this form, so that an answer has no line break and no "|"."""
    returns = header_of(command).returns
    assert returns
    assert [line for line in returns if not ANSWER_OF_COMMAND.fullmatch(line)] == []


@every_header
def test_a_script_answers_for_each_of_its_groups_or_has_none(script: str) -> None:
    """Both are declared together."""
    header = header_of(script)
    answers_each = any(re.search(r"^each | answer\*", line) for line in header.returns)
    has_groups = bool(header.argv) and header.argv[-1].rest.startswith("groups")
    assert answers_each == has_groups


@every_header
def test_what_is_written_is_a_known_key(script: str) -> None:
    """The row WRITES names keys of the header; that of a command names the run's keys."""
    header = header_of(script)
    assert header.writes
    keys = RUN_KEYS | {"restoring"} if script in COMMANDS else {row.name for row in header.keys}
    assert set(header.writes) <= keys


@every_header
def test_keys_that_are_written_by_name_are_declared(script: str) -> None:
    """Each writing command on a key of the run is in the row WRITES."""
    header = header_of(script)
    is_command = script in COMMANDS
    names = RUN_KEYS | {"restoring"} if is_command else {row.name for row in header.keys}
    assert written_by_name(script) & names <= set(header.writes)


@every_file
def test_a_file_names_each_include_that_it_uses(name: str, include: bool) -> None:
    """Each called function's own include is named, and no include is named in vain."""
    used = used_names(path_of(name, include=include))
    others = [each for each in INCLUDES if not (include and each == name.removeprefix(CLUSTER))]
    needed = {each for each in others if names_of(each) & used}
    assert set(included(name, include=include)) == needed


@every_text
def test_an_include_comes_before_what_uses_it(name: str) -> None:
    """Lua calls a local function only below its definition."""
    # In the library each script's own functions lie within the function of the script.
    text = TEXTS[name].split("\nlocal function run_claim()")[0]
    for match in re.finditer(r"^local function (\w+)\(", text, re.MULTILINE):
        before = text[: match.start()]
        assert not re.search(rf"\b{match[1]}\(", before), f"{match[1]} is used before it is there"


@every_file
def test_every_include_exists(name: str, include: bool) -> None:
    """Each named include is a file."""
    assert set(included(name, include=include)) <= set(INCLUDES)


def test_every_include_is_used() -> None:
    """Each file is named by a script, a command or an include."""
    used = {part for name in [*SCRIPTS, *COMMANDS] for part in included(name)}
    used |= {part for name in INCLUDES for part in included(name, include=True)}
    assert used == set(INCLUDES)


def test_the_generated_tables_are_not_stale() -> None:
    """They equal what the generator writes now."""
    generated = {"states": states_lua(), "failure_texts": failure_texts_lua()}
    for name, text in generated.items():
        assert path_of(name, include=True).read_text(encoding="utf-8") == text


def test_every_script_has_a_hash_of_its_own() -> None:
    """Two equal scripts would be one too many."""
    scripts, of_cluster = load_scripts(), load_scripts(is_cluster=True)
    assert set(scripts) == {*SCRIPTS, HOT_COMMIT}
    more = {name.removeprefix(CLUSTER) for name in CLUSTER_SCRIPTS}
    assert set(of_cluster) == {*scripts, *more}
    for each in (scripts, of_cluster):
        assert len({script.sha for script in each.values()}) == len(each)


@pytest.mark.parametrize("name", CLUSTER_INCLUDES)
def test_an_include_of_a_cluster_stands_for_another(name: str) -> None:
    """It defines the same functions with the same parameters, so that no caller has to know."""
    usual = functions_of(name.removeprefix(CLUSTER))
    of_cluster = functions_of(name)
    heads = [
        {text.split("\n")[0] for text in functions.values()} for functions in (usual, of_cluster)
    ]
    assert heads[0] == heads[1]


def test_a_script_that_wakes_no_worker_is_the_same_on_a_cluster() -> None:
    """It has no line of its own there: every rule of a run is one text."""
    usual, of_cluster = load_scripts(), load_scripts(is_cluster=True)
    same = {name for name in usual if "SPUBLISH" not in of_cluster[name].text}
    assert same > {"claim", "heartbeat", "confirm", HOT_COMMIT}
    for name in same:
        own = set(of_cluster[name].text.splitlines()) - set(usual[name].text.splitlines())
        assert own == set()


@every_text
def test_commands_of_a_cluster_alone_are_checked_where_called(name: str) -> None:
    """Elsewhere a user needs no right to them; where they are called, the right is checked."""
    text = TEXTS[name]
    called = {each for each in CLUSTER_PROBES if f"redis.call('{each}'" in text}
    asked = {each for each in CLUSTER_PROBES if f"not allowed('{each}'" in text}
    assert called == asked
    assert not called or name.startswith(CLUSTER)


def test_a_commit_reads_its_record_before_everything_else() -> None:
    """A repeated call must do nothing else, and the record is the first write of the others."""
    code = code_of(path_of("commit"))
    calls = re.findall(r"redis\.call\('(\w+)', (\w+)|p(call)\((execute)", code)
    found = ["".join(call) for call in calls]
    record = [f"{command}record_key" for command in ("GET", "PEXPIRE", "PEXPIRE", "SET")]
    assert found == [*record, "callexecute", "SETrecord_key"]


def test_only_commit_executes_commands() -> None:
    """Every other script stands for itself: no command is written without a record."""
    for name in {*SCRIPTS, *CLUSTER_SCRIPTS} - {"commit"}:
        assert not set(COMMANDS) & set(re.findall(r"local function (\w+)", TEXTS[name]))


@every_text
def test_nothing_random_decides(name: str) -> None:
    """Replicas of old versions execute scripts again."""
    assert not re.search(r"math\.random|RANDOMKEY|SRANDMEMBER", TEXTS[name])


@every_text
def test_payloads_are_never_decoded(name: str) -> None:
    """Only the Python side reads JSON."""
    assert "cjson" not in TEXTS[name]
