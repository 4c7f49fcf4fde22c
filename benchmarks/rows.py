"""What the suite measures: rows, and in each the cases that are measured in turn, round by round.

Fifteen rounds of three seconds are the rule for the four basic scenarios. What takes longer, or is
there for orientation only, has fewer, never less than five but where a single one takes half a
minute: from five rounds on the interval of a median can be given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.generator import Load

if TYPE_CHECKING:
    from collections.abc import Iterable

ROUNDS = 15
SECONDS = 3.0
MILLION = 1_000_000
BASIC = ("drain", "foreground", "background", "oneatatime")

# Seconds a measurement takes beside its load: starting and stopping the server, connecting.
AROUND = 0.7


@dataclass(frozen=True, slots=True)
class Case:
    """One server under one load, `rounds` times. `cost` is about how many seconds one takes.

    With `slow_syncs` the server's disk is made to look like a slower one, with `pauses` one more
    connection notes how long it has to wait.
    """

    name: str
    peer: str
    load: Load
    rounds: int
    cost: float
    extra: tuple[str, ...] = ()
    slow_syncs: bool = False
    pauses: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Cases that are measured in turn, so that one can be divided by the other round by round.

    With `pinned` the server has one processor, the generator another; else both run where the
    kernel puts them.
    """

    name: str
    title: str
    cases: tuple[Case, ...]
    pinned: bool = False
    compared: tuple[tuple[str, str], ...] = ()

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Cases to divide by each other: the first by each other one unless `compared` says else,
        but what TLS costs is told by dividing the one with it by the one without.
        """
        first, *others = (case.name for case in self.cases)
        return self.compared or tuple(
            (other, first) if other == f"{first}-tls" else (first, other) for other in others
        )

    def case(self, name: str) -> Case:
        """The case of this name.

        Raises:
            KeyError: there is none.
        """
        return {case.name: case for case in self.cases}[name]


def _cases(load: Load, rounds: dict[str, int], cost: float = 0.0) -> tuple[Case, ...]:
    return tuple(
        Case(peer, peer, load, number, load.seconds + load.warmup + AROUND + cost)
        for peer, number in rounds.items()
    )


def _basic(seconds: float) -> Iterable[Row]:
    peers = {"trigear": ROUNDS, "gearmand": ROUNDS, "gearmand-t1": 5, "trigear-tls": ROUNDS}
    titles = {
        "drain": "4 workers empty backlogs of 20,000 jobs",
        "foreground": "4 clients with 16 jobs outstanding each, 4 workers",
        "background": "4 clients with 64 submissions outstanding each, no worker",
        "oneatatime": "1 client, 1 worker, one job after the other",
    }
    for name in BASIC:
        # Perl's server is an order of magnitude away: few rounds tell that.
        perl = {} if name == "oneatatime" else {"perl": 5}
        yield Row(name, titles[name], _cases(Load(name, seconds=seconds), {**peers, **perl}))
    peers = {"trigear": ROUNDS, "gearmand": ROUNDS, "gearmand-t1": 5}
    for name in BASIC:
        cases = _cases(Load(name, seconds=seconds), peers)
        title = f"{titles[name]}; server and generator on a processor of their own each"
        yield Row(f"{name}-pinned", title, cases, pinned=True)


def _durable(seconds: float) -> Iterable[Row]:
    load = Load("background", seconds=seconds, clients=16, outstanding=64)
    # gearmand keeps nothing in PostgreSQL that has no unique.
    unique = replace(load, unique=20)
    for name, place, cases in (
        ("durable", "SQLite", _cases(load, dict.fromkeys(_beside("sqlite"), ROUNDS), 1.5)),
        (
            "durable-postgresql",
            "PostgreSQL, with uniques",
            _cases(unique, dict.fromkeys(_beside("postgresql"), 7), 3.5),
        ),
    ):
        title = f"16 clients with 64 submissions outstanding each, queues in {place}"
        yield Row(name, title, cases)
        # What committing many at once gains hangs on what a sync costs, and disks differ widely.
        slow = tuple(
            replace(case, slow_syncs=True, rounds=7, cost=case.cost + seconds) for case in cases
        )
        yield Row(f"{name}-slow", f"{title}; each sync held up by half a millisecond", slow)


def _beside(store: str) -> tuple[str, str]:
    return f"trigear-{store}", f"gearmand-{store}"


def _million(seconds: float) -> Row:
    many = Load("drain", seconds=seconds, keep=MILLION, backlog=10_000)
    few = replace(many, keep=1_000)
    emptied = replace(many, empty=True)
    # gearmand is not asked to hand out all of it: that would take minutes.
    started = replace(many, seconds=seconds / 3)
    around = seconds + AROUND
    return Row(
        "million",
        "4 workers, one million jobs queued; and a thousand",
        (
            Case("trigear", "trigear", emptied, 3, 40.0, pauses=True),
            Case("trigear, 1,000 queued", "trigear", few, 3, around),
            Case("gearmand", "gearmand", started, 2, 20.0, pauses=True),
            Case("gearmand, 1,000 queued", "gearmand", few, 2, around),
        ),
        compared=(
            ("trigear", "trigear, 1,000 queued"),
            ("gearmand", "gearmand, 1,000 queued"),
        ),
    )


def _idle(seconds: float, number: int, rounds: dict[str, int]) -> Row:
    load = Load("foreground", seconds=seconds, workers=20, idle=number)
    # Seconds per thousand connections.
    costs = {"trigear": 1.2, "trigear-tls": 4.0, "gearmand": 0.2}
    title = f"4 clients with 16 jobs outstanding each, 20 workers, and {number:,} that are idle"
    cases = (
        case
        for peer in rounds
        for case in _cases(load, {peer: rounds[peer]}, costs[peer] * number / 1000)
    )
    return Row(f"idle-{number}", title, tuple(cases))


def _others(seconds: float) -> Iterable[Row]:
    peers = {"trigear": 5, "gearmand": 5}
    yield Row(
        "functions",
        "4 clients with 16 jobs of 1,000 functions outstanding each, 4 workers",
        _cases(Load("foreground", seconds=seconds, functions=1000), peers),
    )
    yield Row(
        "mebibyte",
        "4 clients with 2 jobs of 1 MiB outstanding each, 4 workers; results have 1 MiB, too",
        _cases(
            Load("foreground", seconds=seconds, size=2**20, outstanding=2),
            dict.fromkeys(peers, ROUNDS),
        ),
    )
    yield Row(
        "flood",
        "200 clients with 256 requests outstanding each, echoes and submissions; latencies are "
        "those of one more connection that asks 100 times a second",
        _cases(Load("flood", seconds=seconds), peers, 1.0),
    )


def _every(seconds: float) -> Iterable[Row]:
    yield from _basic(seconds)
    yield from _durable(seconds)
    yield _million(seconds)
    yield _idle(seconds, 2_000, {"trigear": 3, "trigear-tls": 3, "gearmand": 3})
    yield _idle(seconds, 10_000, {"trigear": 2, "trigear-tls": 2, "gearmand": 2})
    yield from _others(seconds)


def _quick(case: Case) -> Case:
    load = replace(
        case.load,
        seconds=0.3,
        warmup=0.1,
        backlog=min(case.load.backlog, 1000),
        keep=min(case.load.keep, 20_000),
        idle=case.load.idle // 20,
    )
    return replace(case, load=load, rounds=min(case.rounds, 2), cost=1.0)


def rows(rounds: int = ROUNDS, seconds: float = SECONDS, *, quick: bool = False) -> dict[str, Row]:
    """Every row by its name, in the order in which they are measured.

    Args:
        rounds: how many the basic rows have of trigear and gearmand; the others' change with it.
        seconds: the length of a measured window.
        quick: two rounds of a moment each: does everything work here? The figures mean nothing.
    """
    found = {}
    for row in _every(seconds):
        cases = [
            replace(case, rounds=max(1, math.ceil(case.rounds * rounds / ROUNDS)))
            for case in row.cases
        ]
        found[row.name] = replace(row, cases=tuple(map(_quick, cases) if quick else cases))
    return found
