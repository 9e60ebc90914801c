"""Two thousand made-up requests against the OpenAPI document: each answer is as documented."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pods.balancer import free_ports
from tests.pods.conftest import Pods

CASES = 2_000
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance"
)


@pytest.mark.slow
@pytest.mark.leaves("*")
@pytest.mark.timeout(600)
async def test_every_answer_is_documented_and_none_is_a_500(pods: Pods, tmp_path: Path) -> None:
    """Two thousand generated requests get documented answers."""
    (port,) = free_ports(1)
    pods.start_hasty(port)
    await pods.ready(port)
    done = await asyncio.to_thread(
        subprocess.run,
        [
            str(Path(sys.executable).parent / "schemathesis"),
            "run",
            f"http://127.0.0.1:{port}/openapi.json",
            f"--checks={CHECKS}",
            f"--max-examples={CASES // 20}",
            "--seed=20261123",
            "--request-timeout=20",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:]
    cases = re.search(r"(\d[\d,]*) generated", done.stdout)
    assert cases is not None, done.stdout[-2_000:]
    assert int(cases[1].replace(",", "")) >= CASES
