from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from benchmarks.ticker import summarise, tick


async def test_an_undisturbed_ticker_is_never_late(autojump_clock: MockClock) -> None:
    late: list[float] = []
    with trio.move_on_after(1.001):
        await tick(0.005, late)
    assert len(late) == 200
    assert max(late) == pytest.approx(0, abs=1e-9)


async def test_a_stall_counts_once_for_every_tick_that_was_missed(mock_clock: MockClock) -> None:
    late: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick, 0.005, late)
        await wait_all_tasks_blocked()
        mock_clock.jump(0.0501)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert late == pytest.approx([0.0451 - 0.005 * n for n in range(10)])


def test_lateness_is_reported_in_milliseconds() -> None:
    found = summarise([n / 1000 for n in range(1, 101)])
    assert (found.ticks, found.p50, found.p95, found.p99, found.most) == (100, 50, 95, 99, 100)
