"""A URL is shown without its credentials, whatever is wrong with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmur_streams.core.redaction import redacted

SHOWN = {
    "redis://SECRET:@host:6379": "redis://***@host:6379",
    "redis://user:SECRET@h:1/0": "redis://user:***@h:1/0",
    "redis://:SECRET@h:1": "redis://:***@h:1",
    "redis://SECRET@h:1": "redis://***@h:1",
    "rediss://SECRET@h": "rediss://***@h",
    "redis://%53ECRET@h": "redis://***@h",
    "redis://:a@SECRET@h": "redis://:***@h",
    "redis://:SECRET/x@h:1": "redis://:***@h:1",
    "redis://SECRET/x@h:1": "redis://***@h:1",
    "redis://:SECRET?x#y@h": "redis://:***@h",
    "redis:/user:SECRET@h": "redis:/user:***@h",
    "redis:SECRET@h": "***@h",
    "SECRET@h:1": "***@h:1",
    "user:SECRET@h:1": "***@h:1",
    "redis://:SECRET-h:1": "redis://:***",
    "redis://h:SECRET": "redis://h:***",
    "redis://h?password=SECRET": "redis://h?password=***",
    "redis://h?db=1&PASSWORD=SECRET&x=1": "redis://h?db=1&PASSWORD=***&x=1",
    "redis://h?username=SECRET": "redis://h?username=***",
    "rediss://h?ssl_password=SECRET": "rediss://h?ssl_password=***",
    "unix://user:SECRET@/tmp/s": "unix://user:***@/tmp/s",
    "unix://SECRET@/tmp/s": "unix://***@/tmp/s",
    "unix:///tmp/s?password=SECRET": "unix:///tmp/s?password=***",
    "https://user:SECRET@h/runs": "https://user:***@h/runs",
    "https://SECRET@h": "https://***@h",
    "https://h?access_token=SECRET": "https://h?access_token=***",
    "embedded://user:SECRET@h/p": "embedded://user:***@h/p",
    "redis://user:SECRET@[::1": "redis://user:***@[::1",
    "redis+cluster://user:SECRET@a:1,b:2": "redis+cluster://user:***@a:1,b:2",
    "redis+cluster://SECRET@a:1,b:2": "redis+cluster://***@a:1,b:2",
    "rediss+cluster://:SECRET/x@a,b": "rediss+cluster://:***@a,b",
    "redis+cluster://a:1,b:SECRET": "redis+cluster://a:1,b:***",
    "redis+cluster://a:SECRET,b:1": "redis+cluster://a:***",
    "redis+cluster://a,b?password=SECRET": "redis+cluster://a,b?password=***",
}
PLAIN = [
    "redis://h",
    "redis://h:6379/0?ssl_ca_certs=/a/b.pem",
    "redis://[::1]:6379/0",
    "redis+cluster://a:7000,b,c:7002/0?socket_keepalive=yes",
    "rediss+cluster://[::1]:7000,[::2]:7001",
    "unix:///tmp/a@b/s.sock",
    "sqlite:///data/a@b.db",
    "sqlite:a@b.db",
    "rocksdb:runs",
    "embedded:",
    "embedded:///home/me/data",
    "memory:",
    "http://127.0.0.1:8421",
    "",
    "runs.db",
]


@pytest.mark.parametrize("url", SHOWN)
def test_credentials_are_hidden(url: str) -> None:
    """Passwords, users that may be passwords, and options with secrets are stars."""
    assert redacted(url) == SHOWN[url]


@pytest.mark.parametrize("url", PLAIN)
def test_what_has_no_credentials_is_shown_whole(url: str) -> None:
    """A path with an @ in it is shown as it is."""
    assert redacted(url) == url


@given(
    st.sampled_from(["redis", "rediss", "http", "https"]),
    st.sampled_from(["", "user:", ":"]),
    st.text("SECRET/?#:@%&=. ", min_size=1),
)
def test_no_part_of_any_secret_is_shown(scheme: str, user: str, secret: str) -> None:
    """The shown text does not depend on the characters of the secret."""
    shown = redacted(f"{scheme}://{user}{secret}@host/0")
    if user == "user:" or ":" not in secret:
        assert shown == redacted(f"{scheme}://{user}x@host/0")
