"""What `trigear bench` has measured: in numbers, for people and for programs."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from trigear.cli.bench_load import Window

MILLION: Final = 1_000_000

ENOUGH: Final = 5_000
"""Jobs below which what a process grows by says nothing of a single job."""

BUSY: Final = 0.85
"""Share of its time above which the generator is what limits the rate."""

TITLES: Final = {"oneatatime": "one at a time"}


@dataclass
class Round:
    """One round of a scenario, of one or several windows; times in seconds."""

    jobs: int = 0
    seconds: float = 0.0
    own_cpu: float = 0.0
    server_cpu: float | None = None
    latencies: list[tuple[float, int]] = field(default_factory=list)

    def add(self, window: Window) -> None:
        """Count a window."""
        self.jobs += window.jobs
        self.seconds += window.seconds
        self.own_cpu += window.own_cpu
        self.latencies += window.latencies

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return self.jobs / self.seconds

    @property
    def share(self) -> float:
        """How much of the time the generator was busy."""
        return self.own_cpu / self.seconds

    @property
    def cost(self) -> float | None:
        """The server's processor time for a job."""
        return None if self.server_cpu is None or not self.jobs else self.server_cpu / self.jobs

    def percentile(self, share: float) -> float:
        """The time within which at least this share of the jobs were answered."""
        wanted = math.ceil(share * sum(count for _, count in self.latencies))
        for seconds, count in sorted(self.latencies):
            wanted -= count
            if wanted <= 0:
                return seconds
        return 0.0


@dataclass(frozen=True, slots=True)
class Sizing:
    """What the server grew by while so many jobs were queued, in bytes; None: it has no store."""

    jobs: int
    memory: int
    disk: int | None

    def per_million(self, grown: int | None) -> int | None:
        """The same for a million jobs; None where that cannot be told."""
        if grown is None or grown <= 0 or self.jobs < ENOUGH:
            return None
        return grown * MILLION // self.jobs


def middle(rounds: Sequence[Round], of: Callable[[Round], float | None]) -> float | None:
    """The median of what is known of the rounds."""
    values = [value for value in map(of, rounds) if value is not None]
    return statistics.median(values) if values else None


def figures(rounds: Sequence[Round]) -> dict[str, Any]:
    """What is said of a scenario."""
    rates = [one.rate for one in rounds]
    cost = middle(rounds, lambda one: one.cost)
    return {
        "jobs_per_second": {
            "median": round(statistics.median(rates), 1),
            "low": round(min(rates), 1),
            "high": round(max(rates), 1),
        },
        "p50_ms": round(1000 * (middle(rounds, lambda one: one.percentile(0.50)) or 0.0), 3),
        "p99_ms": round(1000 * (middle(rounds, lambda one: one.percentile(0.99)) or 0.0), 3),
        "server_cpu_us_per_job": None if cost is None else round(1e6 * cost, 2),
        "generator_share": round(middle(rounds, lambda one: one.share) or 0.0, 3),
        "jobs": sum(one.jobs for one in rounds),
    }


def document(
    facts: Mapping[str, Any], rounds: Mapping[str, Sequence[Round]], sizing: Sizing | None
) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        **facts,
        "scenarios": {name: figures(those) for name, those in rounds.items()},
        "memory_bytes_per_million": sizing and sizing.per_million(sizing.memory),
        "disk_bytes_per_million": sizing and sizing.per_million(sizing.disk),
    }


def lines(
    facts: Mapping[str, Any], rounds: Mapping[str, Sequence[Round]], sizing: Sizing | None
) -> Iterator[str]:
    """Everything, for people."""
    process = f"process {facts['pid']} of this machine" if facts["pid"] else "process not known"
    version = f"version {facts['version']}, " if facts["version"] else ""
    yield f"server at {facts['server']}, {version}{process}"
    yield (
        f"{facts['rounds']} x {facts['seconds']:g} s, workloads of {facts['size']:,} bytes,"
        f" {facts['connections']} connections"
    )
    yield ""
    told = {name: figures(those) for name, those in rounds.items()}
    heads = ("", "jobs/s", "lowest", "highest", "p50 ms", "p99 ms", "server µs/job")
    rows: list[tuple[str, ...]] = [heads]
    rows += [(TITLES.get(name, name), *cells(found)) for name, found in told.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *rest = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join([first.lstrip().ljust(widths[0]), *rest]).rstrip()
    yield ""
    if sizing is not None:
        yield from sizing_lines(sizing, facts["size"])
    elif facts["pid"] is None:
        yield "processor time and memory: only for a server on this machine that we may look into"
    for name, found in told.items():
        if found["generator_share"] > BUSY:
            yield (
                f"note: in {TITLES.get(name, name)} this program was busy"
                f" {found['generator_share']:.0%} of the time: the server can do more"
            )


def cells(found: Mapping[str, Any]) -> Iterator[str]:
    rate = found["jobs_per_second"]
    for key in ("median", "low", "high"):
        yield f"{rate[key]:,.0f}"
    for key in ("p50_ms", "p99_ms"):
        yield f"{found[key]:.2f}"
    cost = found["server_cpu_us_per_job"]
    yield "-" if cost is None else f"{cost:.1f}"


def sizing_lines(sizing: Sizing, size: int) -> Iterator[str]:
    """How much a million jobs need."""
    if sizing.jobs < ENOUGH:
        yield f"memory and disk: {sizing.jobs:,} jobs are too few to tell what a million need"
        return
    memory, disk = sizing.per_million(sizing.memory), sizing.per_million(sizing.disk)
    room = "no growth seen, there was room from before"
    needs = f"{mebibytes(memory)} of memory" if memory else f"memory: {room}"
    if sizing.disk is None:
        stored = "no disk: they are not stored"
    else:
        stored = f"{mebibytes(disk)} of disk" if disk else f"disk: {room}"
    yield f"a million queued jobs with workloads of {size:,} bytes: {needs}; {stored}"


def mebibytes(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"
