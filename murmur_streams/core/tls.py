"""The reason of a failed TLS handshake that a retry cannot mend, for every client alike.

The reason is read from the error's text. Drivers wrap the exception itself, and the chain of causes
may lead to another exception, which the caller was handling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto


class TlsCheck(Enum):
    """The check that failed."""

    AUTHORITY = auto()
    NAME = auto()
    DATES = auto()
    CLIENT_CERTIFICATE = auto()
    VERSION = auto()
    NO_TLS = auto()


@dataclass(frozen=True, slots=True)
class TlsFault:
    """A failed handshake: the check, and a clause that says what failed."""

    check: TlsCheck
    text: str


_REASON = re.compile(r"\[SSL: ([A-Z0-9_]+)\](?: certificate verify failed: ([^(\n]+?)\.? \(_ssl)?")
_NOT_TLS = TlsFault(TlsCheck.NO_TLS, "the port does not speak TLS")
_NO_CLIENT = TlsFault(
    TlsCheck.CLIENT_CERTIFICATE, "the server asks for a certificate of the client"
)
_REFUSED = TlsFault(TlsCheck.CLIENT_CERTIFICATE, "the server refuses this client's certificate")
_NOTHING_IN_COMMON = TlsFault(
    TlsCheck.VERSION, "client and server have no TLS version or cipher in common"
)
_FAULTS = {
    "WRONG_VERSION_NUMBER": _NOT_TLS,
    "RECORD_LAYER_FAILURE": _NOT_TLS,
    "UNKNOWN_PROTOCOL": _NOT_TLS,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _NO_CLIENT,
    "SSLV3_ALERT_BAD_CERTIFICATE": _REFUSED,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": _REFUSED,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _REFUSED,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": _REFUSED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _REFUSED,
    "TLSV1_ALERT_UNKNOWN_CA": _REFUSED,
    "TLSV1_ALERT_ACCESS_DENIED": _REFUSED,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": _NOTHING_IN_COMMON,
    "TLSV1_ALERT_PROTOCOL_VERSION": _NOTHING_IN_COMMON,
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": _NOTHING_IN_COMMON,
    "UNSUPPORTED_PROTOCOL": _NOTHING_IN_COMMON,
    "NO_PROTOCOLS_AVAILABLE": _NOTHING_IN_COMMON,
    "TLSV1_UNRECOGNIZED_NAME": TlsFault(
        TlsCheck.NAME, "the server has no certificate for this host name"
    ),
}
"""By OpenSSL's reason. Other reasons, such as a closed connection, may pass with a retry."""


def tls_fault(error: BaseException) -> TlsFault | None:
    """The failed check in an error of a connection; None for any other error."""
    found = _REASON.search(str(error))
    if found is None:
        return None
    if found[1] == "CERTIFICATE_VERIFY_FAILED":
        return _certificate_fault(found[2] or "the certificate is not valid")
    return _FAULTS.get(found[1])


def _certificate_fault(why: str) -> TlsFault:
    if "mismatch" in why:
        return TlsFault(TlsCheck.NAME, f"the server's certificate is for another host ({why})")
    if "expired" in why or "not yet valid" in why:
        return TlsFault(TlsCheck.DATES, f"the dates of the server's certificate are wrong ({why})")
    return TlsFault(
        TlsCheck.AUTHORITY,
        f"its certificate is not signed by an authority that this machine trusts ({why})",
    )
