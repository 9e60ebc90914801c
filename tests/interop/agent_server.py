"""``python -m tests.interop.agent_server``: a process that makes AgentServers of murmur-runtime.

Each line that it reads is an order: ``serve URL PREFIX LEASE ours|theirs``, answered with a process
id and a port, or ``kill ID``. Only here, and in interface.py, is murmur imported: both are run in
processes of their own, with the folder that it is installed in on their path.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from murmur_streams.interop.murmur_runtime import RedisRunStore
from murmur_streams.testing import wait_until

murmur: Any = import_module("murmur")
murmur_server: Any = import_module("murmur.server")
test_model: Any = import_module("pydantic_ai.models.test")
function_model: Any = import_module("pydantic_ai.models.function")
messages: Any = import_module("pydantic_ai.messages")
uvicorn: Any = import_module("uvicorn")

SPOKEN_SECONDS = 0.05
FOR_EVER_SECONDS = 3600.0


class Report(BaseModel):
    """The answer of every agent."""

    title: str
    pages: int = 0


def prompt_of(history: list[Any]) -> str:
    return str(history[-1].parts[-1].content)


def report(info: Any, title: str) -> Any:
    call = messages.ToolCallPart(info.output_tools[0].name, {"title": title, "pages": 3})
    return messages.ModelResponse(parts=[call])


async def speak(history: list[Any], info: Any) -> Any:
    """A model that takes its time, so that a subscriber is there before the end."""
    await asyncio.sleep(SPOKEN_SECONDS)
    return report(info, prompt_of(history))


async def wait(history: list[Any], info: Any) -> Any:
    """A model that answers once the file that its prompt names is there."""
    await wait_until(Path(prompt_of(history)).exists, "the file is there", FOR_EVER_SECONDS)
    return report(info, "found")


async def fail(history: list[Any], info: Any) -> Any:
    raise ValueError("the model is out of words")


def agent(name: str, model: Any) -> Any:
    return murmur.Agent(name=name, model=model, instructions="Report.", output_type=Report)


def after_head(outputs: Any) -> list[Any]:
    return [murmur.TaskSpec(input="go on")]


def register_all(server: Any) -> None:
    answer = test_model.TestModel(custom_output_args={"title": "tested", "pages": 7})
    failing = function_model.FunctionModel(fail)
    server.register(agent("tester", answer))
    server.register(agent("speaker", function_model.FunctionModel(speak)))
    server.register(agent("waiter", function_model.FunctionModel(wait)))
    server.register(agent("failing", failing))
    server.register(agent("a name: any text", answer))
    last = murmur.Edge.terminal()
    pair = {agent("left", answer): last, agent("right", answer): last}
    server.register_group(murmur.AgentGroup(name="pair", topology=pair))
    tail = agent("tail", answer)
    broken = {agent("head", failing): murmur.Edge(to=(tail,), mapper=after_head), tail: last}
    server.register_group(murmur.AgentGroup(name="broken", topology=broken))
    uneven = {agent("good", answer): last, agent("bad", failing): last}
    server.register_group(murmur.AgentGroup(name="uneven", topology=uneven))


def open_store(url: str, prefix: str, lease: str, whose: str) -> Any:
    if whose == "theirs":
        return import_module("murmur.runs.redis").RedisRunStore(url, key_prefix=prefix)
    return RedisRunStore(url, key_prefix=prefix, owner_lease_seconds=float(lease))


async def serve(listening: socket.socket, url: str, prefix: str, lease: str, whose: str) -> None:
    store = open_store(url, prefix, lease, whose)
    server = murmur_server.AgentServer(run_store=store)
    register_all(server)
    config = uvicorn.Config(server.app, log_level="warning")
    parent = os.getppid()
    serving = asyncio.create_task(uvicorn.Server(config).serve(sockets=[listening]))
    await wait_until(lambda: os.getppid() != parent, "the test is over", FOR_EVER_SECONDS)
    serving.cancel()


def copy(arguments: list[str]) -> tuple[int, int]:
    """Serve in a copy of this process, which has imported everything: its id and its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        copied = os.fork()
        if not copied:
            # murmur logs to stdout, where the test reads ports.
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
            asyncio.run(serve(listening, *arguments))
            os._exit(0)
        return copied, listening.getsockname()[1]


def main() -> None:
    for line in sys.stdin:
        verb, *arguments = line.split()
        if verb == "serve":
            print(*copy(arguments), flush=True)  # noqa: T201  # the answer
        else:
            os.kill(int(arguments[0]), signal.SIGKILL)
            os.waitpid(int(arguments[0]), 0)
            print("killed", flush=True)  # noqa: T201  # the answer


if __name__ == "__main__":
    main()
