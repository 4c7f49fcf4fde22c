"""The client: what each call returns, raises, and means when it is cancelled."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.runtime.calls import GREETING, Call
from tests.runtime.scripted import ScriptedServer, scripted
from trigear.engine.config import EngineConfig
from trigear.errors import (
    ConfigError,
    ConnectionLost,
    JobFailed,
    JobLost,
    JobRaised,
    LocalProtocolError,
    Refused,
)
from trigear.model import Priority
from trigear.protocol.events import Data, Status, Warning
from trigear.runtime.client import Client, connect, open_client
from trigear.runtime.values import JobStatus
from trigear.runtime.worker import Worker, WorkerJob
from trigear.testing.memory import open_memory_server
from trigear.wire.codec import request, response
from trigear.wire.packets import (
    CAN_DO,
    ECHO_RES,
    ERROR,
    GRAB_JOB_UNIQ,
    JOB_CREATED,
    OPTION_RES,
    STATUS_RES,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

H = b"H:here:1"


@asynccontextmanager
async def against_script() -> AsyncIterator[tuple[Client, ScriptedServer]]:
    """A client, and the scripted server it talks to; the greetings are over."""
    near, server = scripted()
    async with open_client(near) as client:
        await server.expects(*GREETING)
        await server.says(OPTION_RES, b"exceptions")
        await server.says(ERROR, b"UNKNOWN_OPTION", b"what?")
        yield client, server
        await server.hangs_up()


# What is sent, and what comes back


async def test_a_job_is_submitted_and_its_result_returned() -> None:
    async with against_script() as (client, server), trio.open_nursery() as nursery:
        call = Call(nursery, lambda: client.submit("größe", b"w", unique="u"))
        await server.expects(("SUBMIT_JOB", "größe".encode(), b"u", b"w"))
        await server.says(JOB_CREATED, H)
        await server.says(WORK_STATUS, H, b"1", b"2")
        await server.says(WORK_DATA, H, b"one ")
        await server.says(WORK_WARNING, H, b"careful")
        await server.says(WORK_DATA, H, b"two ")
        await server.says(WORK_COMPLETE, H, b"three")
        assert await call.outcome() == b"one two three"


@pytest.mark.parametrize(
    ("priority", "foreground", "background"),
    [
        (Priority.HIGH, "SUBMIT_JOB_HIGH", "SUBMIT_JOB_HIGH_BG"),
        (Priority.NORMAL, "SUBMIT_JOB", "SUBMIT_JOB_BG"),
        (Priority.LOW, "SUBMIT_JOB_LOW", "SUBMIT_JOB_LOW_BG"),
    ],
)
async def test_priorities_reach_the_server(
    priority: Priority, foreground: str, background: str
) -> None:
    async with against_script() as (client, server), trio.open_nursery() as nursery:
        one = Call(nursery, lambda: client.submit("f", b"w", priority=priority))
        await server.expects((foreground, b"f", b"", b"w"))
        two = Call(nursery, lambda: client.submit_background("f", b"w", priority=priority))
        await server.expects((background, b"f", b"", b"w"))
        await server.says(JOB_CREATED, H)
        await server.says(JOB_CREATED, b"H:2")
        await server.says(WORK_COMPLETE, H, b"")
        assert await one.outcome() == b""
        assert await two.outcome() == b"H:2"


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (response(WORK_FAIL, H), JobFailed),
        (response(WORK_EXCEPTION, H, b"boom"), JobRaised),
    ],
)
async def test_a_job_that_does_not_end_well_raises(
    end: bytes, error: type[JobFailed | JobRaised]
) -> None:
    async with against_script() as (client, server), trio.open_nursery() as nursery:
        call = Call(nursery, lambda: client.submit("f", b"w"))
        await server.hears()
        await server.sends(response(JOB_CREATED, H) + end)
        caught = await call.outcome()
        assert isinstance(caught, error)
        assert caught.handle == H
        if isinstance(caught, JobRaised):
            assert caught.data == b"boom"


@pytest.mark.parametrize("background", [False, True])
async def test_a_refusal_raises(background: bool) -> None:
    async with against_script() as (client, server), trio.open_nursery() as nursery:
        call = Call(
            nursery,
            lambda: (client.submit_background if background else client.submit)("f", b"w"),
        )
        await server.hears()
        await server.says(ERROR, b"QUEUE_ERROR", b"Job queue is full")
        caught = await call.outcome()
        assert isinstance(caught, Refused)
        assert (caught.code, caught.text) == ("QUEUE_ERROR", "Job queue is full")


async def test_questions_are_answered() -> None:
    async with against_script() as (client, server), trio.open_nursery() as nursery:
        status = Call(nursery, lambda: client.status(H))
        await server.expects(("GET_STATUS", H))
        echo = Call(nursery, lambda: client.echo(b"x\0"))
        await server.expects(("ECHO_REQ", b"x\0"))
        admin = Call(nursery, lambda: client.admin("status"))
        await server.expects(("text", b"status"))
        refused = Call(nursery, lambda: client.admin("cancel job H:1"))
        await server.expects(("text", b"cancel job H:1"))
        await server.says(STATUS_RES, H, b"1", b"1", b"3", b"4")
        await server.says(ECHO_RES, b"x\0")
        await server.sends(b"f\xff\t1\t0\t2\n.\n" + b"ERR UNKNOWN_JOB\r\n")
        assert await status.outcome() == JobStatus(True, True, 3, 4)
        assert await echo.outcome() == b"x\0"
        assert await admin.outcome() == ["f\udcff\t1\t0\t2"]
        error = await refused.outcome()
        assert isinstance(error, Refused)
        assert error.code == "UNKNOWN_JOB"


async def test_a_job_can_be_followed() -> None:
    async with against_script() as (client, server), trio.open_nursery() as nursery:
        seen: list[tuple[object, ...]] = []

        async def follow() -> bytes:
            async with client.open_job("f", b"w") as job:
                assert job.handle == H
                async for update in job:
                    match update:
                        case Status():
                            seen.append(("status", update.numerator, update.denominator))
                        case Data():
                            seen.append(("data", update.data))
                        case Warning():
                            seen.append(("warning", update.data))
                return await job.result()

        call = Call(nursery, follow)
        await server.expects(("SUBMIT_JOB", b"f", b"", b"w"))
        await server.says(JOB_CREATED, H)
        await server.says(WORK_STATUS, H, b"1", b"2")
        await trio.testing.wait_all_tasks_blocked()
        await server.says(WORK_DATA, H, b"part")
        await server.says(WORK_WARNING, H, b"careful")
        await server.says(WORK_COMPLETE, H, b"!")
        assert await call.outcome() == b"part!"
        assert seen == [("status", 1, 2), ("data", b"part"), ("warning", b"careful")]


async def test_a_follower_who_is_late_gets_only_the_newest_status_and_all_data() -> None:
    async with against_script() as (client, server), trio.open_nursery() as nursery:
        go = trio.Event()

        async def follow() -> object:
            async with client.open_job("f", b"w") as job:
                await go.wait()
                updates = [update async for update in job]
                with pytest.raises(JobFailed):
                    await job.result()
                return [
                    update.numerator if isinstance(update, Status) else update.data
                    for update in updates
                ]

        call = Call(nursery, follow)
        await server.hears()
        await server.sends(
            response(JOB_CREATED, H)
            + response(WORK_STATUS, H, b"1", b"9")
            + response(WORK_STATUS, H, b"2", b"9")
            + response(WORK_DATA, H, b"a")
            + response(WORK_DATA, H, b"b")
            + response(WORK_STATUS, H, b"3", b"9")
            + response(WORK_FAIL, H)
        )
        await trio.testing.wait_all_tasks_blocked()
        go.set()
        assert await call.outcome() == [2, b"a", b"b", 3]


async def test_submissions_of_one_unique_each_get_the_result() -> None:
    async with against_script() as (client, server), trio.open_nursery() as nursery:
        calls = [Call(nursery, lambda: client.submit("f", b"w", unique="u")) for _ in range(3)]
        for _ in calls:
            await server.hears()
        await server.sends(response(JOB_CREATED, H) * 3 + response(WORK_COMPLETE, H, b"x") * 3)
        assert [await call.outcome() for call in calls] == [b"x"] * 3


async def test_a_client_can_have_a_name() -> None:
    near, server = scripted()
    async with open_client(near, client_id="me"):
        await server.expects(("SET_CLIENT_ID", b"me"), *GREETING)
        await server.hangs_up()


async def test_a_server_that_knows_no_options_is_no_problem() -> None:
    near, server = scripted()
    async with open_client(near) as client, trio.open_nursery() as nursery:
        await server.expects(*GREETING)
        await server.says(ERROR, b"UNKNOWN_OPTION", b"what?")
        await server.says(ERROR, b"UNKNOWN_OPTION", b"and what?")
        echo = Call(nursery, lambda: client.echo(b"x"))
        await server.hears()
        await server.says(ECHO_RES, b"x")
        assert await echo.outcome() == b"x"
        await server.hangs_up()


# What is wrong at the caller


async def test_workloads_are_bytes() -> None:
    async with against_script() as (client, _):
        with pytest.raises(TypeError, match="bytes are needed, not str: encode it first"):
            await client.submit("f", "text")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="bytes are needed"):
            await client.echo(7)  # type: ignore[arg-type]


async def test_what_cannot_be_sent_raises_and_leaves_the_connection_usable() -> None:
    async with against_script() as (client, server), trio.open_nursery() as nursery:
        with pytest.raises(LocalProtocolError):
            await client.submit("", b"w")
        with pytest.raises(LocalProtocolError):
            await client.admin("two\nlines")
        echo = Call(nursery, lambda: client.echo(b"x"))
        await server.expects(("ECHO_REQ", b"x"))
        await server.says(ECHO_RES, b"x")
        assert await echo.outcome() == b"x"


async def test_a_client_that_was_left_is_closed() -> None:
    async with against_script() as (client, _):
        pass
    for call in (
        lambda: client.submit("f", b""),
        lambda: client.submit_background("f", b""),
        lambda: client.echo(b""),
        lambda: client.status(H),
        lambda: client.admin("status"),
    ):
        with pytest.raises(trio.ClosedResourceError):
            await call()


async def test_an_address_that_is_none_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="no usable port"):
        async with connect("localhost:x"):
            pass


async def test_connecting_to_nobody_says_so(tmp_path: object) -> None:
    with pytest.raises(ConnectionLost, match="is a server running there"):
        async with connect(f"unix:{tmp_path}/none.sock"):
            pass


# The connection breaks


async def test_every_waiter_is_told_when_the_connection_breaks() -> None:
    async with against_script() as (client, server), trio.open_nursery() as nursery:
        known = Call(nursery, lambda: client.submit("f", b"w"))
        await server.hears()
        await server.says(JOB_CREATED, H)
        unknown = Call(nursery, lambda: client.submit("f", b"w"))
        await server.hears()
        background = Call(nursery, lambda: client.submit_background("f", b"w"))
        await server.hears()
        admin = Call(nursery, lambda: client.admin("status"))
        await server.hears()
        echo = Call(nursery, lambda: client.echo(b"x"))
        await server.hears()
        await server.hangs_up()
        lost = await known.outcome()
        assert isinstance(lost, JobLost)
        assert lost.handle == H
        assert isinstance(lost.__cause__, ConnectionLost)
        unknown_job = "; whether the server has the job is unknown"
        for call, doubt in (
            (unknown, unknown_job),
            (background, unknown_job),
            (admin, "; whether the command was carried out is unknown"),
            (echo, ""),
        ):
            error = await call.outcome()
            assert isinstance(error, ConnectionLost)
            assert str(error) == "the server closed the connection" + doubt
            assert error.in_doubt == bool(doubt)
        with pytest.raises(ConnectionLost):
            await client.echo(b"")


async def test_a_followed_job_is_lost_after_its_last_update() -> None:
    async with against_script() as (client, server), trio.open_nursery() as nursery:

        async def follow() -> object:
            async with client.open_job("f", b"w") as job:
                updates = [update async for update in job]
                with pytest.raises(JobLost):
                    await job.result()
                return len(updates)

        call = Call(nursery, follow)
        await server.hears()
        await server.sends(response(JOB_CREATED, H) + response(WORK_DATA, H, b"x"))
        await server.hangs_up()
        assert await call.outcome() == 1


# Cancellation, row by row


async def test_a_cancelled_connect_gives_up(autojump_clock: trio.testing.MockClock) -> None:
    # The name is never resolved: what the test replaces is the network, which cannot hang to order.
    class Hangs(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *_: object) -> list[object]:  # type: ignore[override]
            await trio.sleep_forever()
            raise AssertionError

        async def getnameinfo(self, *_: object) -> tuple[str, str]:  # type: ignore[override]
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Hangs())
    with trio.move_on_after(5) as scope:
        async with connect("nowhere.example"):
            raise AssertionError
    assert scope.cancelled_caught


@pytest.mark.parametrize("when", ["before the job is created", "after it"])
async def test_a_cancelled_submit_leaves_the_connection_healthy(when: str) -> None:
    async with against_script() as (client, server), trio.open_nursery() as nursery:
        call = Call(nursery, lambda: client.submit("f", b"lost"))
        await server.expects(("SUBMIT_JOB", b"f", b"", b"lost"))
        if when == "after it":
            await server.says(JOB_CREATED, H)
            await trio.testing.wait_all_tasks_blocked()
        await call.cancel()
        kept = Call(nursery, lambda: client.submit("f", b"kept"))
        await server.hears()
        if when != "after it":
            await server.says(JOB_CREATED, H)
        await server.says(JOB_CREATED, b"H:2")
        await server.says(WORK_DATA, H, b"x")
        await server.says(WORK_COMPLETE, H, b"of the lost one")
        await server.says(WORK_COMPLETE, b"H:2", b"of the kept one")
        assert await kept.outcome() == b"of the kept one"


async def test_a_cancelled_submit_takes_no_result_from_another_with_its_handle() -> None:
    async with against_script() as (client, server), trio.open_nursery() as nursery:
        lost = Call(nursery, lambda: client.submit("f", b"w", unique="u"))
        await server.hears()
        kept = Call(nursery, lambda: client.submit("f", b"w", unique="u"))
        await server.hears()
        await server.sends(response(JOB_CREATED, H) * 2)
        await trio.testing.wait_all_tasks_blocked()
        await lost.cancel()
        await server.sends(response(WORK_COMPLETE, H, b"x") * 2)
        assert await kept.outcome() == b"x"


async def test_a_cancelled_submit_background_absorbs_its_reply() -> None:
    async with against_script() as (client, server), trio.open_nursery() as nursery:
        call = Call(nursery, lambda: client.submit_background("f", b"lost"))
        await server.hears()
        await call.cancel()
        kept = Call(nursery, lambda: client.submit_background("f", b"kept"))
        await server.hears()
        await server.sends(response(JOB_CREATED, H) + response(JOB_CREATED, b"H:2"))
        assert await kept.outcome() == b"H:2"


@pytest.mark.parametrize("question", ["status", "echo", "admin"])
async def test_a_cancelled_question_absorbs_its_answer(question: str) -> None:
    async with against_script() as (client, server), trio.open_nursery() as nursery:
        asked: dict[str, tuple[Callable[[], Awaitable[object]], bytes]] = {
            "status": (
                lambda: client.status(H),
                response(STATUS_RES, H, b"0", b"0", b"0", b"0"),
            ),
            "echo": (lambda: client.echo(b"x"), response(ECHO_RES, b"x")),
            "admin": (lambda: client.admin("workers"), b"1 - - :\n2 - - :\n.\n"),
        }
        ask, answer = asked[question]
        call = Call(nursery, ask)
        await server.hears()
        await call.cancel()
        kept = Call(nursery, lambda: client.echo(b"kept"))
        await server.hears()
        await server.sends(answer + response(ECHO_RES, b"kept"))
        assert await kept.outcome() == b"kept"


async def test_a_cancelled_iteration_or_result_loses_nothing() -> None:
    async with against_script() as (client, server), trio.open_nursery() as nursery:

        async def follow() -> object:
            async with client.open_job("f", b"w") as job:
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await anext(job)
                assert scope.cancelled_caught
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await job.result()
                assert scope.cancelled_caught
                update = await anext(job)
                assert isinstance(update, Data)
                return update.data, await job.result()

        call = Call(nursery, follow)
        await server.hears()
        await server.sends(
            response(JOB_CREATED, H)
            + response(WORK_DATA, H, b"x")
            + response(WORK_COMPLETE, H, b"")
        )
        assert await call.outcome() == (b"x", b"x")


async def test_a_job_that_is_left_early_is_not_heard_any_more() -> None:
    async with against_script() as (client, server), trio.open_nursery() as nursery:

        async def leave() -> bytes:
            async with client.open_job("f", b"w") as job:
                return job.handle

        call = Call(nursery, leave)
        await server.hears()
        await server.says(JOB_CREATED, H)
        assert await call.outcome() == H
        await server.sends(response(WORK_DATA, H, b"x") + response(WORK_COMPLETE, H, b""))
        echo = Call(nursery, lambda: client.echo(b"still here"))
        await server.hears()
        await server.says(ECHO_RES, b"still here")
        assert await echo.outcome() == b"still here"


async def test_a_cancelled_body_sends_what_was_queued() -> None:
    near, server = scripted()
    async with trio.open_nursery() as nursery:

        async def body() -> None:
            with trio.CancelScope() as scope:
                async with open_client(near) as client, trio.open_nursery() as inner:
                    inner.start_soon(client.submit_background, "f", b"queued")
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()

        nursery.start_soon(body)
        await server.expects(*GREETING, ("SUBMIT_JOB_BG", b"f", b"", b"queued"), ("end",))
        await server.hangs_up()


async def test_an_exception_in_the_body_leaves_bare() -> None:
    near, server = scripted()
    await server.hangs_up()
    with pytest.raises(ZeroDivisionError):
        async with open_client(near):
            raise ZeroDivisionError


@pytest.mark.parametrize("call", ["submit", "submit_background", "status", "echo", "admin"])
async def test_every_call_is_a_checkpoint(call: str) -> None:
    worker = Worker()

    @worker.function("f")
    async def do(job: WorkerJob) -> None:
        await trio.lowlevel.checkpoint()

    async with (
        open_memory_server() as network,
        open_client(network.stream()) as client,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(worker.run, network.open)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "submit": lambda: client.submit("f", b""),
            "submit_background": lambda: client.submit_background("f", b""),
            "status": lambda: client.status(H),
            "echo": lambda: client.echo(b""),
            "admin": lambda: client.admin("status"),
        }
        with trio.testing.assert_checkpoints():
            await calls[call]()
        nursery.cancel_scope.cancel()


# Against the engine


async def test_jobs_with_one_unique_run_once() -> None:
    async with (
        open_memory_server() as network,
        open_client(network.stream()) as client,
        trio.open_nursery() as nursery,
    ):
        calls = [Call(nursery, lambda: client.submit("f", b"w", unique="-")) for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        assert await client.admin("status") == ["f\t1\t0\t0"]
        worker = network.core.connect()
        worker.send(request(CAN_DO, b"f") + request(GRAB_JOB_UNIQ))
        handle = worker.take()[12:].partition(b"\0")[0]
        worker.send(request(WORK_COMPLETE, handle, b"once"))
        assert [await call.outcome() for call in calls] == [b"once"] * 3
        assert await client.admin("status") == ["f\t0\t0\t1"]


async def test_a_foreground_job_dies_with_its_client_and_a_background_job_does_not() -> None:
    async with open_memory_server(EngineConfig()) as network:
        async with open_client(network.stream()) as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.submit, "fore", b"")
            await client.submit_background("back", b"")
            nursery.cancel_scope.cancel()
        async with open_client(network.stream()) as client:
            assert sorted(await client.admin("status")) == ["back\t1\t0\t0", "fore\t0\t0\t0"]
