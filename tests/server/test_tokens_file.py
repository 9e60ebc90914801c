"""The tokens file: what may stand in it, and what happens when it changes."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.server.auth import (
    BearerTokens,
    Principal,
    Scope,
    TokensFile,
    digest,
    draw_token,
    parse_tokens,
    record_of,
)
from murmur_streams.wire.problems import ProblemError

OLD, NEW = "old-token-0123456789", "new-token-0123456789"


def record(token: str = OLD, *, name: str = "web", scopes: str = '["read"]', more: str = "") -> str:
    return f'[[tokens]]\nname = "{name}"\ntoken = "{token}"\nscopes = {scopes}\n{more}\n'


def bearer(token: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {token}".encode())]


async def is_taken(authenticator: BearerTokens, token: str) -> bool:
    try:
        await authenticator(bearer(token))
    except ProblemError as error:
        return error.kind.status != 401
    return True


def test_a_record_says_who_it_is_for_and_what_they_may() -> None:
    """It has name, scopes, tenant and expiry."""
    more = 'tenant = "acme"\nexpires = 2031-01-31T00:00:00Z'
    [token] = parse_tokens(record(scopes='["read", "cancel"]', more=more))
    expires = datetime(2031, 1, 31, tzinfo=UTC).timestamp()
    who = Principal("web", frozenset({Scope.READ, Scope.CANCEL}), "acme", None, expires)
    assert token.principal == who
    assert token.sha256 == digest(OLD.encode())


async def test_a_tokens_file_may_begin_with_a_mark(tmp_path: Path) -> None:
    """An editor on Windows puts a byte order mark before the text; the file is read as UTF-8."""
    path = tmp_path / "tokens.toml"
    path.write_text(record(), encoding="utf-8-sig")
    assert await is_taken(BearerTokens.of_file(path), OLD)


def test_a_hash_stands_for_its_token() -> None:
    """A record may have sha256 in place of the token."""
    hashed = record().replace(f'token = "{OLD}"', f'sha256 = "{digest(OLD.encode()).hex()}"')
    assert parse_tokens(hashed) == parse_tokens(record())


def test_what_is_drawn_can_be_read() -> None:
    """The record of a new token does not contain it."""
    who = Principal("web", frozenset({Scope.SUBMIT, Scope.READ}), "acme", None, 1_900_000_000.0)
    drawn = draw_token()
    [token] = parse_tokens(record_of(drawn, who))
    assert token.principal == who
    assert token.sha256 == digest(drawn.encode())
    assert drawn not in record_of(drawn, who)
    assert draw_token() != drawn


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", r"must hold \[\[tokens\]\] records"),
        ("tokens = []", r"must hold \[\[tokens\]\] records"),
        ("tokens = [1]", "record 1: it must be a table"),
        ("[[token]]\nname = 'a'", r"must hold \[\[tokens\]\] records"),
        ("[[tokens]", "not TOML"),
        (record() + "x = 1\n", "record 1: 'x' is none of expires, name"),
        (record(name="a b"), "record 1: name must be"),
        (record() + record(name=""), "record 2: name must be"),
        (record(token="short"), "token must be 16 characters or more"),
        (record(token="with a space in the middle"), "token must be"),
        (record(token="a" * 5_000), "token must be"),
        (record(more="sha256 = 'aa'"), "either token or sha256"),
        ('[[tokens]]\nname = "a"\nscopes = ["read"]', "either token or sha256"),
        ('[[tokens]]\nname = "a"\nscopes = ["read"]\nsha256 = "AB"', "64 hexadecimal digits"),
        (record(scopes="[]"), "scopes must be a list of submit, read, cancel, admin"),
        (record(scopes='["write"]'), "scopes must be a list"),
        (record(scopes="[[1]]"), "scopes must be a list"),
        (record(scopes='"read"'), "scopes must be a list"),
        (record(more='tenant = "a b"'), "tenant"),
        (record(more='tenant = ""'), "tenant"),
        (record(more="expires = 2031-01-31"), "expires must be a moment with its zone"),
        (record(more="expires = 2031-01-31T00:00:00"), "expires must be a moment"),
        (record(more="expires = 1"), "expires must be a moment"),
    ],
)
def test_an_error_names_the_rule_but_no_secret(tmp_path: Path, text: str, rule: str) -> None:
    """The error is about an invalid tokens file."""
    file = tmp_path / "tokens.toml"
    file.write_text(text)
    with pytest.raises(StoreConfigurationError, match=rule) as caught:
        TokensFile(file)
    assert str(file) in str(caught.value)
    assert OLD not in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """A server with a tokens file never starts without its tokens."""
    with pytest.raises(StoreConfigurationError, match="No such file"):
        BearerTokens.of_file(tmp_path / "nowhere.toml")


def test_a_file_that_is_not_text_is_an_error(tmp_path: Path) -> None:
    """It names the file."""
    file = tmp_path / "tokens.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(StoreConfigurationError, match="the tokens file"):
        BearerTokens.of_file(file)


async def test_two_tokens_of_one_name_are_one_caller(tmp_path: Path) -> None:
    """They share limits and tickets."""
    file = tmp_path / "tokens.toml"
    file.write_text(record(OLD) + record(NEW))
    authenticator = BearerTokens.of_file(file)
    assert await authenticator(bearer(OLD)) == await authenticator(bearer(NEW))


async def test_a_rotation_needs_no_restart(tmp_path: Path) -> None:
    """Old, both, and then only the new token are accepted."""
    file = tmp_path / "tokens.toml"
    file.write_text(record(OLD))
    authenticator = BearerTokens.of_file(file)
    assert [await is_taken(authenticator, each) for each in (OLD, NEW)] == [True, False]
    file.write_text(record(OLD) + record(NEW))
    assert [await is_taken(authenticator, each) for each in (OLD, NEW)] == [True, True]
    replacement = tmp_path / "next.toml"
    replacement.write_text(record(NEW))
    os.replace(replacement, file)  # noqa: PTH105  # as deployments do it
    assert [await is_taken(authenticator, each) for each in (OLD, NEW)] == [False, True]


@pytest.mark.parametrize("broken", ["", "[[tok", None], ids=["empty", "half", "gone"])
async def test_a_file_that_breaks_leaves_the_tokens_of_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str | None
) -> None:
    """One line in the log says so."""
    file = tmp_path / "tokens.toml"
    file.write_text(record(OLD))
    authenticator = BearerTokens.of_file(file)
    if broken is None:
        file.unlink()
    else:
        file.write_text(broken)
    assert await is_taken(authenticator, OLD)
    assert await is_taken(authenticator, OLD)
    [logged] = [each for each in caplog.records if each.levelname == "ERROR"]
    assert "the tokens of before stay in force" in logged.getMessage()
    file.write_text(record(NEW))
    assert not await is_taken(authenticator, OLD)
    assert await is_taken(authenticator, NEW)


def hashed(token: str) -> str:
    return record_of(token, Principal("web", frozenset({Scope.READ})))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("text", "mode", "warned"),
    [
        (record(), 0o600, ""),
        (record(), 0o640, "chmod 600"),
        (record(), 0o644, "chmod 600"),
        (hashed(OLD), 0o644, ""),
        (hashed(OLD) + record(NEW), 0o644, "chmod 600"),
        (hashed(OLD), 0o664, "chmod go-w"),
        (hashed(OLD), 0o646, "chmod go-w"),
    ],
)
def test_a_file_that_lets_others_in_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, mode: int, warned: str
) -> None:
    """Others may read hashes, but neither tokens as they are nor write records of their own."""
    file = tmp_path / "tokens.toml"
    file.write_text(text)
    file.chmod(mode)
    assert TokensFile(file).tokens()
    found = warnings_of(caplog)
    assert len(found) == bool(warned)
    assert all(warned in each and str(file) in each for each in found)
    assert not any(OLD in each or NEW in each for each in found)


def test_the_warning_comes_again_with_a_change_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once at the start, once when the file was read again, never with a request."""
    file = tmp_path / "tokens.toml"
    file.write_text(hashed(OLD))
    file.chmod(0o644)
    tokens = TokensFile(file)
    assert warnings_of(caplog) == []
    for text, mode, count in ((record(), 0o644, 1), (record(), 0o600, 1), (record(NEW), 0o604, 2)):
        file.write_text(text)
        file.chmod(mode)
        for _ in range(3):
            assert tokens.tokens()
        assert len(warnings_of(caplog)) == count
