"""What a server has done and holds, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trigear.broker.broker import Broker
    from trigear.model import CloseReason, JobEnd


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a server has done since it started, and holds now."""

    connections: int
    functions: int
    jobs: int
    running: int
    schedules: int
    ended: Mapping[JobEnd, int]
    closed: Mapping[CloseReason, int]
    late_answers: int
    ignored: int
    faults: int


def statistics_of(
    broker: Broker,
    *,
    connections: int,
    schedules: int,
    closed: Mapping[CloseReason, int],
    ignored: int,
    faults: int,
) -> Statistics:
    """What the broker has, and what else was counted."""
    functions = [f for t in broker.tenants.values() for f in t.functions.values()]
    ended: Counter[JobEnd] = Counter()
    for partition in broker.partitions.values():
        ended.update(partition.ended)
    return Statistics(
        connections=connections,
        functions=len(functions),
        jobs=sum(function.total for function in functions),
        running=sum(function.running for function in functions),
        schedules=schedules,
        ended=ended,
        closed=closed,
        late_answers=broker.late_answers,
        ignored=ignored,
        faults=faults,
    )
