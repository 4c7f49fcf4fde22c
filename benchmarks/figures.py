"""What the rows of the suite show beside processor time, rate and latency, computed from a round.

Each is None for a round that does not have it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Figures = Mapping[str, Any]

LEVELS = ("all of them are queued", "half of them are", "the last of them are")
"""Where the drain of a long queue is measured, in the generator's order."""

ENOUGH = 10_000
"""Jobs that have to be queued for the memory of one to be told from the rest."""


def level_rate(level: int) -> Callable[[Figures], float | None]:
    """Jobs per second at a level of the queue."""

    def figure(one: Figures) -> float | None:
        if "levels" not in one["generator"]:
            return None
        found = one["generator"]["levels"][level]
        return float(found["jobs"] / found["seconds"])

    return figure


def level_cpu(level: int) -> Callable[[Figures], float | None]:
    """The server's processor time per job at a level of the queue, in microseconds."""

    def figure(one: Figures) -> float | None:
        if "levels" not in one["generator"]:
            return None
        levels, windows = one["generator"]["levels"], one["window_cpu_seconds"]
        each = len(windows) // len(levels)
        spent = sum(windows[level * each : (level + 1) * each])
        return float(spent * 1e6 / levels[level]["jobs"])

    return figure


def memory_per_queued_job(one: Figures) -> float | None:
    """Bytes by which the server grew for each job of a queue that stays."""
    if one["generator"].get("keep", 0) < ENOUGH:
        return None
    edges = one["memory_at"]
    return float((edges["filled"][0] - edges["fill"][0]) / one["generator"]["keep"])


def memory_per_idle_worker(one: Figures) -> float | None:
    """KiB by which the server grew for each connected worker that sleeps."""
    if not one["generator"].get("idle"):
        return None
    edges = one["memory_at"]
    return float((edges["idled"][0] - edges["idle"][0]) / one["generator"]["idle"] / 1024)


def pause(*phases: str) -> Callable[[Figures], float | None]:
    """The longest that an echo took while the queue was filled and emptied, in milliseconds."""

    def figure(one: Figures) -> float | None:
        waits = one["pauses_us"]
        if not waits:
            return None
        return float(max(waits[phase]["max"] for phase in phases or waits) / 1000)

    return figure
