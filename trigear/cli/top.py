"""`trigear top`: what the functions of a server are doing, how fast, and what waits."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from trigear.cli import answers
from trigear.cli.connecting import Servers, connected, with_server_and_tenant
from trigear.cli.manners import with_manners
from trigear.cli.manual import examples
from trigear.cli.report import Status
from trigear.cli.tables import columns, json_option, show
from trigear.cli.values import DURATION
from trigear.errors import Refused

if TYPE_CHECKING:
    from trigear.cli.tables import Cell
    from trigear.runtime.blocking import BlockingClient

SHORTEST: Final = 0.1
"""Seconds between two looks, at least: looking costs the server something, too."""

COLUMNS: Final = columns(
    *("function", "queued", "running", "workers", "arriving", "completing", "failing", "oldest"),
    "paused",
)


class Counts(NamedTuple):
    """A function at one moment; what a server does not tell is None.

    ``oldest`` is how long the first in line has waited, in seconds, None if nobody does.
    """

    total: int
    running: int
    workers: int
    completed: int | None = None
    failed: int | None = None
    dropped: int | None = None
    oldest: int | None = None
    paused: bool | None = None

    @property
    def queued(self) -> int:
        return max(0, self.total - self.running)

    @property
    def arrived(self) -> int | None:
        """All jobs that ever came."""
        if self.completed is None or self.failed is None or self.dropped is None:
            return None
        return self.total + self.completed + self.failed + self.dropped


class Look(NamedTuple):
    """All functions at one moment of this machine's clock."""

    moment: float
    functions: dict[str, Counts]

    @property
    def counts_ends(self) -> bool:
        """Whether rates can be told from this look and the next."""
        return any(counts.arrived is not None for counts in self.functions.values())


def look(client: BlockingClient) -> Look:
    """What the server says now."""
    try:
        rows = answers.SHOW_FUNCTIONS.rows(client)
    except Refused as error:
        if not answers.is_unknown_command(error):
            raise
        rows = answers.STATUS.rows(client)
    found = {}
    for name, *cells in rows:
        total, running, workers, *ends = [
            cell if isinstance(cell, int) else None for cell in cells[:7]
        ]
        completed, failed, dropped, oldest = ends or [None] * 4
        paused = cells[7] == "yes" if len(cells) > 7 else None
        found[str(name)] = Counts(
            total or 0, running or 0, workers or 0, completed, failed, dropped, oldest, paused
        )
    return Look(time.monotonic(), found)


def rows_of(before: Look | None, after: Look) -> list[list[Cell]]:
    """A row for each function, the busiest first; rates from the time between two looks."""
    rows = []
    for name, now in after.functions.items():
        then = None if before is None else before.functions.get(name, Counts(0, 0, 0, 0, 0, 0))
        seconds = 0.0 if before is None else after.moment - before.moment
        rates: list[Cell] = [None] * 3
        if then is not None and seconds > 0:
            rates = [
                rate(then.arrived, now.arrived, seconds),
                rate(then.completed, now.completed, seconds),
                rate(then.failed, now.failed, seconds),
            ]
        rows.append([name, now.queued, now.running, now.workers, *rates, now.oldest, now.paused])
    return sorted(rows, key=busy)


def rate(then: int | None, now: int | None, seconds: float) -> float | None:
    """How many a second; None where nobody counts, or the server began anew in between."""
    if then is None or now is None or now < then:
        return None
    return round((now - then) / seconds, 1)


def busy(row: list[Cell]) -> tuple[float, str]:
    """Where a row belongs: what has or does most, first."""
    return -sum(cell for cell in row[1:3] + row[4:6] if isinstance(cell, int | float)), str(row[0])


@click.command(
    name="top",
    short_help="Watch the functions of a server.",
    epilog=examples(
        """
        trigear top
        trigear top --interval 500ms --server jobs.example
        trigear top --once
        trigear top --json | jq -r 'select(.workers == 0 and .queued > 0) | .function'
        """
    ),
)
@click.option(
    "--interval",
    type=DURATION,
    default="2s",
    show_default=True,
    metavar="DURATION",
    help="Time between two looks, over which rates are counted.",
)
@click.option("--once", is_flag=True, help="Print one table and end; so it is without a terminal.")
@json_option
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def top_command(*, interval: float, once: bool, as_json: bool, servers: Servers) -> int:
    """Watch the functions of a server: what waits, what runs, and how many jobs come and go.

    Columns: function; queued; running; workers: connections that can do it; arriving, completing
    and failing: jobs a second; oldest: how long the first in line has waited, in JSON in seconds;
    paused: whether it hands out no jobs.
    Servers other than trigear's tell no rates.

    Keys: q ends, s sorts by name or by what is busiest, the space bar looks at once.
    """
    if interval < SHORTEST:
        raise click.UsageError(f"--interval: {SHORTEST * 1000:g}ms is the shortest")
    if sys.stdout.isatty() and not (once or as_json):
        from trigear.cli.top_view import watch

        return watch(servers, interval)
    with connected(servers, "'show functions'") as client:
        before, after = None, look(client)
        if after.counts_ends:
            time.sleep(interval)
            before, after = after, look(client)
    nothing = "no functions: none was ever submitted to or served"
    show(COLUMNS, rows_of(before, after), as_json=as_json, nothing=nothing)
    return Status.DONE
