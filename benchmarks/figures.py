"""The figures: how tables and plots name them, their units, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """How a figure is shown."""

    title: str
    unit: str = "/s"

    @property
    def is_rate(self) -> bool:
        """Whether more is better."""
        return self.unit == "/s"


FIGURES = {
    "create": Figure("create, in turn"),
    "get_status": Figure("get_status, in turn"),
    "append": Figure("append, in turn"),
    "append_one_run": Figure("append, 100 tasks on one run"),
    "append_many_runs": Figure("append, 100 tasks on 100 runs"),
    "lifecycle": Figure("whole lives of runs, 100 tasks"),
    "replay": Figure("replay of an ended run"),
    "replayed": Figure("... events received", ""),
    "delivery_p50": Figure("event to subscriber, same process, p50", "ms"),
    "delivery_p99": Figure("event to subscriber, same process, p99", "ms"),
    "delivery_count": Figure("... events received", ""),
    "delivery_other_p50": Figure("event to subscriber, another process, p50", "ms"),
    "delivery_other_p99": Figure("event to subscriber, another process, p99", "ms"),
    "delivery_other_count": Figure("... events received", ""),
    "noops": Figure("no-op jobs, one worker process"),
    "start_p50": Figure("submit to start, p50", "ms"),
    "start_p99": Figure("submit to start, p99", "ms"),
    "result_p50": Figure("submit to result, p50", "ms"),
    "result_p99": Figure("submit to result, p99", "ms"),
    "cancel_p50": Figure("cancel() to CancelledError, p50", "ms"),
    "idle_commands": Figure("idle subscriptions: commands a second", "commands/s"),
    "idle_cpu": Figure("idle subscriptions: CPU of one core", "%"),
    "idle_kib": Figure("idle subscriptions: memory of each", "KiB"),
    "live_p50": Figure("a subscriber for each live run, p50", "ms"),
    "live_p99": Figure("a subscriber for each live run, p99", "ms"),
    "live_count": Figure("... events received", ""),
    "live_lost": Figure("... events lost", ""),
    "live_cost": Figure("... events a second"),
    "fan_out_p50": Figure("event to one of so many subscribers, p50", "ms"),
    "fan_out_p99": Figure("event to one of so many subscribers, p99", "ms"),
    "fan_out_count": Figure("... events received", ""),
    "fan_out_lost": Figure("... events lost", ""),
    "fan_out_cost": Figure("... events a second"),
    "memory_live": Figure("memory of a live run", "B"),
    "memory_finished": Figure("memory of a finished run", "B"),
    "growth_create": Figure("create, beside so many live runs"),
    "growth_append": Figure("append, beside so many live runs"),
    "growth_submit": Figure("submit, beside so many live runs"),
    "growth_claim": Figure("claim, beside so many live runs"),
    "append_to_length": Figure("append, to a journal of so many events"),
    "build": Figure("building an event, no store"),
    "bytes": Figure("on disk, an event", "B"),
    "streams_opened": Figure("HTTP: streams opened"),
    "streams_kib": Figure("HTTP: memory of a stream", "KiB"),
    "streams_left_kib": Figure("HTTP: memory left of a stream after closing", "KiB"),
    "streams_again_kib": Figure("HTTP: more memory when opened again", "KiB"),
    "streams_idle_cpu": Figure("HTTP: idle streams, CPU of one core", "%"),
    "streams_idle_commands": Figure("HTTP: idle streams, commands a second", "commands/s"),
    "streams_p50": Figure("HTTP: event to reader, p50", "ms"),
    "streams_p99": Figure("HTTP: event to reader, p99", "ms"),
    "polls_p50": Figure("HTTP: a poll of a status meanwhile, p50", "ms"),
    "polls_p99": Figure("HTTP: a poll of a status meanwhile, p99", "ms"),
    "streams_closed": Figure("HTTP: until all are closed", "s"),
    "streams_files": Figure("HTTP: files left open", ""),
    "soak_rate": Figure("soak: runs a second"),
    "soak_mib": Figure("soak: growth of the worker's memory", "MiB"),
    "soak_keys": Figure("soak: keys left", ""),
    "soak_bytes": Figure("soak: bytes left on the server", "B"),
    "hop": Figure("asyncio to a thread and back, in turn"),
    "hop_p50": Figure("asyncio to a thread and back, p50", "ms"),
    "hop_p99": Figure("asyncio to a thread and back, p99", "ms"),
    "write": Figure("write, each committed"),
    "write_together": Figure("write, 100 a commit"),
    "read_one": Figure("read one row"),
    "read_all": Figure("read all rows"),
}


def figure_of(name: str) -> Figure:
    """How a figure is shown; an unknown one by its name."""
    return FIGURES.get(name, Figure(name, ""))


def shown(value: float) -> str:
    """A number with three or four digits that mean something."""
    if value == round(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"
