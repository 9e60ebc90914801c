"""The variables of the environment: defaults, rules, and the table that documents them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from murmur_streams.cli.shell.about import settings_table
from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.settings import VARIABLES, Settings


def test_an_empty_environment_yields_the_defaults() -> None:
    """Without variables each setting has its default."""
    assert Settings.from_environment({}) == Settings()


def test_every_variable_is_a_field_with_the_same_default() -> None:
    """The documented default is the real one."""
    fields = {field.name: field.default for field in dataclasses.fields(Settings)}
    assert {row.field: row.default for row in VARIABLES} == fields


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("MURMUR_URL", "redis://localhost:6379/0", "url", "redis://localhost:6379/0"),
        ("MURMUR_URL", "", "url", None),
        ("MURMUR_DATA_DIR", "data", "data_dir", Path("data")),
        ("MURMUR_DATA_DIR", "", "data_dir", None),
        ("MURMUR_KEY_PREFIX", "team:a", "key_prefix", "team:a"),
        ("MURMUR_PARTITIONS", "4", "partitions", 4),
        ("MURMUR_TTL_SECONDS", "0", "ttl_seconds", 0),
        ("MURMUR_TTL_SECONDS", " 60 ", "ttl_seconds", 60),
        ("MURMUR_LIVE_TTL_SECONDS", "86400", "live_ttl_seconds", 86400),
        ("MURMUR_CONCURRENCY", "1", "concurrency", 1),
        ("MURMUR_LEASE_SECONDS", "2.5", "lease_seconds", 2.5),
        ("MURMUR_DRAIN_SECONDS", "0", "drain_seconds", 0.0),
        ("MURMUR_LOG_LEVEL", "DEBUG", "log_level", "debug"),
        ("MURMUR_PORT", "0", "port", 0),
        ("MURMUR_HOST", "", "host", "127.0.0.1"),
        ("MURMUR_TOKENS_FILE", "tokens.toml", "tokens_file", Path("tokens.toml")),
        ("MURMUR_CORS_ORIGINS", "", "cors_origins", ()),
        ("MURMUR_CORS_ORIGINS", "https://a.example", "cors_origins", ("https://a.example",)),
        (
            "MURMUR_CORS_ORIGINS",
            "http://localhost:3000, https://[::1]:80",
            "cors_origins",
            ("http://localhost:3000", "https://[::1]:80"),
        ),
        ("MURMUR_ROOT_PATH", "/runs-api/v1", "root_path", "/runs-api/v1"),
        ("MURMUR_TRUST_ENV", "0", "trust_env", False),
        ("MURMUR_TRUST_ENV", "", "trust_env", True),
        ("MURMUR_DEBUG", "1", "debug", True),
        ("MURMUR_DEBUG", "off", "debug", False),
        ("MURMUR_DEBUG", "", "debug", False),
    ],
)
def test_a_good_value_is_read(name: str, text: str, field: str, value: object) -> None:
    """Each variable sets its field."""
    assert getattr(Settings.from_environment({name: text}), field) == value


@pytest.mark.parametrize("name", ["MURMUR_TTL_SECONDS", "MURMUR_CONCURRENCY"])
@pytest.mark.parametrize(
    "text", ["1e3", "0x10", "", " ", "-1", "+1", "1_000", "1.5", "\u0661", "ten", "9" * 40]
)
def test_what_is_no_whole_number_is_refused(name: str, text: str) -> None:
    """The error names the variable and the rule."""
    with pytest.raises(StoreConfigurationError, match=f"{name} is .* must be a whole number"):
        Settings.from_environment({name: text})


@pytest.mark.parametrize("text", ["1e3", "inf", "nan", "", "-2", "0", ".5", "2.", "2,5", "99999"])
def test_what_is_no_sensible_lease_is_refused(text: str) -> None:
    """It must be from 1 to 3600."""
    with pytest.raises(
        StoreConfigurationError, match=r"MURMUR_LEASE_SECONDS is .* a number from 1 to 3600"
    ):
        Settings.from_environment({"MURMUR_LEASE_SECONDS": text})


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("MURMUR_KEY_PREFIX", "", "1 to 64 characters"),
        ("MURMUR_KEY_PREFIX", "a{b}", "1 to 64 characters"),
        ("MURMUR_KEY_PREFIX", "a\nb", "1 to 64 characters"),
        ("MURMUR_CONCURRENCY", "0", "from 1 to 10000"),
        ("MURMUR_PARTITIONS", "0", "from 1 to 256"),
        ("MURMUR_PARTITIONS", "257", "from 1 to 256"),
        ("MURMUR_LOG_LEVEL", "loud", "one of debug, info, warning, error"),
        ("MURMUR_DEBUG", "maybe", "0 or 1"),
        ("MURMUR_PORT", "65536", "from 0 to 65535"),
        ("MURMUR_CORS_ORIGINS", "*", "an origin such as"),
        ("MURMUR_CORS_ORIGINS", "https://a.example,", "several with commas"),
        ("MURMUR_CORS_ORIGINS", "https://A.example", "exact and in lower case"),
        ("MURMUR_CORS_ORIGINS", "http://a.example:80", "an origin such as"),
        ("MURMUR_ROOT_PATH", "/api/", "without a slash at its end"),
        ("MURMUR_ROOT_PATH", "api", "a path such as"),
    ],
)
def test_a_bad_value_is_refused_with_its_rule(name: str, text: str, rule: str) -> None:
    """The error names the variable and its rule."""
    with pytest.raises(StoreConfigurationError, match=f"{name} is .*{rule}"):
        Settings.from_environment({name: text})


def test_the_error_is_one_line_whatever_the_value() -> None:
    """Control characters are escaped."""
    with pytest.raises(StoreConfigurationError) as caught:
        Settings.from_environment({"MURMUR_CONCURRENCY": "\n\x1b[31m" * 100})
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_the_table_has_a_row_for_each_variable() -> None:
    """The rows are in the order of the variables."""
    rows = settings_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [row.name for row in VARIABLES]
