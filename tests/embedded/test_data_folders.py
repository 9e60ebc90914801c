"""Where the data is by default, and how its paths are written for the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from murmur_streams.embedded import default_data_dir
from murmur_streams.embedded import folder as folders
from murmur_streams.embedded.launch import config_text, quoted


@pytest.mark.parametrize(
    ("platform", "environ", "expected"),
    [
        ("linux", {"MURMUR_DATA_DIR": "/x", "XDG_DATA_HOME": "/y", "HOME": "/h"}, "/x"),
        ("linux", {"MURMUR_DATA_DIR": "", "XDG_DATA_HOME": "/y", "HOME": "/h"}, "/y/NAME"),
        ("linux", {"MURMUR_DATA_DIR": " ", "XDG_DATA_HOME": "/y", "HOME": "/h"}, "/y/NAME"),
        ("linux", {"XDG_DATA_HOME": "relative", "HOME": "/h"}, "/h/.local/share/NAME"),
        ("linux", {"HOME": "/h"}, "/h/.local/share/NAME"),
        ("darwin", {"XDG_DATA_HOME": "/y", "HOME": "/h"}, "/h/Library/Application Support/NAME"),
        ("win32", {"LOCALAPPDATA": "/l", "HOME": "/h"}, "/l/NAME"),
    ],
)
def test_the_default_folder(
    monkeypatch: pytest.MonkeyPatch, platform: str, environ: dict[str, str], expected: str
) -> None:
    """The variables and the platform decide."""
    monkeypatch.setattr(folders.sys, "platform", platform)
    assert default_data_dir(environ) == Path(expected.replace("NAME", "murmur-streams"))


def test_a_tilde_in_the_chosen_folder_is_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """MURMUR_DATA_DIR may begin with a tilde."""
    monkeypatch.setenv("HOME", "/h")
    assert default_data_dir({"MURMUR_DATA_DIR": "~/data"}) == Path("/h/data")


def test_quoted_values_cannot_end_their_value_or_line() -> None:
    """Quotes, backslashes and newlines are escaped."""
    value = 'a "b" \\ \n c \r \t ü ' + "\udcff"
    assert quoted(value) == r'"a \x22b\x22 \x5c \x0a c \x0d \x09 \xc3\xbc \xff"'


def test_each_line_of_the_config_is_one_setting() -> None:
    """A folder's name cannot add one."""
    lines = config_text(Path("/a\nport 1"), Path("/b\nport 2")).splitlines()
    assert [line.split(" ")[0] for line in lines if not line.startswith("#")].count("port") == 1
    assert r'dir "/a\x0aport 1"' in lines
