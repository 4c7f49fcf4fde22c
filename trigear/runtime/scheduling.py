"""Schedules are asked for by packet where that suffices, else by text command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trigear.protocol import events, schedule_talks
from trigear.runtime.order import SCHEDULE_IN_DOUBT, schedule_home
from trigear.runtime.talking import hold
from trigear.runtime.values import as_name, lines_in
from trigear.runtime.waiting import Waiting

if TYPE_CHECKING:
    from trigear.protocol.asking import Request
    from trigear.protocol.schedule_talks import ScheduleOrder
    from trigear.runtime.pool import Pool, Upstream


async def submit_schedule(pool: Pool, order: ScheduleOrder) -> bytes:
    """Have a schedule at the server where it belongs; its handle."""
    fields = order.fields()
    upstream = await pool.pick(schedule_home(order, len(pool.upstreams)))
    if fields is None:

        async def ask(line: str) -> list[str]:
            return lines_in(await _answered(upstream, upstream.machine.command(as_name(line))))

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
