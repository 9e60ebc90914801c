"""Options: those that several commands have, options over settings, and their parsers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, field, fields, is_dataclass
from datetime import datetime
from typing import Annotated, Any, cast, get_type_hints

import typer

from murmur_streams.core.model.limits import TEN_YEARS_SECONDS
from murmur_streams.core.model.run import MOST_RUNS
from murmur_streams.core.model.states import RunState
from murmur_streams.settings import VARIABLES, Settings, variable

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)?", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400}

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The id of a run.", show_default=False)]
AgentName = Annotated[str, typer.Argument(metavar="TARGET", help="The agent's name.")]
State = Annotated[RunState | None, typer.Option("--state", help="Only runs in this state.")]
Target = Annotated[
    str | None, typer.Option("--target", metavar="TARGET", help="Only runs of this agent.")
]
Limit = Annotated[
    int, typer.Option("--limit", metavar="N", min=1, max=MOST_RUNS, help="How many, at most.")
]
Every = Annotated[bool, typer.Option("--all", help="All of them, however many.")]

Function = Callable[..., Any]


def option(*flags: str, default: Any = None, shown: bool = True, **more: Any) -> Any:
    """A field of a dataclass of options.

    Args:
        flags: its names, where typer should not make one of the field's name.
        default: without the option.
        shown: whether the repr of the dataclass has it; False for what may hold a secret.
        more: for typer.
    """
    return field(default=default, repr=shown, metadata={"option": typer.Option(*flags, **more)})


def setting_option(setting: str, text: str, *flags: str, otherwise: str = "", **more: Any) -> Any:
    """An option over a setting of the environment; it has the bounds of the setting's rule.

    Args:
        setting: the field of Settings.
        text: about the option; its default, the variable, is added.
        flags: its names, where typer should not make one of the field's name.
        otherwise: what holds without the variable, such as ``, else none``.
        more: for typer.
    """
    row = variable(setting)
    if row.rule.least is not None:
        more |= {"min": row.rule.least, "max": row.rule.most}
    return option(*flags, help=f"{text} Default: {row.name}{otherwise}.", **more)


def settings_with(settings: Settings, options: Any) -> Settings:
    """The settings, with those fields of a dataclass over them that have a setting's name."""
    names = {row.field for row in VARIABLES}
    given: dict[str, Any] = {}
    for name, value in asdict(options).items():
        # An empty list or address was not given; an empty root path is the root.
        if name in names and (value or name not in _NEVER_EMPTY):
            given[name] = tuple(cast("list[str]", value)) if isinstance(value, list) else value
    return settings.override(**given)


_NEVER_EMPTY = frozenset({"host", "health_host", "cors_origins"})


def parameters_of(function: Function) -> list[inspect.Parameter]:
    """The parameters of a function, with the types that its annotations name."""
    hints = get_type_hints(function, include_extras=True)
    return [
        each.replace(annotation=hints[each.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for each in inspect.signature(function).parameters.values()
    ]


def with_options(function: Function, parameters: Iterable[inspect.Parameter]) -> Function:
    """The function for typer, where each field of a dataclass among its parameters is an option."""
    flat: list[inspect.Parameter] = []
    kinds: dict[str, type[Any]] = {}
    for parameter in parameters:
        kind: Any = parameter.annotation
        if is_dataclass(kind):
            kinds[parameter.name] = cast("type[Any]", kind)
            flat += _options_of(kinds[parameter.name])
        else:
            flat.append(parameter)

    def run(**values: Any) -> None:
        for name, kind in kinds.items():
            values[name] = kind(**{each.name: values.pop(each.name) for each in fields(kind)})
        function(**values)

    run.__doc__ = _reflowed(function.__doc__ or "")
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    run.__signature__ = inspect.Signature(flat)  # pyright: ignore[reportFunctionMemberAccess]  # inspect's own protocol
    return run


def _options_of(kind: type[Any]) -> list[inspect.Parameter]:
    """A parameter for each field of a dataclass, described by its ``option``."""
    known = {each.name: each.metadata["option"] for each in fields(kind)}
    return [
        each.replace(annotation=Annotated[each.annotation, known[each.name]])
        for each in parameters_of(kind)
    ]


def _reflowed(docstring: str) -> str:
    """Each paragraph on one line, so that the terminal's width wraps it, not our source's."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def seconds_of(text: str) -> float:
    """Seconds, from ``90``, ``1.5s``, ``5m``, ``2h`` or ``7d``."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(
            f"{text!r} is not a duration: write seconds, or a number with s, m, h or d, such as "
            "5m, from 0 to ten years"
        )
    seconds = float(found[1]) * _UNITS[found[2] or "s"]
    if seconds > TEN_YEARS_SECONDS:
        raise typer.BadParameter(f"{text!r} is too long: it must be from 0 to ten years (3650d)")
    return seconds


def moment_of(text: str) -> datetime:
    """A moment, from ISO 8601; without a zone, it is in this machine's zone."""
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(
            f"{text!r} is not a moment: write it as 2030-01-31T09:00 or 2030-01-31T09:00:00+01:00"
        ) from None
