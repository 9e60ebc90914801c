"""docs/http.md: its programs run, its commands exist, its tables agree with the code."""

from __future__ import annotations

import dataclasses
import html
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from murmur_streams import Fleet
from murmur_streams.client import Client
from murmur_streams.embedded import stop_server
from murmur_streams.server import ServerOptions, make_app
from murmur_streams.server.auth import Scope, parse_tokens
from murmur_streams.server.pod import Pod
from murmur_streams.wire import problems
from murmur_streams.wire.problems import ProblemKind
from murmur_streams.wire.requests import SubmitRequest
from tests.cli.waiting import next_object, wait_until
from tests.docs.pages import DocsPage, named
from tests.key_audit import audit_folder
from tests.pods.balancer import free_ports

PAGE = DocsPage("http.md")
BIN = Path(sys.executable).parent
_BLOCK = re.compile(r"^```(\w+)\n((?:#|//) ([\w.]+)\n.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = {name: text for _, text, name in _BLOCK.findall(PAGE.text)}
NAMED = ("python", "sh", "js", "nginx", "haproxy")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SBIN = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin"
RUN = "shown"
DRAINED_SECONDS = 60


class Page(http.server.BaseHTTPRequestHandler):
    """A site of another origin. Its one page runs page.js and posts the events that it showed."""

    html = ""
    found: list[Any]

    def do_GET(self) -> None:
        self._answer(self.html.encode())

    def do_POST(self) -> None:
        self.found.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The origin of that site."""
    Page.found = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Served:
    """A pod of the page's app that asks for tokens, and a folder with the page's programs."""

    folder: Path
    environ: dict[str, str]

    @property
    def url(self) -> str:
        return self.environ["URL"]

    @property
    def token(self) -> str:
        return self.environ["TOKEN"]

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def script(self, name: str) -> str:
        return self.run("sh", "-eu", "-c", BLOCKS[name])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, site: str) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("http")
    for name, text in BLOCKS.items():
        (folder / name).write_text(text, encoding="utf-8")
    environ = {name: text for name, text in os.environ.items() if not name.startswith("MURMUR_")}
    path = f"{BIN}{os.pathsep}{environ['PATH']}"
    made = Served(folder, environ | {"MURMUR_DATA_DIR": str(folder / "data"), "PATH": path})
    commands = PAGE.lines("murmur-streams")
    line = next(command for command in commands if command[:2] == ["token", "web"])
    drawn = json.loads(made.run("murmur-streams", "--json", *line[: line.index(">>")]))
    (folder / "tokens.toml").write_text(drawn["record"])
    options = ("serve", "app:fleet", "--with-worker", "--port", "0", "--json")
    pod = subprocess.Popen(
        [
            str(BIN / "murmur-streams"),
            *options,
            "--cors-origin",
            site,
            "--tokens-file",
            "tokens.toml",
        ],
        cwd=folder,
        env=made.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        made.environ |= {"URL": next_object(pod, "url")["url"], "TOKEN": drawn["token"], "RUN": RUN}
        with Client(made.url, token=made.token) as client:
            client.submit("greeter", "Ada", run_id=RUN, wait=60)
        yield made
        pod.send_signal(signal.SIGTERM)
        pod.communicate(timeout=DRAINED_SECONDS)
        assert pod.returncode == 0
        audit_folder(folder / "data")
    finally:
        pod.kill()
        pod.communicate()
        stop_server(folder / "data")


def test_every_block_that_can_be_run_is_one_that_a_test_runs() -> None:
    """A new block fails here until it has a test."""
    assert len(BLOCKS) == sum(PAGE.text.count(f"```{kind}\n") for kind in NAMED)
    programs = {"app.py", "mounted.py", "ask.py", "page.js", "nginx.conf", "haproxy.cfg"}
    assert set(BLOCKS) == programs | {"submit.sh", "stream.sh", "ticket.sh", "cli.sh"}


@pytest.mark.slow
def test_a_submission_that_waits_is_answered_with_its_result(served: Served) -> None:
    """submit.sh, twice with the same answer."""
    answer = json.loads(served.script("submit.sh"))
    assert (answer["state"], answer["result"]["output"]) == ("completed", "Hello, Ada!")
    assert json.loads(served.script("submit.sh")) == answer


@pytest.mark.slow
def test_a_stream_has_its_events_and_ends(served: Served) -> None:
    """stream.sh prints the events of a run to its end."""
    first, *messages = served.script("stream.sh").removesuffix("\n\n").split("\n")
    assert first.startswith("retry: ")
    events = [line for line in messages if line.startswith("data: ")]
    assert [json.loads(event[6:])["type"] for event in events] == [
        "agent_started",
        "agent_output",
        "agent_output",
        "agent_completed",
    ]


@pytest.mark.slow
def test_a_ticket_opens_the_stream(served: Served) -> None:
    """ticket.sh gets a ticket that opens the stream."""
    ticket = json.loads(served.script("ticket.sh"))
    assert ticket["expires_in"] == ServerOptions().ticket_seconds
    url = f"{served.url}/runs/{RUN}/stream?ticket={ticket['ticket']}"
    assert "event: agent_completed" in httpx.get(url, timeout=60).text


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_page_follows_a_run_to_its_end(served: Served, site: str, tmp_path: Path) -> None:
    """page.js in a browser gets all events."""
    given = json.dumps([RUN, served.token])
    Page.html = f"""<!doctype html><base href="{html.escape(served.url)}/"><script>
    {BLOCKS["page.js"]}
    const shown = [];
    follow(...{given}, (event) => shown.push(event.type))
      .then(() => "ended", String)
      .then((how) => fetch("{site}/", {{method: "POST", body: JSON.stringify([how, ...shown])}}));
    </script>"""
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", profile)
    with (tmp_path / "chromium.log").open("wb") as log:
        browser = subprocess.Popen([str(CHROMIUM), *flags, site], stdout=log, stderr=log)
    try:
        wait_until(lambda: bool(Page.found), "the page has followed the run")
    finally:
        browser.terminate()
        browser.wait()
    how, *shown = Page.found[0]
    assert how == "ended"
    assert shown == ["agent_started", "agent_output", "agent_output", "agent_completed"]


@pytest.mark.slow
def test_the_client_submits_streams_and_cancels(served: Served) -> None:
    """ask.py prints what the page says."""
    lines = served.run(sys.executable, "-W", "error", "ask.py").splitlines()
    assert lines[:3] == ["agent_started None", "agent_output Hello,", "agent_output Grace"]
    assert lines[4:6] == ["Hello, Grace!", "8 events of 2 runs"]
    assert lines[6:] == ["cancelled", "['slow', 'greeter']"]


@pytest.mark.slow
def test_the_command_line_asks_the_server(served: Served) -> None:
    """cli.sh prints output and listing."""
    printed = served.script("cli.sh")
    assert "Hello, Ada!" in printed
    assert "cli-2" in printed


@pytest.mark.slow
def test_the_app_is_mounted_in_another(served: Served) -> None:
    """mounted.py answers below its path."""
    (port,) = free_ports(1)
    (arguments,) = PAGE.lines("uvicorn")
    server = subprocess.Popen(
        [str(BIN / "uvicorn"), *arguments, "--port", str(port)],
        cwd=served.folder,
        env=served.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/murmur"
    try:
        wait_until(lambda: is_ready(url), "the app is ready")
        with Client(url) as client:
            # This app asks for no token, so each client sees the runs of all tenants.
            assert [event.seq for event in client.handle(RUN).stream()]
        server.send_signal(signal.SIGTERM)
        server.wait(DRAINED_SECONDS)
    finally:
        server.kill()
        server.wait()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).is_success
    except httpx.TransportError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("nginx", ("-t", "-e", "stderr", "-p", ".", "-g", "pid nginx.pid;", "-c", "nginx.conf")),
        ("haproxy", ("-c", "-f", "haproxy.cfg")),
    ],
)
def test_a_proxy_takes_its_configuration(
    served: Served, program: str, arguments: tuple[str, ...]
) -> None:
    """nginx and haproxy find no fault in theirs."""
    found = shutil.which(program, path=SBIN)
    if found is None:
        pytest.skip(f"{program} is not installed")
    served.run(found, *arguments)


def test_the_tokens_file_is_one() -> None:
    """The example of the page can be read."""
    (text,) = re.findall(r"^```toml\n(.*?)^```", PAGE.text, re.DOTALL | re.MULTILINE)
    web, ci = (token.principal for token in parse_tokens(text))
    assert (web.name, web.tenant) == ("web", "acme")
    assert web.expires_at is not None
    assert (ci.name, ci.tenant, ci.expires_at) == ("ci", None, None)


def test_every_command_of_the_page_is_one_with_these_options() -> None:
    """Each line for a shell is a command with options that exist."""
    PAGE.check_commands(least=11)


def test_the_table_of_routes_has_all_with_their_scopes() -> None:
    """The OpenAPI document has the same routes and scopes."""
    document = make_app(Fleet("memory:")).openapi()
    ours = {
        f"{method.upper()} {path}": {
            name for each in operation.get("security", []) for name in each
        }
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    rows = {named(row[0])[0]: row[1] for row in PAGE.table("route")}
    assert set(rows) == set(ours)
    for route, scope in rows.items():
        name = scope.removesuffix(", or a ticket")
        assert name in {*map(str, Scope), "none"}, route
        credentials = {"bearer"} if name != "none" else set[str]()
        assert ours[route] == credentials | ({"ticket"} if name != scope else set()), route


def test_the_table_of_problems_has_all_with_their_statuses() -> None:
    """The code has the same problems and statuses."""
    ours = {
        kind.slug: str(kind.status)
        for kind in vars(problems).values()
        if isinstance(kind, ProblemKind)
    }
    assert {named(row[0])[0]: row[1] for row in PAGE.table("problem")} == ours


def test_the_page_lists_the_problems_with_retry_after() -> None:
    """A problem has ``Retry-After`` where the page says so, and nowhere else."""
    waiting = {
        kind.slug if kind.status == 409 else str(kind.status)
        for kind in vars(problems).values()
        if isinstance(kind, ProblemKind) and kind.retry_after is not None
    }
    assert waiting == {"429", "503", "idempotency-in-flight"}
    assert "429, 503 and `idempotency-in-flight` have `Retry-After`." in PAGE.text


def test_the_table_of_limits_is_the_options() -> None:
    """Names and defaults agree."""
    ours = {each.name: repr(each.default) for each in dataclasses.fields(ServerOptions)}
    assert {named(row[0])[0]: named(row[1])[0] for row in PAGE.table("option")} == ours


def test_the_table_of_scopes_has_all() -> None:
    """The scopes are in the order of the code."""
    assert [named(row[0])[0] for row in PAGE.table("scope")] == list(Scope)


def test_the_table_of_a_submission_has_every_member() -> None:
    """The model of the body has the same members."""
    documented = {name for row in PAGE.table("member") for name in named(row[0])}
    tasks = {name for name in documented if name.startswith("task.")}
    fields = SubmitRequest.model_fields
    assert documented - tasks | {"task"} == set(fields)
    task: Any = fields["task"].annotation
    assert tasks == {f"task.{name}" for name in task.model_fields}


def test_the_table_of_metrics_has_all_with_their_labels() -> None:
    """A pod prints the same metrics."""
    metrics = Pod(Fleet("memory:"), ServerOptions()).metrics
    metrics.answered("GET", "/runs", 200, 0.1)
    metrics.submitted()
    families = list(text_string_to_metric_families(metrics.text().decode()))
    ours = {
        family.name + ("_total" if family.type == "counter" else ""): {
            name for sample in family.samples for name in sample.labels if name != "le"
        }
        for family in families
        if not family.name.endswith("_created")
    }
    documented = {named(row[0])[0]: set(named(row[1])) for row in PAGE.table("metric")}
    assert documented == ours
