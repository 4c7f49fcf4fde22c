"""The committer with a store in a thread: one that is slow, fails, hangs, or is lost."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.runtime.books import PATIENCE, Book
from tests.runtime.calling import Caller, beside, calling
from trigear.engine.gate import STALL_SECONDS, Commit
from trigear.errors import (
    StoreFenced,
    StoreUnavailable,
    StoreUnknown,
    StoreUnusable,
    TrigearInternalError,
)
from trigear.runtime import committer
from trigear.runtime.committer import (
    HEAD_LINES,
    MOST_DENIALS,
    RETRY_LIMIT,
    RETRY_SECONDS,
    Committer,
)
from trigear.runtime.server import open_server
from trigear.stores.base import Batch, Keep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from trigear.errors import StoreError
    from trigear.model import Now

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


# The interpreter is the store's until a batch is sent


class Batches:
    """A committer with a store that is at a batch until the next one is wanted; the engine too."""

    unwritten = 0

    def __init__(self, book: Book, lines: int) -> None:
        self.book = book
        self.limiter = trio.CapacityLimiter(1)
        self.committer = Committer(self, book, lambda: None, self.limiter)  # type: ignore[arg-type]
        self._lines = lines
        self._number = 0
        self._wanted = False
        self._written = trio.Event()

    async def next(self) -> None:
        """Let the store have written the batch at hand, and be at another one."""
        if self._number:
            self.book.reopen()
            await self._written.wait()
        self.book.shut()
        self._written = trio.Event()
        self._wanted = True
        self.committer.offer()
        await self.book.begun()

    def take_ticket(self) -> Commit | None:
        if not self._wanted:
            return None
        self._wanted = False
        self._number += 1
        line = Keep(0, self._number, "t", b"f", b"", b"H", 1, 0.0, 0.0, 0, b"", b"")
        return Commit(Batch(self._number, (line,) * self._lines))

    def done(self, ticket: Commit, error: StoreError | None, now: Now) -> None:
        assert error is None
        self._written.set()


@asynccontextmanager
async def at_a_batch(book: Book, lines: int = HEAD_LINES) -> AsyncIterator[Batches]:
    batches = Batches(book, lines)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(batches.committer.run)
        await wait_all_tasks_blocked()
        await batches.next()
        yield batches
        nursery.cancel_scope.cancel()
        book.reopen()


async def test_everything_holds_still_until_a_batch_is_sent_and_not_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(committer, "HEAD_START", PATIENCE)
    book = Book()
    async with at_a_batch(book) as batches:
        made = batches.committer
        made.give_way()
        assert made.denials == 0, "it was sent"
        assert not book.batches, "and is not written yet"


async def test_a_small_batch_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "HEAD_START", 0.0)
    book = Book()
    book.sends = False
    async with at_a_batch(book, HEAD_LINES - 1) as batches:
        made = batches.committer
        made.give_way()
        assert made.denials == 0


async def test_a_batch_is_not_waited_for_while_somebody_else_is_with_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(committer, "HEAD_START", 0.0)
    book = Book()
    book.sends = False
    batches = Batches(book, HEAD_LINES)
    batches.limiter.acquire_nowait()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(batches.committer.run)
        nursery.start_soon(batches.next)
        await wait_all_tasks_blocked()
        batches.committer.give_way()
        assert batches.committer.denials == 0
        assert not book.commits
        batches.limiter.release()
        await until(lambda: book.commits == 1)
        batches.committer.give_way()
        assert batches.committer.denials == 0
        book.reopen()
        nursery.cancel_scope.cancel()


async def test_a_batch_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "HEAD_START", 0.0)
    book = Book()
    book.sends = False
    async with at_a_batch(book) as batches:
        made = batches.committer
        made.give_way()
        assert made.denials == 1
        made.give_way()
        assert made.denials == 1


async def test_a_store_that_takes_its_time_is_waited_for_ever_more_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(committer, "HEAD_START", 0.0)
    book = Book()
    book.sends = False
    async with at_a_batch(book) as batches:
        made = batches.committer
        expected = 1
        while expected < MOST_DENIALS * 4:
            made.give_way()
            assert made.denials == min(expected, MOST_DENIALS)
            for left in reversed(range(made.denials)):
                await batches.next()
                made.give_way()
                assert made.denials == left
            await batches.next()
            expected = expected * 2 + 1
        monkeypatch.setattr(committer, "HEAD_START", PATIENCE)
        book.sends = True
        await batches.next()
        made.give_way()
        assert made.denials == 0
        monkeypatch.setattr(committer, "HEAD_START", 0.0)
        book.sends = False
        await batches.next()
        made.give_way()
        assert made.denials == 1, "as at first"
