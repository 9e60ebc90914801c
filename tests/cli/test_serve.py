"""`serve`: the pod as a process: what it refuses to begin, how it answers, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from murmur_streams.cli.shell.session import Globals, Session
from murmur_streams.cli.supervisor.pod import PodOptions, run_pod, server_options
from murmur_streams.cli.work.worker import begin
from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.settings import Settings
from tests.cli.conftest import CommandLine
from tests.cli.waiting import PATIENCE_SECONDS, next_object, objects, wait_until
from tests.stores.faults.servers import spare_server

RECORD = '[[tokens]]\nname = "web"\ntoken = "a-token-0123456789"\nscopes = ["read"]\n'
APP = """
from murmur_streams import Fleet

fleet = Fleet(retry_seconds=1)


@fleet.agent
async def echo(text: str) -> str:
    return text
"""


def serving(
    line: CommandLine, *argv: str, fleet: str = "fleet_app:fleet", **where: Path
) -> tuple[subprocess.Popen[str], str]:
    """A pod on a free port, and its URL."""
    process = line.start("serve", fleet, "--port", "0", "--json", *argv, **where)
    return process, str(next_object(process, "url")["url"])


def ask(
    url: str, body: object = None, method: str | None = None, **headers: str
) -> tuple[int, dict[str, Any]]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310  # our own
    if data is not None:
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def stream(url: str, path: str) -> tuple[HTTPConnection, HTTPResponse]:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_SECONDS)
    connection.request("GET", path)
    return connection, connection.getresponse()


def submit(url: str, target: str, given: object = None, **more: object) -> str:
    code, found = ask(f"{url}/submit", {"target": target, "task": {"input": given}, **more})
    assert code == 200, found
    return str(found["run_id"])


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens.toml"
    file.write_text(RECORD)
    file.chmod(0o600)
    return file


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("--host", "0.0.0.0"), "give --tokens-file"),  # noqa: S104  # it is refused
        (("--host", "::"), "give --tokens-file"),
        (("--host", "no.such.host.invalid"), "cannot listen on no.such.host.invalid"),
        (("--tokens-file", "nowhere.toml"), "the tokens file nowhere.toml: No such file"),
        (
            ("--ticket-secret-file", "nowhere"),
            "the ticket secret nowhere cannot be read: No such file",
        ),
        (("--ticket-secret-file", "/dev/null"), "must have 32 bytes or more"),
        (("--cors-origin", "*"), "must be an origin such as https://app.example.com"),
        (("--root-path", "api/"), "must be a path such as /runs-api"),
        (("--port", "65536"), "less than or equal to 65535"),
        (("--port", "1e3"), "'--port': Input should be a valid integer"),
        (("--port", "0x10"), "'--port': Input should be a valid integer"),
        (("--port", ""), "'--port': Input should be a valid integer"),
    ],
)
def test_it_refuses_to_begin(line: CommandLine, argv: tuple[str, ...], why: str) -> None:
    """For each option that is wrong or unsafe."""
    refused = line.run("serve", "fleet_app:fleet", "--json", *argv)
    assert (refused.returncode, refused.stdout) == (2, "")
    [reported] = objects(refused.stderr)
    assert why in reported["message"]


@pytest.mark.parametrize(
    ("fleet", "why"), [("nowhere:fleet", "no module"), ("fleet_app:not_a_fleet", "not Fleet")]
)
def test_it_needs_a_fleet(line: CommandLine, fleet: str, why: str) -> None:
    """The error says why the name is not a fleet."""
    refused = line.run("serve", fleet)
    assert refused.returncode == 2
    assert why in refused.stderr


def test_a_worker_needs_agents(line: CommandLine) -> None:
    """`--with-worker` is refused for a fleet without agents."""
    refused = line.run("serve", "fleet_app:empty", "--with-worker", "--port", "0")
    assert refused.returncode == 2
    assert "the fleet has no agents" in refused.stderr


def test_a_port_in_use_is_an_error(line: CommandLine, taken: int) -> None:
    """The exit code is 2, and the error names the port."""
    refused = line.run("serve", "fleet_app:fleet", "--port", str(taken))
    assert refused.returncode == 2
    assert f"port {taken} of 127.0.0.1 is taken" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.9.10"])
def test_who_is_on_this_machine_needs_no_tokens(host: str) -> None:
    """A pod on a loopback address starts without a tokens file."""
    made = server_options(options(host))
    assert made.authenticator is None


def options(host: str = "127.0.0.1", *, insecure: bool = False, **files: Path) -> PodOptions:
    settings = Settings(host=host, port=0, concurrency=1, drain_seconds=7).override(**files)
    return PodOptions("app:fleet", settings, insecure=insecure)


def test_beyond_this_machine_it_needs_tokens_or_insecure(tokens: Path) -> None:
    """On any other address a pod without both is refused."""
    anywhere = "0.0.0.0"  # noqa: S104  # nothing listens
    with pytest.raises(StoreConfigurationError, match="--insecure"):
        server_options(options(anywhere))
    assert server_options(options(anywhere, insecure=True)).authenticator is None
    made = server_options(options(anywhere, tokens_file=tokens))
    assert made.authenticator is not None
    assert made.drain_seconds == 7


def test_pages_need_a_document_without_tokens(tokens: Path) -> None:
    """A browser sends no token for a page, so ``--docs`` with tokens needs a public document."""
    guarded = replace(options(tokens_file=tokens), docs=True)
    settings = guarded.settings
    with pytest.raises(StoreConfigurationError, match="--public-openapi"):
        server_options(guarded)
    assert server_options(replace(guarded, settings=replace(settings, public_openapi=True))).docs
    assert server_options(replace(guarded, settings=replace(settings, tokens_file=None))).docs


def test_every_pod_has_the_secret_of_the_file_or_one_of_its_own(tmp_path: Path) -> None:
    """Without a file each pod draws a secret for its tickets."""
    file = tmp_path / "secret"
    file.write_text("s" * 32 + "\n")
    made = server_options(options(ticket_secret_file=file))
    assert made.ticket_secret == b"s" * 32
    alone = [server_options(options()).ticket_secret for _ in range(2)]
    assert alone[0] != alone[1]
    assert all(secret is not None and len(secret) == 32 for secret in alone)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o644, True)])
def test_a_ticket_secret_that_others_can_read_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    """The pod starts all the same, and the log says what to do."""
    file = tmp_path / "secret"
    file.write_text("s" * 32 + "\n")
    file.chmod(mode)
    made = server_options(options(ticket_secret_file=file))
    assert made.ticket_secret == b"s" * 32
    assert [each.levelname for each in caplog.records] == ["WARNING"] * warned
    assert ("chmod 600" in caplog.text) == warned


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("redis://:hidden@127.0.0.1:1", True),
        ("redis://127.0.0.1:1/0?password=hidden", True),
        ("redis://127.0.0.1:1", False),
        (None, False),
    ],
)
def test_a_password_on_the_command_line_is_warned_about(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str | None, warned: bool
) -> None:
    """`ps` shows it to everyone on the machine; the environment is the owner's alone."""
    monkeypatch.setenv("MURMUR_URL", "redis://:hidden@127.0.0.1:1")
    try:
        begin(Session(Globals(url=url), Settings(url="redis://:hidden@127.0.0.1:1")))
    finally:
        logging.getLogger("murmur_streams").setLevel(logging.NOTSET)
    assert ("set MURMUR_URL" in caplog.text) == warned
    assert "hidden" not in caplog.text


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the pip command."""
    monkeypatch.delitem(sys.modules, "murmur_streams.server.serving", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(StoreConfigurationError, match=r"pip install 'murmur-streams\[server\]'"):
        run_pod(cast("Session", None), options())


def test_it_says_where_it_is_and_what_to_try(line: CommandLine, tokens: Path) -> None:
    """It prints a curl line, with or without a token."""
    for argv, who in (
        ((), "it requires no token; try: curl http://127.0.0.1:"),
        (("--tokens-file", str(tokens)), "it requires a token; try: curl http://127.0.0.1:"),
    ):
        process = line.start("serve", "fleet_app:fleet", "--port", "0", *argv)
        assert process.stderr is not None
        reported = process.stderr.readline()
        assert who in reported
        assert ('-H "Authorization: Bearer $TOKEN"' in reported) is bool(argv)
        process.terminate()
        assert process.wait(timeout=PATIENCE_SECONDS) == 0


def test_it_answers_and_others_execute(line: CommandLine) -> None:
    """A pod answers for runs that a worker beside it executes."""
    process, url = serving(line)
    line.worker()
    run_id = submit(url, "echo", {"text": "a"})
    connection, answer = stream(url, f"/runs/{run_id}/stream")
    text = answer.read().decode()
    connection.close()
    assert "event: agent_completed" in text
    code, result = ask(f"{url}/runs/{run_id}/result")
    assert (code, result["output"]) == (200, {"answer": "a"})
    process.terminate()
    printed, reported = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, objects(printed)) == (0, [{"url": url, "stopped": True}]), reported


def test_with_a_worker_one_process_is_all_there_is(line: CommandLine, gate: Path) -> None:
    """With --with-worker the pod executes runs, too."""
    process, url = serving(line, "--with-worker", "--concurrency", "2")
    run_id = submit(url, "echo", {"text": "a"})
    connection, answer = stream(url, f"/runs/{run_id}/stream")
    assert "event: agent_completed" in answer.read().decode()
    connection.close()
    held = submit(url, "gated")
    wait_until(lambda: ask(f"{url}/runs/{held}")[1]["state"] == "running", "the run has begun")
    process.terminate()
    wait_until(lambda: not listens(url), "the pod takes no more connections")
    gate.touch()
    _, reported = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, reported
    [found] = objects(line.run("show", held, "--json").stdout)
    assert found["state"] == "completed", "the worker's drain was cut short"


def listens(url: str) -> bool:
    where = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((where.hostname, where.port)) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_open_streams_go_and_ends(line: CommandLine, number: signal.Signals) -> None:
    """Each stream gets the time after which to reconnect."""
    process, url = serving(line)
    run_id = submit(url, "gated")
    connection, answer = stream(url, f"/runs/{run_id}/stream")
    first = answer.readline()
    assert first.startswith(b"retry: ")
    process.send_signal(number)
    assert b"retry: " in answer.read(), "the answer lacks the time of the reconnect"
    connection.close()
    _, reported = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, reported
    assert "Traceback" not in reported


@pytest.mark.parametrize("argv", [(), ("--with-worker",)], ids=["alone", "with a worker"])
def test_a_signal_lets_a_request_end(line: CommandLine, argv: tuple[str, ...]) -> None:
    """A request that is half sent gets its answer."""
    process, url = serving(line, *argv)
    body = json.dumps({"target": "gated", "task": {"input": None}}).encode()
    connection = half_sent(url, body)
    process.terminate()
    wait_until(lambda: not listens(url), "the pod takes no more connections")
    connection.sendall(body[1:])
    answer = connection.makefile("rb").read()
    connection.close()
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert b"connection: close" in answer.lower()
    assert process.wait(timeout=PATIENCE_SECONDS) == 0


def half_sent(url: str, body: bytes) -> socket.socket:
    """A request that the pod has begun to read."""
    where = urlsplit(url)
    connection = socket.create_connection((where.hostname, where.port), PATIENCE_SECONDS)
    head = f"POST /submit HTTP/1.1\r\nHost: pod\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(
        f"{head}Content-Type: application/json\r\nExpect: 100-continue\r\n\r\n".encode()
    )
    assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
    connection.sendall(body[:1])
    return connection


def test_a_second_signal_ends_at_once(line: CommandLine) -> None:
    """The pod does not wait for requests any longer."""
    process, url = serving(line, "--drain-seconds", "86400")
    connection = half_sent(url, b"{}")
    process.terminate()
    wait_until(lambda: not listens(url), "the pod takes no more connections")
    process.terminate()
    _, reported = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, reported
    with contextlib.suppress(ConnectionError):
        assert connection.recv(1_000) == b"", "the request was waited for"
    connection.close()


def test_tokens_are_asked_for_and_change_without_a_restart(line: CommandLine, tokens: Path) -> None:
    """The pod reads the changed tokens file again."""
    _, url = serving(line, "--tokens-file", str(tokens))
    assert ask(f"{url}/runs")[0] == 401
    assert ask(f"{url}/runs", Authorization="Bearer a-token-0123456789")[0] == 200
    drawn = line.run("token", "other", "--scope", "read", "--json")
    [made] = objects(drawn.stdout)
    tokens.write_text(RECORD + made["record"])
    assert ask(f"{url}/runs", Authorization=f"Bearer {made['token']}")[0] == 200
    tokens.write_text(made["record"])
    assert ask(f"{url}/runs", Authorization="Bearer a-token-0123456789")[0] == 401
    assert ask(f"{url}/healthz")[0] == 200


def test_the_environment_says_what_the_options_do_not(
    line: CommandLine, tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Port and tokens file can be given by variables."""
    monkeypatch.setenv("MURMUR_TOKENS_FILE", str(tokens))
    monkeypatch.setenv("MURMUR_PORT", "0")
    process = line.start("serve", "fleet_app:fleet", "--json")
    reported = next_object(process, "url")
    assert reported["auth"] == "tokens"
    assert ask(f"{reported['url']}/runs")[0] == 401


@pytest.mark.parametrize(
    ("argv", "variable", "code"),
    [
        ((), None, 401),
        (("--public-openapi",), None, 200),
        ((), "1", 200),
        (("--private-openapi",), "1", 401),
    ],
)
def test_the_document_is_public_where_a_setting_says_so(
    line: CommandLine,
    tokens: Path,
    monkeypatch: pytest.MonkeyPatch,
    argv: tuple[str, ...],
    variable: str | None,
    code: int,
) -> None:
    """With a tokens file /openapi.json asks for a token, unless a setting opens it."""
    if variable is not None:
        monkeypatch.setenv("MURMUR_PUBLIC_OPENAPI", variable)
    _, url = serving(line, "--tokens-file", str(tokens), *argv)
    assert ask(f"{url}/openapi.json")[0] == code
    assert ask(f"{url}/openapi.json", Authorization="Bearer a-token-0123456789")[0] == 200
    assert ask(f"{url}/runs")[0] == 401


def test_a_proxy_may_show_it_under_a_path(line: CommandLine) -> None:
    """--root-path is in the OpenAPI document."""
    _, url = serving(line, "--root-path", "/runs-api")
    code, document = ask(f"{url}/openapi.json")
    assert (code, document["servers"]) == (200, [{"url": "/runs-api"}])
    assert ask(f"{url}/healthz")[0] == 200


@pytest.mark.slow
async def test_a_lost_server_is_logged_and_its_return_is_noticed(
    line: CommandLine, tmp_path: Path
) -> None:
    """503 meanwhile, then answers again."""
    (tmp_path / "app.py").write_text(APP)
    async with spare_server(tmp_path / "spare") as server:
        process, url = serving(line, "--url", server.url(), fleet="app:fleet", cwd=tmp_path)
        await asyncio.to_thread(submit, url, "echo", "a")
        await server.kill()
        for path in ("/runs", "/runs/r-1"):
            code, problem = await asyncio.to_thread(ask, url + path)
            assert (code, problem["type"]) == (503, "urn:murmur-streams:problem:unavailable")
        assert (await asyncio.to_thread(ask, f"{url}/readyz"))[0] == 503
        assert (await asyncio.to_thread(ask, f"{url}/healthz"))[0] == 200
        await server.start()
        await asyncio.to_thread(
            wait_until, lambda: ask(f"{url}/readyz")[0] == 200, "the pod is ready again"
        )
        await asyncio.to_thread(submit, url, "echo", "b")
        process.terminate()
        assert await asyncio.to_thread(process.wait, PATIENCE_SECONDS) == 0


def test_a_drawn_token_is_printed_once_its_record_has_the_hash(line: CommandLine) -> None:
    """The token is on stderr, the record on stdout."""
    drawn = line.run("token", "web", "--tenant", "acme", "--expires", "90d", "--scope", "read")
    assert drawn.returncode == 0
    token = drawn.stderr.split()[-1]
    assert token.startswith("mst_")
    assert token not in drawn.stdout
    [record] = tomllib.loads(drawn.stdout)["tokens"]
    assert (record["name"], record["tenant"], record["scopes"]) == ("web", "acme", ["read"])
    assert "expires" in record


@pytest.mark.parametrize(
    "argv",
    [
        ("a b",),
        ("web", "--tenant", "a b"),
        ("web", "--expires", "0"),
        ("web", "--expires", "99999d"),
        ("web", "--scope", "root"),
    ],
)
def test_a_token_without_a_name_is_not_drawn(line: CommandLine, argv: tuple[str, ...]) -> None:
    """A bad name, tenant, time or scope is refused."""
    refused = line.run("token", *argv)
    assert (refused.returncode, refused.stdout) == (2, "")
