"""Makes the problem document (RFC 9457) of an exception; ``wire/problems.py`` has the table.

A document has ``type``, ``title``, ``status``, ``detail`` and ``request_id``; beside them the
fields that clients of ``murmur-runtime`` read: ``error``, ``message``, ``agent``, ``task_id``.
The text of an internal error is logged under the request id and never sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from murmur_streams.core.exception_text import error_message
from murmur_streams.core.model import errors
from murmur_streams.wire.problems import EXCEPTION_KINDS, INTERNAL, INVALID, ProblemKind

_MOST_SHOWN = 5
_SHOWN_CHARACTERS = 100


class ProblemError(Exception):
    """One answer that is not a success; a route or a dependency raises it to answer with it."""

    def __init__(
        self,
        kind: ProblemKind,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail or kind.title)
        self.kind = kind
        self.headers = dict(headers or {})
        """With Retry-After if the kind of problem has one."""
        if kind.retry_after is not None:
            self.headers.setdefault("Retry-After", str(kind.retry_after))
        self.members = members

    def document(self, request_id: str) -> dict[str, Any]:
        """The JSON document."""
        return {
            "type": self.kind.type,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": str(self),
            "request_id": request_id,
            "error": self.kind.error,
            "message": str(self),
            "agent": None,
            "task_id": None,
            **self.members,
        }


_REFUSED_WRITES: dict[type[BaseException], str] = {
    errors.StoreFullError: "The store has no free memory and takes no new work now",
    errors.StoreReadOnlyError: "The store takes no writes now: it is a replica",
}


def problem_of(error: BaseException) -> ProblemError:
    """The problem to answer with for an exception."""
    if isinstance(error, ProblemError):
        return error
    # By its type: a user's exception may override ``__class__`` with anything, or raise there.
    kind = next((kind for made, kind in EXCEPTION_KINDS if issubclass(type(error), made)), INTERNAL)
    if isinstance(error, errors.RunDamagedError):
        return ProblemError(
            kind, damage_detail(error), run_id=error.run_id, can_rebuild=error.can_rebuild
        )
    detail = error_message(error) if kind.shows_detail else None
    problem = ProblemError(kind, _REFUSED_WRITES.get(type(error), detail))
    if isinstance(error, errors.CursorError):
        problem.members["resume_cursor"] = error.resume_cursor
    return problem


def damage_detail(error: errors.RunDamagedError) -> str:
    """The commands that show and repair a damaged run. The damage itself is only in the log."""
    advice = (
        f"`murmur-streams rebuild {error.run_id}` makes it anew from its journal"
        if error.can_rebuild
        else "its journal cannot mend it: import it from an export, or delete it by force"
    )
    return (
        f"what is stored of run {error.run_id!r} is damaged; `murmur-streams audit "
        f"{error.run_id}` shows where, and {advice}"
    )


def invalid(what: str, errors: list[Any]) -> ProblemError:
    """The problem of values that break rules: it names the path and rule of each, not the value."""
    shown = [{"at": _path(each["loc"]), "rule": _clean(each["msg"])} for each in errors]
    first = "; ".join(f"{each['at']}: {each['rule']}" for each in shown[:_MOST_SHOWN])
    more = len(shown) - _MOST_SHOWN
    detail = f"{what} does not fit: {first}" + (f"; and {more} more" if more > 0 else "")
    return ProblemError(INVALID, detail, errors=shown[:_MOST_SHOWN])


def _path(loc: tuple[object, ...]) -> str:
    return _clean(".".join(str(part) for part in loc)) or "value"


def _clean(text: str) -> str:
    return ascii(text)[1:-1][:_SHOWN_CHARACTERS]
