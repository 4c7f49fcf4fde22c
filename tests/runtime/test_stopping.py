"""The end of a server is no loss of a worker: no job fails by it, and no attempt is counted."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.runtime.books import Book
from tests.runtime.calling import Caller, beside, calling
from trigear.broker.timers import TURN
from trigear.engine.config import EngineConfig
from trigear.runtime.listeners import bind
from trigear.runtime.server import open_server, serve

if TYPE_CHECKING:
    from pathlib import Path

    from trigear.runtime.server import Server

ONCE = EngineConfig(attempts=1)
"""The first loss of a job is its end."""


async def foreground_and_background(client: Caller, worker: Caller) -> None:
    """The worker holds a job of each kind, whose client waits for it."""
    await worker.can_do(b"f")
    for name in ("SUBMIT_JOB", "SUBMIT_JOB_BG"):
        handle = await client.submit(name, b"f", b"", b"work")
        assert await worker.grab() == handle


@pytest.mark.parametrize("way", ["stop", "grace", "cancel"])
async def test_no_job_is_lost_by_the_end_of_the_server(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    caplog.set_level(logging.DEBUG)
    book = Book()
    config = beside(tmp_path, ONCE, grace=5.0)
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        scope = trio.CancelScope()

        async def run(*, task_status: trio.TaskStatus[Server]) -> None:
            with scope:
                await serve(config, bind(config), store=book, task_status=task_status)

        server: Server = await nursery.start(run)
        client = await stack.enter_async_context(calling(server))
        worker = await stack.enter_async_context(calling(server))
        await foreground_and_background(client, worker)
        if way == "stop":
            server.stop()
        elif way == "cancel":
            scope.cancel()
        else:
            server.drain()
            await wait_all_tasks_blocked()
            mock_clock.autojump_threshold = 0.01
        assert await client.to_the_end() == b""
        assert await worker.to_the_end() == b""
        await server.stopped.wait()
    assert server.statistics().running == 2
    assert not any(server.statistics().ended.values())
    assert [line.losses for line in book.kept.values()] == [0]
    told = " ".join(caplog.messages)
    assert not any(word in told for word in ("attempts", "lost", "go to others"))


async def test_what_the_block_raises_comes_out_bare_whatever_the_server_is_doing(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    book = Book()
    error = ValueError("mine")

    async def fail(stack: AsyncExitStack) -> None:
        async with open_server(beside(tmp_path, ONCE), store=book) as server:
            client = await stack.enter_async_context(calling(server))
            worker = await stack.enter_async_context(calling(server))
            await foreground_and_background(client, worker)
            book.called = trio.Event()
            book.shut()
            await client.tell("SUBMIT_JOB_BG", b"f", b"", b"on its way")
            await book.begun()
            mock_clock.autojump_threshold = 0.0
            raise error

    async with AsyncExitStack() as stack:
        with pytest.raises(ValueError, match="mine") as caught:
            await fail(stack)
        assert caught.value is error
    assert [line.losses for line in book.kept.values()] == [0]
    assert caplog.messages == ["the store does not answer and is left open: a book"]
    book.reopen()


async def test_many_things_due_at_one_moment_leave_others_their_turn(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    """A task that only watches sees them happen step by step: between two looks of it the timer
    has at most two turns, as Trio runs tasks in any order."""
    many = 8 * TURN
    async with open_server(beside(tmp_path)) as server, calling(server) as worker:
        await worker.tell("CAN_DO_TIMEOUT", b"f", b"5000")
        for _ in range(many):
            await worker.submit("SUBMIT_JOB_BG", b"f", b"", b"w")
            await worker.grab()
        mock_clock.jump(5.0)
        seen = [many]
        while seen[-1]:
            await trio.lowlevel.checkpoint()
            seen.append(server.statistics().running)
        assert max(before - after for before, after in pairwise(seen)) <= 2 * TURN
