"""The grammar of run ids, targets and tenants; only names inside it become parts of keys."""

from __future__ import annotations

import re
import secrets

from murmur_streams.core.model import errors

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHOWN = 60

EPOCH_BYTES = 4


def check_run_id(run_id: object) -> str:
    """Return ``run_id`` if it is inside the grammar, else raise InvalidRunIdError."""
    if isinstance(run_id, str) and _RUN_ID.fullmatch(run_id):
        return run_id
    raise errors.InvalidRunIdError(_refusal("run_id", run_id, 128, ". _ : -"))


def check_target(target: object) -> str:
    """Return ``target`` if it is inside the grammar, else raise InvalidTargetError."""
    if isinstance(target, str) and _TARGET.fullmatch(target):
        return target
    raise errors.InvalidTargetError(_refusal("target", target, 128, ". _ -"))


def check_tenant(tenant: object) -> str | None:
    """Return ``tenant`` if it is None or inside the grammar, else raise InvalidInputError."""
    if tenant is None or (isinstance(tenant, str) and _TENANT.fullmatch(tenant)):
        return tenant
    raise errors.InvalidInputError(_refusal("tenant", tenant, 64, ". _ -"))


def new_run_id() -> str:
    """Draw a run id: 128 random bits as 32 hexadecimal digits."""
    return secrets.token_hex(16)


def new_epoch() -> str:
    """Draw an epoch: a random mark that is different for each life of a run id."""
    return secrets.token_hex(EPOCH_BYTES)


def _refusal(what: str, value: object, most: int, others: str) -> str:
    # ascii() escapes characters that could forge a log line.
    text = ascii(value)
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return (
        f"{what} {shown} is refused: use 1 to {most} characters of A-Z a-z 0-9 {others} "
        "that begin with a letter or a digit"
    )
