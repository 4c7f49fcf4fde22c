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
from trigear.errors import StoreUnavailable, StoreUnusable
from trigear.model import TERM_SHIFT, Now, counted
from trigear.runtime import loading
from trigear.runtime.listeners import bind
from trigear.runtime.loading import Loading
from trigear.runtime.server import open_server, serve
from trigear.stores.base import Keep, Spoilt
from trigear.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trio.testing import MockClock


async def load(book: Book, engine: Engine, *, own_process: bool = False) -> int:
    """Load all of it; how many jobs there were."""
    loader = Loading(book, engine, trio.CapacityLimiter(1), own_process=own_process)
    await loader.begin()
    await loader.finish(lambda: None)
    assert loader.done
    return loader.jobs


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


async def test_jobs_of_a_tenant_to_which_nobody_belongs_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    book = filled(1)
    book.kept |= {(0, number): job(number, tenant="acme") for number in (2, 3)}
    async with open_server(beside(tmp_path), store=book) as server, calling(server) as worker:
        assert server.restored == 3
        assert await worker.command(b"status") == b"f\t1\t0\t0"
    told = "2 jobs are of tenant acme, to which nobody belongs: they wait until somebody does"
    assert told in caplog.messages


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


@pytest.mark.parametrize("patience", [0.0, 1e9])
@pytest.mark.parametrize("jobs", [0, 1, 3, 4, 7])
async def test_pages_of_any_number_are_loaded_whole(
    jobs: int, patience: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "PAGE", 3)
    monkeypatch.setattr(loading, "PROGRESS_SECONDS", 0.0)
    caplog.set_level(logging.INFO)
    engine = Engine(EngineConfig(), lambda *_: b"", Now(0.0, 0.0), durable=True, term=1)
    book = filled(*range(1, jobs + 1))
    monkeypatch.setattr(loading, "PATIENCE", patience)
    assert await load(book, engine) == jobs
    assert engine.statistics().jobs == jobs
    said = [record.getMessage() for record in caplog.records]
    # What is loaded before serving is not worth a word on its way.
    pages = 0 if patience else jobs // 3 + 1
    assert sum(text.startswith("loading: ") for text in said) == pages
    assert any(text.startswith(f"loaded {counted(jobs, 'job')} in ") for text in said) == (jobs > 0)


async def test_a_short_load_says_nothing_on_its_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "PAGE", 1)
    monkeypatch.setattr(loading, "PROGRESS_SECONDS", 1e9)
    caplog.set_level(logging.INFO)
    engine = Engine(EngineConfig(), lambda *_: b"", Now(0.0, 0.0), durable=True, term=1)
    await load(filled(1, 2), engine)
    assert "so far" not in caplog.text


async def test_rows_that_are_no_jobs_are_counted_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Moths(Book):
        def scan(self, after: object, limit: int) -> list:
            return [Spoilt(0, 1, "moths"), Spoilt(0, 2, "moths")]

    engine = Engine(EngineConfig(), lambda *_: b"", Now(0.0, 0.0), durable=True, term=1)
    assert await load(Moths(), engine) == 0
    assert "2 rows of the store make no sense; they stay there" in caplog.text


async def test_what_is_loaded_is_never_looked_at_by_the_collector() -> None:
    engine = Engine(EngineConfig(), lambda *_: b"", Now(0.0, 0.0), durable=True, term=1)
    try:
        await load(filled(1), engine, own_process=True)
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


# Serving meanwhile


class Slow(Book):
    """Gives a page when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = threading.Semaphore(0)

    def scan(self, after: tuple[int, int] | None, limit: int) -> Sequence[Keep]:
        assert self.pages.acquire(timeout=PATIENCE)
        return super().scan(after, limit)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Three jobs on three pages; the server does not wait for them."""
    monkeypatch.setattr(loading, "PATIENCE", 0.0)
    monkeypatch.setattr(loading, "PAGE", 1)
    book = Slow()
    book.kept = {
        (0, number): job(number, b"%d" % number, unique=b"u%d" % number) for number in (1, 2, 3)
    }
    book.term = 1
    return book


async def test_a_server_serves_while_it_loads(tmp_path: Path, slow: Slow) -> None:
    async with (
        open_server(beside(tmp_path), store=slow) as server,
        calling(server) as client,
        calling(server) as worker,
    ):
        assert server.loading
        await worker.can_do(b"f")
        await worker.tell("PRE_SLEEP")
        new = await client.submit("SUBMIT_JOB", b"f", b"new", b"new")
        assert await worker.hears() == ("NOOP",)
        assert await worker.grab() == new
        # A unique of the store waits for its job, and what comes behind it, too.
        await client.tell("SUBMIT_JOB_BG", b"f", b"u3", b"again")
        await client.tell("ECHO_REQ", b"behind it")
        await worker.tell("PRE_SLEEP")
        slow.pages.release()
        assert await worker.hears() == ("NOOP",)
        assert await worker.grab() == b"H:test:1"
        assert server.restored == 1
        slow.pages.release(9)
        assert await client.hears() == ("JOB_CREATED", b"H:test:3")
        assert await client.hears() == ("ECHO_RES", b"behind it")
        assert not server.loading
        assert server.restored == 3


async def test_a_caller_that_stopped_talking_while_it_waits_hears_the_answer(
    tmp_path: Path, slow: Slow
) -> None:
    async with open_server(beside(tmp_path), store=slow) as server, calling(server) as client:
        await client.tell("SUBMIT_JOB_BG", b"f", b"u2", b"again")
        await client.stream.send_eof()
        async with calling(server) as other:
            await other.settled()
        slow.pages.release(9)
        assert await client.hears() == ("JOB_CREATED", b"H:test:2")


async def test_a_store_that_is_away_for_a_while_is_read_when_it_is_back(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(Book):
        asked = 0

        def scan(self, after: tuple[int, int] | None, limit: int) -> Sequence[Keep]:
            self.asked += 1
            if self.asked < 9:
                raise StoreUnavailable("store: is away")
            return super().scan(after, limit)

    book = Away()
    book.kept = filled(1, 2).kept
    engine = Engine(EngineConfig(), lambda *_: b"", Now(0.0, 0.0), durable=True, term=1)
    assert await load(book, engine) == 2
    assert caplog.text.count("loading: store: is away; trying again") == 8


async def test_jobs_that_cannot_be_read_end_a_server_that_serves_already(
    tmp_path: Path, slow: Slow
) -> None:
    def scan(after: object, limit: int) -> list[Keep]:
        raise StoreUnusable("store: is damaged")

    slow.scan = scan  # type: ignore[method-assign]
    config = beside(tmp_path)
    with pytest.raises(StoreUnusable, match="is damaged"):
        await serve(config, bind(config), store=slow)


async def test_a_server_can_be_stopped_while_it_loads(tmp_path: Path, slow: Slow) -> None:
    async with open_server(beside(tmp_path), store=slow) as server:
        server.stop()
        slow.pages.release(9)
