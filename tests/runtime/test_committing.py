"""Commits that take long or fail: who is read meanwhile, who is told, and what is logged."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.engine.world import packet
from tests.runtime.books import Book
from tests.runtime.calling import Caller, beside, calling
from trigear.engine.config import EngineConfig
from trigear.errors import StoreUnavailable, StoreUnknown
from trigear.runtime.committer import RETRY_LIMIT, RETRY_SECONDS
from trigear.runtime.server import open_server

if TYPE_CHECKING:
    from pathlib import Path

MARK = 1 << 18

PLENTY = 32 * MARK
"""More bytes than fit into all buffers between a test and a server that has stopped reading."""

SMALL = EngineConfig(soft_mark=MARK, hard_mark=2 * MARK, max_packet=2 * MARK)

ECHO = packet("ECHO_REQ", b"x" * 1000)

SUBMISSION = packet("SUBMIT_JOB_BG", b"f", b"", b"w" * 30_000)


async def talk_on(peer: Caller, said: bytes) -> tuple[int, bytes]:
    """Say the same again and again until nobody listens any more.

    Returns:
        How often, and the rest of the last time.
    """
    total = 0
    while total < PLENTY:
        try:
            total += os.write(peer.stream.socket.fileno(), said[total % len(said) :])
        except BlockingIOError:
            await wait_all_tasks_blocked()
            try:
                total += os.write(peer.stream.socket.fileno(), said[total % len(said) :])
            except BlockingIOError:
                break
    times = -(-total // len(said))
    return times, said[total - (times - 1) * len(said) :]


@pytest.mark.parametrize("fails", [False, True], ids=["written", "not written"])
@pytest.mark.parametrize("said", [ECHO, SUBMISSION], ids=["echoes", "submissions"])
async def test_who_waits_for_a_commit_is_not_read_for_ever_and_gets_everything_at_last(
    tmp_path: Path, said: bytes, fails: bool
) -> None:
    """What it says has an answer that must wait, and so piles up in the server's memory."""
    book = Book()
    book.shut()
    async with open_server(beside(tmp_path, SMALL), store=book) as server, calling(server) as peer:
        await peer.say(SUBMISSION)
        await book.begun()
        times, rest = await talk_on(peer, said)
        assert MARK < times * len(said) < PLENTY
        book.trouble = StoreUnavailable("the disk is full") if fails else None
        book.reopen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.say, rest)
            created = "ERROR" if fails else "JOB_CREATED"
            assert (await peer.hears())[0] == created
            for number in range(times):
                if number == 8:
                    book.trouble = None
                answer, *_ = await peer.hears()
                assert answer in (("ECHO_RES",) if said is ECHO else (created, "JOB_CREATED"))
        await peer.settled()
        assert server.statistics().closed == {}


async def test_others_notice_nothing_of_who_is_not_read(tmp_path: Path) -> None:
    book = Book()
    book.shut()
    async with (
        open_server(beside(tmp_path, SMALL), store=book) as server,
        calling(server) as peer,
        calling(server) as other,
    ):
        handle = await peer.submit()
        await peer.say(SUBMISSION)
        await book.begun()
        _, rest = await talk_on(peer, ECHO)
        await other.can_do(b"f")
        assert await other.grab() == handle, "its jobs are not passed over: it does read"
        await other.tell("WORK_COMPLETE", handle, b"result")
        await other.settled()
        book.reopen()
        assert (await peer.hears())[0] == "JOB_CREATED"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.say, rest)
            while (answer := await peer.hears())[0] == "ECHO_RES":
                pass
            assert answer == ("WORK_COMPLETE", handle, b"result")
            nursery.start_soon(peer.tell, "ECHO_REQ", b"last")
            while await peer.hears() != ("ECHO_RES", b"last"):
                pass


async def test_who_is_not_read_and_leaves_is_gone_before_the_commit_is_over(
    tmp_path: Path,
) -> None:
    book = Book()
    book.shut()
    async with open_server(beside(tmp_path, SMALL), store=book) as server, calling(server) as other:
        async with calling(server) as peer:
            await peer.say(SUBMISSION)
            await book.begun()
            await talk_on(peer, ECHO)
        await wait_all_tasks_blocked()
        assert server.statistics().connections == 1
        book.reopen()
        await other.submit("SUBMIT_JOB_BG", b"f", b"", b"w")
        assert book.workloads == [b"w" * 30_000, b"w"]


# Trouble


async def pass_time(clock: MockClock, seconds: float) -> None:
    """In steps in which the committer can do what it wants to."""
    for _ in range(round(seconds / RETRY_SECONDS)):
        clock.jump(RETRY_SECONDS)
        await wait_all_tasks_blocked(0.0002)


async def leave_an_erasure(peer: Caller, book: Book, trouble: Exception) -> None:
    """Complete a stored job, so that its record is to be erased, while the store is in trouble."""
    await peer.can_do(b"f")
    handle = await peer.submit("SUBMIT_JOB_BG", b"f", b"", b"w")
    assert await peer.grab() == handle
    book.called = trio.Event()
    book.trouble = trouble
    await peer.tell("WORK_COMPLETE", handle, b"")
    await book.begun()


async def test_a_store_that_is_away_is_asked_ever_more_rarely(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "trigear.store")
    book = Book()
    async with open_server(beside(tmp_path), store=book) as server, calling(server) as peer:
        await leave_an_erasure(peer, book, StoreUnavailable("the disk is full"))
        start = book.commits
        await pass_time(mock_clock, 60)
        # 0.1 + 0.2 + … + 3.2 s are the first six tries.
        assert 3 <= book.commits - start <= 6 + 60 / RETRY_LIMIT
        assert caplog.messages == ["the store does not take what is to be kept: the disk is full"]
        book.trouble = None
        while book.kept:
            await pass_time(mock_clock, RETRY_SECONDS)
        await pass_time(mock_clock, RETRY_SECONDS)
        assert caplog.messages[1:] == ["the store works again"]


async def test_after_it_worked_a_store_in_trouble_is_asked_again_soon(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    book = Book()
    async with open_server(beside(tmp_path), store=book) as server, calling(server) as peer:
        await leave_an_erasure(peer, book, StoreUnavailable("the disk is full"))
        await pass_time(mock_clock, 60)
        book.trouble = None
        while book.kept:
            await pass_time(mock_clock, RETRY_SECONDS)
        await leave_an_erasure(peer, book, StoreUnavailable("the disk is full again"))
        before = book.commits
        await pass_time(mock_clock, RETRY_LIMIT)
        assert book.commits - before > 2, "and not after the longest pause"
        mock_clock.autojump_threshold = 0.01


@pytest.mark.parametrize("doubt", [StoreUnavailable("not yet"), OSError("no route")], ids=str)
async def test_a_store_that_cannot_tell_is_asked_ever_more_rarely(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture, doubt: Exception
) -> None:
    caplog.set_level(logging.INFO, "trigear.store")
    book = Book()
    book.doubt = doubt
    async with open_server(beside(tmp_path), store=book) as server, calling(server) as peer:
        await leave_an_erasure(peer, book, StoreUnknown("the connection broke"))
        await pass_time(mock_clock, 60)
        assert 3 <= book.questions <= 6 + 60 / RETRY_LIMIT
        assert caplog.messages == [
            "the store does not take what is to be kept: the connection broke",
            f"whether a batch was written is still unknown: {doubt}",
        ]
        book.doubt = OSError("something else")
        await pass_time(mock_clock, RETRY_LIMIT)
        assert len(caplog.messages) == 3
        book.doubt = book.trouble = None
        while book.kept:
            await pass_time(mock_clock, RETRY_SECONDS)
        mock_clock.autojump_threshold = 0.01


async def test_a_store_that_fails_as_it_should_not_does_not_end_the_server(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    book = Book()
    book.trouble = book.doubt = OSError("the disk is gone")
    async with open_server(beside(tmp_path), store=book) as server, calling(server) as peer:
        await peer.say(SUBMISSION)
        await book.begun()
        await pass_time(mock_clock, 10)
        async with calling(server) as other:
            await other.can_do(b"f")
            handle = await other.submit()
            assert await other.grab() == handle
        book.trouble = book.doubt = None
        mock_clock.autojump_threshold = 0.01
        assert (await peer.hears())[0] == "ERROR"
        assert (await peer.ask("SUBMIT_JOB_BG", b"f", b"", b"w"))[0] == "JOB_CREATED"
