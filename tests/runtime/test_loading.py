"""A server takes its store over, loads it, and lets go of it."""

from __future__ import annotations

import gc
import logging
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import trio

from tests.runtime.books import PATIENCE, Book
from tests.runtime.calling import beside, calling
from tests.stores.places import OWNER, job
from trigear.engine.config import EngineConfig
from trigear.engine.engine import Engine
from trigear.errors import StoreUnusable
from trigear.model import TERM_SHIFT, Now, counted
from trigear.runtime import loading
from trigear.runtime.server import open_server
from trigear.stores.base import Spoilt
from trigear.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


def filled(*jobs: int) -> Book:
    book = Book()
    book.kept = {(0, number): job(number, b"%d" % number) for number in jobs}
    book.term = 1
    return book


async def test_jobs_of_the_store_are_there_when_the_server_serves(tmp_path: Path) -> None:
    book = filled(1, 2, 3)
    async with open_server(beside(tmp_path), store=book) as server, calling(server) as worker:
        assert server.restored == server.statistics().jobs == 3
        await worker.can_do(b"f")
        assert [await worker.grab() for _ in range(2)] == [b"H:test:1", b"H:test:2"]


async def test_a_new_job_gets_a_number_and_a_handle_of_the_new_term(tmp_path: Path) -> None:
    book = filled(1)
    async with open_server(beside(tmp_path), store=book) as server, calling(server) as client:
        await client.submit("SUBMIT_JOB_BG", b"f", b"", b"new")
    assert sorted(number >> TERM_SHIFT for _, number in book.kept) == [0, 2]


async def test_a_store_that_cannot_be_had_leaves_nothing_open(tmp_path: Path) -> None:
    with closing(SqliteStore(str(tmp_path / "jobs.sqlite3"))) as store:
        store.open(OWNER)
        other = SqliteStore(store.path)
        with pytest.raises(StoreUnusable, match="pid 4711"):
            async with open_server(beside(tmp_path), store=other):
                pytest.fail("it serves")
    assert not await trio.Path(tmp_path, "server").exists()


async def test_a_store_that_cannot_be_read_is_let_go_of(tmp_path: Path) -> None:
    class Torn(Book):
        closed = 0

        def scan(self, after: object, limit: int) -> list:
            raise StoreUnusable("torn")

        def close(self) -> None:
            self.closed += 1

    torn = Torn()
    with pytest.raises(StoreUnusable, match="torn"):
        async with open_server(beside(tmp_path), store=torn):
            pytest.fail("it serves")
    assert torn.closed == 1


@pytest.mark.parametrize("jobs", [0, 1, 3, 4, 7])
async def test_pages_of_any_number_are_loaded_whole(
    jobs: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "PAGE", 3)
    monkeypatch.setattr(loading, "PROGRESS_SECONDS", 0.0)
    caplog.set_level(logging.INFO)
    engine = Engine(EngineConfig(), lambda *_: b"", Now(0.0, 0.0), durable=True, term=1)
    book = filled(*range(1, jobs + 1))
    limiter = trio.CapacityLimiter(1)
    assert await loading.load(book, engine, limiter, own_process=False) == jobs
    assert engine.statistics().jobs == jobs
    said = [record.getMessage() for record in caplog.records]
    assert sum(text.startswith("loading: ") for text in said) == jobs // 3
    assert any(text.startswith(f"loaded {counted(jobs, 'job')} in ") for text in said) == (jobs > 0)


async def test_a_short_load_says_nothing_on_its_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "PAGE", 1)
    monkeypatch.setattr(loading, "PROGRESS_SECONDS", 1e9)
    caplog.set_level(logging.INFO)
    engine = Engine(EngineConfig(), lambda *_: b"", Now(0.0, 0.0), durable=True, term=1)
    await loading.load(filled(1, 2), engine, trio.CapacityLimiter(1), own_process=False)
    assert "so far" not in caplog.text


async def test_rows_that_are_no_jobs_are_counted_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Moths(Book):
        def scan(self, after: object, limit: int) -> list:
            return [Spoilt(0, 1, "moths"), Spoilt(0, 2, "moths")]

    engine = Engine(EngineConfig(), lambda *_: b"", Now(0.0, 0.0), durable=True, term=1)
    assert await loading.load(Moths(), engine, trio.CapacityLimiter(1), own_process=False) == 0
    assert "2 rows of the store make no sense; they stay there" in caplog.text


async def test_what_is_loaded_is_never_looked_at_by_the_collector() -> None:
    engine = Engine(EngineConfig(), lambda *_: b"", Now(0.0, 0.0), durable=True, term=1)
    try:
        await loading.load(filled(1), engine, trio.CapacityLimiter(1), own_process=True)
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.enable()


async def test_a_store_that_does_not_answer_is_not_waited_for_at_the_end(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()

    class Stuck(Book):
        def close(self) -> None:
            assert go_on.wait(PATIENCE)

    limiter = trio.CapacityLimiter(1)
    async with loading.opened(Stuck(), OWNER, limiter):
        pass
    assert "the store does not answer and is left open: a book" in caplog.text
    go_on.set()
