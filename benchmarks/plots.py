"""Plots of results as SVG files: small, the same for the same results, for light and dark pages."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from benchmarks.figures import figure_of, shown
from benchmarks.harness.results import Results, Row, Spread, quantiles
from benchmarks.harness.session import FLOOR, OURS, PEER, PEERS
from benchmarks.suites.redis_store import RAW

LABELS = {FLOOR: "floor: redis-py", RAW: "floor: bare socket"}
TEXT = "#6e7781"
"""Grey that can be read on white and on black."""
COLORS = {OURS: "#2f81f7", FLOOR: "#8b949e", RAW: "#b1bac4", PEER: "#d29922"}
OTHERS = ("#3fb950", "#db61a2", "#a371f7", "#f0883e", "#39c5cf", "#e5534b")
STYLE = {
    "svg.hashsalt": "murmur-streams",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": TEXT,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "grid.color": TEXT,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
RATES = ("append_one_run", "append_many_runs", "append", "lifecycle", "create", "replay")
GROWN = ("create", "append", "submit", "claim")
DELIVERIES = (("delivery_p50", "same process"), ("delivery_other_p50", "another process"))
Draw = Callable[[Results], Any]


def write_plots(results: Results, folder: Path) -> list[Path]:
    """Write every plot whose figures were measured."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with _matplotlib().rc_context(STYLE):
        for name, draw in PLOTS.items():
            if (figure := draw(results)) is not None:
                written.append(folder / f"{name}.svg")
                written[-1].write_text(_svg(figure))
    return written


def _rates(results: Results) -> Any:
    """Rates beside floors and peers: a group of bars for each figure."""
    groups = [
        (figure_of(figure).title, rows)
        for figure in RATES
        if (rows := _rows(results, "redis", figure, (OURS, PEER, FLOOR, RAW)))
    ]
    if not groups:
        return None
    figure = _figure(9, 0.6 + 0.23 * sum(len(rows) + 1 for _, rows in groups))
    axes = figure.subplots()
    _bars(axes, groups)
    _logarithmic(axes)
    axes.set_xlabel("a second, logarithmic; a line spans the quartiles of the rounds")
    return figure


def _jobs(results: Results) -> Any:
    """No-op jobs a second, and the time from submit to result, of every engine."""
    columns = [
        (figure, rows)
        for figure in ("noops", "start_p50", "result_p50")
        if (rows := _rows(results, "jobs", figure, (OURS, *PEERS)))
    ]
    if not columns:
        return None
    figure = _figure(9, 2.6)
    for axes, (name, rows) in zip(_panels(figure, len(columns)), columns, strict=True):
        _bars(axes, [("", rows)])
        axes.set_title(figure_of(name).title)
        if name != "noops":
            _logarithmic(axes)
        axes.set_xlabel("a second" if name == "noops" else "ms, logarithmic")
    return figure


def _latency(results: Results) -> Any:
    """How many of the events had arrived after how long."""
    found = [
        (title, rows)
        for name, title in DELIVERIES
        if (rows := _rows(results, "delivery", name, (OURS, FLOOR, PEER)))
    ]
    if not found:
        return None
    figure = _figure(9, 3)
    for axes, (title, rows) in zip(_panels(figure, len(found)), found, strict=True):
        for row in rows:
            steps = quantiles(row.samples)
            parts = [100 * number / max(1, len(steps) - 1) for number in range(len(steps))]
            label = "XADD to XREAD BLOCK" if row.subject == FLOOR else row.subject
            axes.plot(steps, parts, color=COLORS[row.subject], label=label)
        _logarithmic(axes)
        axes.set_title(f"Event to subscriber, {title}")
        axes.set_xlabel("ms, logarithmic")
        axes.set_ylabel("% of the events have arrived")
        axes.grid(visible=True)
        axes.legend(loc="lower right")
    return figure


def _costs(results: Results) -> Any:
    """CPU time per operation by the number of live runs, of subscribers, of events in a journal."""
    grown = [(work, results.curve("growth", f"growth_{work}", OURS)) for work in GROWN]
    panels = [
        ("live runs", [(work, rows) for work, rows in grown if rows]),
        ("subscribers", [("event", results.curve("live", "fan_out_cost", OURS))]),
        (
            "events in the journal",
            [("append", results.curve("journals", "append_to_length", OURS))],
        ),
    ]
    panels = [(label, curves) for label, curves in panels if any(rows for _, rows in curves)]
    if not panels:
        return None
    figure = _figure(9, 3.8)
    for axes, (label, curves) in zip(_panels(figure, len(panels)), panels, strict=True):
        for (name, rows), color in zip(curves, (COLORS[OURS], *OTHERS), strict=False):
            for column, style in (("server_us", "-"), ("client_us", ":")):
                points = [(row.at, Spread.of(getattr(row, column)).median) for row in rows]
                of = column.removesuffix("_us")
                axes.plot(*zip(*points, strict=True), style, color=color, label=f"{name}, {of}")
        _logarithmic(axes)
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        axes.set_xlabel(f"{label}, logarithmic")
        axes.set_ylabel("µs of CPU each")
        axes.grid(visible=True)
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return figure


PLOTS: dict[str, Draw] = {"rates": _rates, "latency": _latency, "jobs": _jobs, "costs": _costs}
"""The plots, by the names of their files."""


def _bars(axes: Any, groups: Sequence[tuple[str, list[Row]]]) -> None:
    """Horizontal bars, the first one on top, with medians and quartiles."""
    at, ticks = 0, list[tuple[float, str]]()
    for title, rows in groups:
        if title:
            ticks.append((at, title))
            at += 1
        for row in rows:
            spread = Spread.of(row.values)
            axes.barh(at, spread.median, color=_color(row.subject), height=0.8)
            axes.plot([spread.lower_quartile, spread.upper_quartile], [at, at], color=TEXT)
            end = (max(spread.median, spread.upper_quartile), at)
            axes.annotate(
                shown(spread.median), end, (4, 0), textcoords="offset points", va="center"
            )
            ticks.append((at, LABELS.get(row.subject, row.subject)))
            at += 1
    axes.set_yticks([position for position, _ in ticks], [text for _, text in ticks])
    titles = {title for title, _ in groups}
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() in titles else "normal")
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(x=0.15)


def _logarithmic(axes: Any) -> None:
    """A logarithmic axis whose ticks are plain numbers."""
    axes.set_xscale("log")
    ticker = import_module("matplotlib.ticker")
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(_plain))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())


def _plain(value: float, _position: int) -> str:
    return f"{value:,.10g}"


def _rows(results: Results, suite: str, figure: str, subjects: Sequence[str]) -> list[Row]:
    found = (results.find(suite, figure, subject) for subject in subjects)
    return [row for row in found if row is not None]


def _color(subject: str) -> str:
    if subject in COLORS:
        return COLORS[subject]
    return OTHERS[PEERS.index(subject) % len(OTHERS)]


def _panels(figure: Any, count: int) -> list[Any]:
    return list(figure.subplots(1, count, squeeze=False)[0])


def _figure(width: float, height: float) -> Any:
    made = cast("Any", import_module("matplotlib.figure")).Figure
    return made(figsize=(width, height), layout="constrained")


def _svg(figure: Any) -> str:
    text = io.StringIO()
    nameless = {"Date": None, "Creator": None}
    figure.savefig(text, format="svg", transparent=True, metadata=nameless)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _matplotlib() -> Any:
    return import_module("matplotlib")
