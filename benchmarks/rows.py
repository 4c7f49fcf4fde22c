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
BASIC = ("drain", "foreground", "background", "oneatatime")

# Seconds a measurement takes beside its load: starting and stopping the server, connecting.
AROUND = 1.0


@dataclass(frozen=True, slots=True)
class Case:
    """One server under one load, `rounds` times. `cost` is about how many seconds one takes."""

    name: str
    peer: str
    load: Load
    rounds: int
    cost: float
    extra: tuple[str, ...] = ()


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
    peers = {"trigear": ROUNDS, "gearmand": ROUNDS, "gearmand-t1": 9, "trigear-tls": 9}
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
    peers = {"trigear": 9, "gearmand": 9, "gearmand-t1": 5}
    for name in BASIC:
        cases = _cases(Load(name, seconds=seconds), peers)
        title = f"{titles[name]}; server and generator on a processor of their own each"
        yield Row(f"{name}-pinned", title, cases, pinned=True)


def _quick(case: Case) -> Case:
    load = replace(
        case.load,
        seconds=0.3,
        warmup=0.1,
        backlog=min(case.load.backlog, 2000),
        keep=min(case.load.keep, 20_000),
        idle=min(case.load.idle, case.load.idle // 20),
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
    for row in _basic(seconds):
        cases = [
            replace(case, rounds=max(1, math.ceil(case.rounds * rounds / ROUNDS)))
            for case in row.cases
        ]
        found[row.name] = replace(row, cases=tuple(map(_quick, cases) if quick else cases))
    return found
