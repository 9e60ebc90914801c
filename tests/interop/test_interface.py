"""The interface with murmur's types, in a process that has them; and what happens without them."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from murmur_streams.interop import murmur_runtime
from tests.interop.conftest import ROOT, environment

INSTRUCTION = r"pip install murmur-runtime==0\.1\.0"


@pytest.mark.slow
def test_the_interface_holds_with_the_types_of_murmur() -> None:
    """interface.py passes in such a process."""
    command = [sys.executable, "-m", "pytest", "tests/interop/interface.py", "-q"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d{3} passed in ", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.parametrize("make", [murmur_runtime.RedisRunStore, murmur_runtime.InMemoryRunStore])
def test_without_murmur_the_error_says_what_to_install(make: type) -> None:
    """Making a store raises ImportError with the pip command."""
    with pytest.raises(ImportError, match=INSTRUCTION):
        make()


def test_murmur_is_not_imported_before_a_store_is_made() -> None:
    """The import of our module costs nothing."""
    program = "import sys, murmur_streams.interop.murmur_runtime as ours\n"
    program += "before = 'murmur' in sys.modules\nours.InMemoryRunStore()\n"
    program += "print(before, 'murmur' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["False", "True"], "")
