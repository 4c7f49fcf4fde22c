"""Schedules are asked for by packet where that suffices, else by text command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trigear.protocol import events, schedule_talks
from trigear.protocol.choice import home_of
from trigear.runtime.order import SCHEDULE_IN_DOUBT
from trigear.runtime.talking import hold
from trigear.runtime.values import as_name
from trigear.runtime.waiting import Waiting

if TYPE_CHECKING:
    from trigear.protocol.asking import Request
    from trigear.protocol.schedule_talks import ScheduleOrder
    from trigear.runtime.pool import Pool, Upstream


async def submit_schedule(pool: Pool, order: ScheduleOrder) -> bytes:
    """Have a schedule at the server where it belongs; its handle."""
    fields = order.fields()
    # Without a unique the workload tells schedules apart.
    home = home_of(order.unique or b"-", order.workload, len(pool.upstreams))
    upstream = await pool.pick(home)
    if fields is None:

        async def ask(line: str) -> list[str]:
            answer = await _answered(upstream, upstream.machine.command(as_name(line)))
            assert isinstance(answer, events.Answer)
            return [one.decode("utf-8", "surrogateescape") for one in answer.lines]

        return await hold(ask, schedule_talks.add(order))
    asked = upstream.machine.submit_schedule(
        order.function, order.workload, fields, unique=order.unique
    )
    reply = await _answered(upstream, asked)
    assert isinstance(reply, events.Created)
    return reply.handle


async def _answered(upstream: Upstream, asked: Request) -> events.OfRequest:
    waiting = Waiting(SCHEDULE_IN_DOUBT)
    with upstream.listening(asked, waiting):
        return await waiting.reply()
