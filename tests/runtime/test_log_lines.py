"""What peers are called, and call things, does not reach the log as it is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio

from tests.runtime.workplace import assign, at_work
from trigear.errors import JobFailed, JobLost, JobRaised
from trigear.model import printable
from trigear.runtime.worker import Worker, WorkerJob
from trigear.wire.packets import ERROR, JOB_CANCELLED

if TYPE_CHECKING:
    from collections.abc import Iterator

NASTY = b"two\nlines \x1b[2J \x9b2J \xc2\x9b2J \xe2\x80\xa8 \x7f\r"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log. Every line of the test must be fit for a terminal."""
    caplog.set_level(logging.DEBUG, "trigear")
    yield caplog
    messages = [record.getMessage() for record in caplog.get_records("call")]
    assert messages
    assert [message for message in messages if not message.isprintable()] == []


async def test_a_handler_that_raises_is_told_of_by_a_name_that_can_be_shown(
    log: pytest.LogCaptureFixture,
) -> None:
    worker = Worker()

    @worker.function(NASTY)
    async def handler(job: WorkerJob) -> bytes:
        raise LookupError("x")

    async with at_work(worker) as server:
        await assign(server, handle=b"H:" + NASTY, function=NASTY)
        assert (await server.hears())[0] == "WORK_EXCEPTION"


async def test_a_function_that_nobody_offered_is_told_of_by_a_name_that_can_be_shown(
    log: pytest.LogCaptureFixture,
) -> None:
    worker = Worker()

    @worker.function("f")
    async def handler(job: WorkerJob) -> bytes:
        return b""

    async with at_work(worker) as server:
        await assign(server, handle=b"H:" + NASTY, function=NASTY)
        assert (await server.hears())[0] == "WORK_FAIL"


async def test_what_the_server_says_of_a_lost_job_is_told_in_words_that_can_be_shown(
    log: pytest.LogCaptureFixture,
) -> None:
    worker = Worker()

    @worker.function("f")
    async def handler(job: WorkerJob) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async with at_work(worker) as server:
        await assign(server, handle=b"H:" + NASTY)
        await server.says(JOB_CANCELLED, b"H:" + NASTY, NASTY)
        await assign(server, handle=b"H:2")
        await server.says(ERROR, b"JOB_NOT_FOUND", NASTY)
        await trio.testing.wait_all_tasks_blocked()
    assert any("was cancelled" in line for line in log.messages)
    assert any("did not take an answer" in line for line in log.messages)


@pytest.mark.parametrize("kind", [JobFailed, JobLost])
def test_a_job_that_ended_badly_is_called_by_a_name_that_can_be_shown(
    kind: type[JobFailed | JobLost],
) -> None:
    assert str(kind(NASTY)).isprintable()
    assert str(JobRaised(NASTY, b"")).isprintable()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"plain", "plain"),
        ("straße 7".encode(), "straße 7"),
        (b"a\tb\0", "a\\x09b\\x00"),
        (b"\xff\x9b", "\\xff\\x9b"),
        ("\u009b\u2028".encode(), "\\u009b\\u2028"),
        (b"", ""),
    ],
)
def test_a_name_for_people_keeps_what_can_be_printed(name: bytes, text: str) -> None:
    assert printable(name) == text
