"""The committer with a store in a thread: one that is slow, fails, hangs, or is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.runtime.books import Book
from tests.runtime.calling import Caller, beside, calling
from trigear.engine.gate import STALL_SECONDS
from trigear.errors import (
    StoreFenced,
    StoreUnavailable,
    StoreUnknown,
    StoreUnusable,
    TrigearInternalError,
)
from trigear.runtime.committer import RETRY_LIMIT, RETRY_SECONDS
from trigear.runtime.server import open_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REFUSED = ("ERROR", b"QUEUE_ERROR", b"The job could not be stored")


async def submit(peer: Caller, workload: bytes) -> None:
    await peer.tell("SUBMIT_JOB_BG", b"f", b"", workload)


async def until(condition: Callable[[], bool], clock: MockClock | None = None) -> None:
    """Wait until the store's thread has come so far; with a clock, let time pass meanwhile."""
    while not condition():
        await wait_all_tasks_blocked(0.001)
        if clock is not None:
            clock.jump(RETRY_SECONDS / 2)


async def until_asked(book: Book, questions: int, clock: MockClock) -> None:
    """Let time pass until the store was asked so often what became of a batch."""
    await until(lambda: book.questions >= questions, clock)


async def test_what_is_written_is_answered(tmp_path: Path) -> None:
    book = Book()
    async with open_server(beside(tmp_path), store=book) as server, calling(server) as peer:
        handle = await peer.submit("SUBMIT_JOB_BG", b"f", b"", b"1")
        assert book.workloads == [b"1"]
        await peer.submit("SUBMIT_JOB", b"f", b"", b"foreground")
        assert book.workloads == [b"1"], "a foreground job is not recorded"
        await peer.can_do(b"f")
        assert await peer.grab() == handle
        await peer.tell("WORK_COMPLETE", handle, b"")
        await peer.submit("SUBMIT_JOB_BG", b"f", b"", b"2")
        assert book.workloads == [b"2"], "what is done is erased"


async def test_what_gathers_during_a_commit_makes_the_next(tmp_path: Path) -> None:
    book = Book()
    book.shut()
    async with open_server(beside(tmp_path), store=book) as server, calling(server) as peer:
        await submit(peer, b"0")
        await book.begun()
        for number in range(1, 50):
            await submit(peer, b"%d" % number)
        await wait_all_tasks_blocked()
        assert server.statistics().jobs == 0, "nothing can be grabbed yet"
        book.reopen()
        for _ in range(50):
            assert (await peer.hears())[0] == "JOB_CREATED"
        assert book.commits == 2
        assert [len(batch.lines) for batch in book.batches] == [1, 49]
        assert [batch.number for batch in book.batches] == [1, 2]


async def test_others_are_served_during_a_commit(tmp_path: Path) -> None:
    book = Book()
    book.shut()
    async with (
        open_server(beside(tmp_path), store=book) as server,
        calling(server) as peer,
        calling(server) as other,
    ):
        await submit(peer, b"w")
        await book.begun()
        await other.can_do(b"f")
        handle = await other.submit()
        assert await other.grab() == handle
        book.reopen()
        assert (await peer.hears())[0] == "JOB_CREATED"


async def test_a_store_that_fails_is_told_of_once_and_asked_again(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    book = Book()
    book.trouble = StoreUnavailable("the disk is full")
    async with open_server(beside(tmp_path), store=book) as server, calling(server) as peer:
        for number in range(4):
            await submit(peer, b"%d" % number)
            assert await peer.hears() == REFUSED
            await wait_all_tasks_blocked()
            mock_clock.jump(RETRY_LIMIT)
        assert caplog.messages == ["the store does not take what is to be kept: the disk is full"]
        book.trouble = None
        handle = await peer.submit("SUBMIT_JOB_BG", b"f", b"", b"w")
        assert caplog.messages[1:] == ["the store works again"]
        assert book.workloads == [b"w"]
        await peer.can_do(b"f")
        assert await peer.grab() == handle


async def test_what_could_not_be_erased_is_erased_later_and_the_store_is_not_hammered(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    book = Book()
    async with open_server(beside(tmp_path), store=book) as server, calling(server) as peer:
        await peer.can_do(b"f")
        handle = await peer.submit("SUBMIT_JOB_BG", b"f", b"", b"w")
        assert await peer.grab() == handle
        book.trouble = StoreUnavailable("the disk is full")
        await peer.tell("WORK_COMPLETE", handle, b"")
        await until(lambda: book.commits == 2)
        start = trio.current_time()
        for _ in range(20):
            await wait_all_tasks_blocked(0.001)
        assert book.commits == 2, "no time has passed"
        await until(lambda: book.commits == 5, mock_clock)
        assert trio.current_time() - start >= RETRY_SECONDS * (1 + 2 + 4)
        assert book.workloads == [b"w"]
        book.trouble = None
        await until(lambda: book.workloads == [], mock_clock)


@pytest.mark.parametrize(
    "trouble",
    [
        StoreUnknown("the connection broke"),
        StoreUnusable("nothing that a commit may raise"),
        ZeroDivisionError("a bug of the store"),
    ],
)
@pytest.mark.parametrize("written", [True, False])
async def test_after_an_unknown_outcome_the_store_is_asked_before_anybody_is_answered(
    tmp_path: Path, mock_clock: MockClock, trouble: Exception, written: bool
) -> None:
    book = Book()
    book.trouble = trouble
    book.doubt = StoreUnavailable("not yet")
    async with open_server(beside(tmp_path), store=book) as server, calling(server) as peer:
        await submit(peer, b"w")
        await until_asked(book, 2, mock_clock)
        await peer.tell("GET_STATUS", b"H:x:1")
        await wait_all_tasks_blocked()
        assert server.statistics().jobs == 0
        if written:
            book.write_after_all()
        book.doubt = book.trouble = None
        await until_asked(book, 3, mock_clock)
        first = await peer.hears()
        assert first == REFUSED if not written else first[0] == "JOB_CREATED"
        assert (await peer.hears())[0] == "STATUS_RES"
        assert server.statistics().jobs == int(written)


async def test_while_the_outcome_is_unknown_new_background_jobs_are_refused(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    book = Book()
    book.trouble = StoreUnknown("the connection broke")
    book.doubt = StoreUnavailable("not yet")
    async with (
        open_server(beside(tmp_path), store=book) as server,
        calling(server) as peer,
        calling(server) as other,
    ):
        await submit(peer, b"w")
        await until_asked(book, 1, mock_clock)
        await submit(other, b"w")
        assert await other.hears() == ("ERROR", b"QUEUE_ERROR", b"The store does not answer")
        await other.submit()
        mock_clock.autojump_threshold = 0.01


@pytest.mark.parametrize("when", ["commit", "question"])
async def test_a_server_whose_store_has_another_owner_stops_and_answers_nobody(
    tmp_path: Path, mock_clock: MockClock, when: str
) -> None:
    book = Book()
    fenced = StoreFenced("another server has it")
    book.trouble = fenced if when == "commit" else StoreUnknown("the connection broke")
    book.doubt = fenced

    async def use() -> None:
        async with open_server(beside(tmp_path), store=book) as server, calling(server) as peer:
            await submit(peer, b"w")
            if when == "question":
                await until_asked(book, 1, mock_clock)
            assert await peer.to_the_end() == b""
            await trio.sleep_forever()

    with pytest.raises(TrigearInternalError, match="another server owns the store now"):
        await use()


async def test_a_store_that_hangs_counts_as_stalled_and_recovers(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    book = Book()
    book.shut()
    async with (
        open_server(beside(tmp_path), store=book) as server,
        calling(server) as peer,
        calling(server) as other,
    ):
        await submit(peer, b"1")
        await book.begun()
        mock_clock.jump(STALL_SECONDS + 0.1)
        await wait_all_tasks_blocked()
        await submit(other, b"2")
        assert await other.hears() == ("ERROR", b"QUEUE_ERROR", b"The store does not answer")
        await other.can_do(b"f")
        handle = await other.submit()
        assert await other.grab() == handle, "foreground work goes on"
        book.reopen()
        assert (await peer.hears())[0] == "JOB_CREATED"
        await other.submit("SUBMIT_JOB_BG", b"f", b"", b"3")
        assert book.workloads == [b"1", b"3"]


async def test_the_end_waits_for_what_is_to_be_written(tmp_path: Path) -> None:
    book = Book()
    async with open_server(beside(tmp_path), store=book) as server, calling(server) as peer:
        await peer.can_do(b"f")
        handle = await peer.submit("SUBMIT_JOB_BG", b"f", b"", b"w")
        await peer.grab()
        book.shut()
        await submit(peer, b"2")
        await book.begun()
        await peer.tell("WORK_COMPLETE", handle, b"")
        await wait_all_tasks_blocked()
        server.stop()
        await wait_all_tasks_blocked()
        book.reopen()
    assert book.workloads == [b"2"], "what is done does not run again"


async def test_a_store_that_hangs_cannot_keep_the_server_from_ending(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    book = Book()
    book.shut()
    async with open_server(beside(tmp_path), store=book) as server, calling(server) as peer:
        await submit(peer, b"w")
        await book.begun()
        server.stop()
        for _ in range(3):
            await wait_all_tasks_blocked()
            mock_clock.jump(STALL_SECONDS + 0.1)
        assert await peer.to_the_end() == b"", "nobody is answered"
        mock_clock.autojump_threshold = 0.05
    book.reopen()
