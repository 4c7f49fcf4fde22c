"""Results on their way to a store of their own: one that is slow, fails, hangs, or is not there."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.runtime.books import PATIENCE, Book
from tests.runtime.calling import Caller, beside, calling
from trigear.engine.config import EngineConfig, FunctionSettings
from trigear.engine.gate import STALL_SECONDS
from trigear.engine.reads import READ_SECONDS
from trigear.errors import StoreUnavailable, StoreUnusable
from trigear.runtime.committer import RETRY_LIMIT, RETRY_SECONDS
from trigear.runtime.server import open_server
from trigear.stores.results import DONE, Result

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KEEPING = EngineConfig(functions={b"f": FunctionSettings(keep_results=3600.0, reuse_results=True)})


class Drawer:
    """Keeps results in memory. ``trouble`` is raised by every call until it is None; while
    ``shut``, no call returns."""

    name = "a drawer"

    def __init__(self) -> None:
        self.kept: dict[tuple[str, bytes], Result] = {}
        self.trouble: Exception | None = None
        self.asked: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self.called = trio.Event()
        self.opened = self.closed = 0
        self._open = threading.Event()
        self._open.set()

    def shut(self) -> None:
        self._open.clear()

    def reopen(self) -> None:
        self._open.set()

    def _call(self, what: str) -> None:
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        self.asked.append(what)
        trio.from_thread.run_sync(self.called.set)
        assert self._open.wait(PATIENCE), "nobody let this go on"
        self.at_once -= 1
        if self.trouble is not None:
            raise self.trouble

    def open(self) -> None:
        self.opened += 1
        if self.trouble is not None:
            raise self.trouble

    def put(self, results: Sequence[Result]) -> None:
        self._call("put")
        self.kept |= {(each.tenant, each.handle): each for each in results}

    def get(self, keys: Sequence[tuple[str, bytes]]) -> Sequence[Result]:
        self._call("get")
        return [self.kept[key] for key in keys if key in self.kept]

    def find(self, keys: Sequence[tuple[str, bytes, bytes]]) -> Sequence[Result]:
        self._call("find")
        return [
            each
            for each in self.kept.values()
            if (each.tenant, each.function, each.unique) in keys and each.state == DONE
        ]

    def delete(self, keys: Sequence[tuple[str, bytes]]) -> None:
        self._call("delete")
        for key in keys:
            self.kept.pop(key, None)

    def close(self) -> None:
        self.closed += 1
        assert self._open.wait(PATIENCE), "nobody let this go on"


async def ended(peer: Caller, unique: bytes = b"") -> bytes:
    """Have a job of `f` done; its handle."""
    await peer.can_do(b"f")
    handle = await peer.submit("SUBMIT_JOB_BG", b"f", unique, b"w")
    assert await peer.grab() == handle
    await peer.tell("WORK_COMPLETE", handle, b"result")
    return handle


async def until(condition, clock: MockClock | None = None) -> None:
    while not condition():
        await wait_all_tasks_blocked(0.001)
        if clock is not None:
            clock.jump(RETRY_SECONDS / 2)


async def asking(peer: Caller) -> None:
    assert await peer.ask("OPTION_REQ", b"trigear") == ("OPTION_RES", b"trigear")


async def test_a_result_is_put_got_found_and_dropped(tmp_path: Path) -> None:
    book, drawer = Book(), Drawer()
    async with (
        open_server(beside(tmp_path, KEEPING), store=book, results=drawer) as server,
        calling(server) as peer,
    ):
        await asking(peer)
        handle = await ended(peer, b"u")
        await until(lambda: not book.kept)
        assert drawer.kept["default", handle].data == b"result"
        assert (await peer.ask("GET_RESULT", handle))[-1] == b"result"
        assert await peer.ask("SUBMIT_JOB", b"f", b"u", b"w") == ("JOB_CREATED", handle)
        assert await peer.hears() == ("WORK_COMPLETE", handle, b"result")
        assert await peer.ask("SUBMIT_JOB_BG", b"f", b"u", b"w") == ("JOB_CREATED", handle)
        assert await peer.command(b"drop result " + handle) == b"OK"
        assert (await peer.ask("GET_RESULT", handle))[2:4] == (b"done", b"1")
    assert drawer.asked == ["find", "put", "get", "find", "find", "delete", "get"]
    assert (drawer.opened, drawer.closed, drawer.most_at_once) == (1, 1, 1)


async def test_without_a_store_of_jobs_results_go_there_as_well(tmp_path: Path) -> None:
    drawer = Drawer()
    async with (
        open_server(beside(tmp_path, KEEPING), results=drawer) as server,
        calling(server) as peer,
    ):
        await asking(peer)
        handle = await ended(peer)
        await until(lambda: drawer.kept)
        assert (await peer.ask("GET_RESULT", handle))[-1] == b"result"


async def test_what_gathers_while_it_is_busy_is_put_together(tmp_path: Path) -> None:
    book, drawer = Book(), Drawer()
    drawer.shut()
    async with (
        open_server(beside(tmp_path, KEEPING), store=book, results=drawer) as server,
        calling(server) as peer,
    ):
        await ended(peer)
        await drawer.called.wait()
        for _ in range(20):
            await ended(peer)
        await peer.settled()
        assert len(book.kept) == 21, "no job is forgotten before its result is there"
        drawer.reopen()
        await until(lambda: not book.kept)
        assert drawer.asked == ["put", "put"]
        assert len(drawer.kept) == 21


async def test_one_that_fails_is_told_of_once_and_asked_again_less_and_less_often(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    book, drawer = Book(), Drawer()
    async with (
        open_server(beside(tmp_path, KEEPING), store=book, results=drawer) as server,
        calling(server) as peer,
    ):
        await asking(peer)
        drawer.trouble = StoreUnavailable("out for lunch")
        handle = await ended(peer)
        await until(lambda: drawer.asked == ["put"])
        start = trio.current_time()
        await until(lambda: len(drawer.asked) == 4, mock_clock)
        assert trio.current_time() - start >= RETRY_SECONDS * (1 + 2 + 4)
        assert len(book.kept) == 1
        assert (await peer.ask("GET_RESULT", handle))[-1] == b"result"
        assert caplog.messages == [
            "the store of results takes nothing: StoreUnavailable: out for lunch; trying again"
        ]
        drawer.trouble = None
        await until(lambda: not book.kept, mock_clock)
        assert caplog.messages[1:] == ["the store of results takes results again"]
    assert RETRY_LIMIT == 5.0, "what the page about results says"


async def test_one_that_hangs_keeps_no_job_and_no_other_reply_waiting(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    book, drawer = Book(), Drawer()
    async with (
        open_server(beside(tmp_path, KEEPING), store=book, results=drawer) as server,
        calling(server) as peer,
        calling(server) as other,
    ):
        await asking(peer)
        handle = await ended(peer)
        await until(lambda: drawer.kept)
        drawer.shut()
        drawer.called = trio.Event()
        await peer.tell("GET_RESULT", handle)
        await drawer.called.wait()
        await ended(other)
        silent = ("ERROR", b"RESULT_UNAVAILABLE", b"The store does not answer")
        mock_clock.jump(READ_SECONDS)
        assert await peer.hears() == silent
        assert await peer.ask("GET_RESULT", handle) == silent
        drawer.reopen()
        await until(lambda: not book.kept)
        assert (await peer.ask("GET_RESULT", handle))[-1] == b"result"


async def test_the_end_waits_for_what_is_on_its_way(tmp_path: Path) -> None:
    book, drawer = Book(), Drawer()
    drawer.shut()
    async with (
        open_server(beside(tmp_path, KEEPING), store=book, results=drawer) as server,
        calling(server) as peer,
    ):
        await ended(peer)
        await drawer.called.wait()
        server.stop()
        await wait_all_tasks_blocked()
        drawer.reopen()
    assert (book.kept, len(drawer.kept)) == ({}, 1)


async def test_one_that_hangs_cannot_keep_the_server_from_ending(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    book, drawer = Book(), Drawer()
    async with open_server(beside(tmp_path, KEEPING), store=book, results=drawer) as server:
        async with calling(server) as peer:
            drawer.shut()
            await ended(peer)
            await drawer.called.wait()
            server.stop()
            for _ in range(3):
                await wait_all_tasks_blocked()
                mock_clock.jump(STALL_SECONDS + 0.1)
            assert await peer.to_the_end() == b""
        mock_clock.autojump_threshold = 0.05
    drawer.reopen()
    assert "the store of results does not answer and is left open: a drawer" in caplog.messages
    assert len(book.kept) == 1, "it runs again after the next start"


async def test_one_that_can_never_work_stops_the_start(tmp_path: Path) -> None:
    drawer = Drawer()
    drawer.trouble = StoreUnusable("results: no such drawer; name another")
    with pytest.raises(StoreUnusable, match="no such drawer"):
        async with open_server(beside(tmp_path, KEEPING), results=drawer):
            pytest.fail("it serves")
    assert drawer.closed == 0
