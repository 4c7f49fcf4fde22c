"""Logins that end: they are made anew on the same connection, and what goes on there goes on."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

import trigear
from tests.runtime.entrance import let_in, offer, turn_away
from tests.runtime.scripted import ScriptedPlace, ScriptedServer
from tests.runtime.workplace import H, assign
from trigear.errors import ConnectionLost
from trigear.runtime.client import connect_to
from trigear.runtime.pool import Place
from trigear.wire.packets import (
    ECHO_RES,
    ERROR,
    NO_JOB,
    NOOP,
    OPTION_RES,
    SASL_EXPIRING,
    SASL_OK,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trigear.runtime.client import Client

AUTH = trigear.Auth("alice", "pencil", allow_plaintext_scram=True)
HOUR = 3600.0


@asynccontextmanager
async def logged_in(lifetime: float) -> AsyncIterator[tuple[ScriptedServer, Client]]:
    """A client, and its server, where logins hold so long."""
    place = ScriptedPlace()

    async def welcome() -> None:
        server = await place.accepts()
        await let_in(server, lifetime)
        await server.expects(("OPTION_REQ", b"exceptions"), ("OPTION_REQ", b"trigear"))
        await server.says(OPTION_RES, b"exceptions")
        await server.says(OPTION_RES, b"trigear")
        met.append(server)
        greeted.set()

    met: list[ScriptedServer] = []
    greeted = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(welcome)
        async with connect_to([Place("here", place)], auth=AUTH, patience=0) as client:
            await greeted.wait()
            yield met[0], client
            nursery.start_soon(met[0].hangs_up)


async def silent(server: ScriptedServer) -> bool:
    """Whether the client has nothing to say now."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def give_up() -> None:
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()

            nursery.start_soon(give_up)
            await server.hears()
            nursery.cancel_scope.cancel()
    return scope.cancelled_caught


async def echoes(server: ScriptedServer, client: Client) -> None:
    """The connection is in step."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.echo, b"x")
        await server.expects(("ECHO_REQ", b"x"))
        await server.says(ECHO_RES, b"x")


async def test_a_login_is_made_anew_at_four_fifths_of_its_time(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with logged_in(HOUR) as (server, client):
        mock_clock.jump(0.79 * HOUR)
        assert await silent(server)
        mock_clock.jump(0.02 * HOUR)
        await let_in(server, HOUR)
        await echoes(server, client)
        mock_clock.jump(0.79 * HOUR)
        assert await silent(server)
        mock_clock.jump(0.02 * HOUR)
        await let_in(server)  # for ever
        await echoes(server, client)
        mock_clock.jump(1000 * HOUR)
        assert await silent(server)


async def test_a_login_is_made_anew_when_the_server_says_so(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with logged_in(0) as (server, client):
        mock_clock.jump(5)
        await server.says(SASL_EXPIRING, b"60000")
        await let_in(server, HOUR)
        await echoes(server, client)
        # What has crossed the new login is about the old one, and so close to it not heeded twice.
        await server.says(SASL_EXPIRING, b"60000")
        assert await silent(server)
        mock_clock.jump(1)
        await let_in(server, HOUR)
        await echoes(server, client)


async def test_a_login_that_gets_no_longer_is_not_made_without_end(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with logged_in(10) as (server, client):
        left = 10.0
        for _ in range(3):
            mock_clock.jump(max(0.8 * left, 1.0) + 0.001)
            left = max(left - max(0.8 * left, 1.0), 0.001)
            await let_in(server, left)
        assert await silent(server)
        await echoes(server, client)


@pytest.mark.parametrize("code", [b"AUTHENTICATION_FAILED", b"SASL_MECHANISM_UNAVAILABLE"])
async def test_a_login_that_is_refused_is_tried_once_more_and_what_runs_goes_on(
    mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture, code: bytes
) -> None:
    async with logged_in(HOUR) as (server, client):
        mock_clock.jump(0.81 * HOUR)
        await turn_away(server, code)
        await echoes(server, client)
        mock_clock.jump(0.09 * HOUR)
        assert await silent(server)
        mock_clock.jump(0.02 * HOUR)
        await turn_away(server, code)
        await echoes(server, client)
        mock_clock.jump(0.07 * HOUR)
        assert await silent(server)
        assert [line.rpartition("(")[2] for line in caplog.messages] == [
            "trying again in 342.0 s, and the connection ends in 684.0 s)",
            "this was the last try, and the connection ends in 288.0 s)",
        ]
        await server.says(ERROR, b"AUTHENTICATION_EXPIRED", b"Session expired")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost, match=r"here ended the connection: Session expired"):
            await client.echo(b"")


async def test_a_server_that_is_busy_is_asked_again_soon(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with logged_in(HOUR) as (server, client):
        mock_clock.jump(0.8 * HOUR)
        for _ in range(5):
            await turn_away(server, b"AUTHENTICATION_TEMPORARY_FAILURE")
            await echoes(server, client)
            assert await silent(server)
            mock_clock.jump(60)
        await let_in(server, HOUR)
        await echoes(server, client)


async def test_a_server_that_cannot_prove_itself_any_more_is_left(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with logged_in(HOUR) as (server, client):
        mock_clock.jump(0.8 * HOUR)
        await offer(server)
        await server.hears()
        await server.says(SASL_OK, b"acme/alice", b"acme", b"submit", b"0", b"")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost, match=r"has not proved|message after|attributes"):
            await client.echo(b"")
        assert await server.hears() == ("end",)


async def test_a_connection_that_breaks_in_the_middle_of_a_login_is_only_lost(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with logged_in(HOUR) as (server, client):
        mock_clock.jump(0.8 * HOUR)
        await offer(server)
        await server.hears()
        await server.hangs_up()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost, match="closed the connection"):
            await client.echo(b"")
        mock_clock.jump(HOUR)


async def test_a_job_goes_on_while_its_worker_logs_in_again(
    mock_clock: trio.testing.MockClock,
) -> None:
    worker = trigear.Worker(heartbeat=None)
    go_on = trio.Event()

    @worker.function("f")
    async def handler(job: trigear.WorkerJob) -> bytes:
        await go_on.wait()
        return b"done"

    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(worker.run, place, auth=AUTH))
        server = await place.accepts()
        await let_in(server, HOUR)
        assert (await server.hears())[0] == "SET_CLIENT_ID"
        await server.expects(("OPTION_REQ", b"trigear"))
        await server.says(OPTION_RES, b"trigear")
        await server.expects(("CAN_DO", b"f"), ("ECHO_REQ", b""))
        await server.says(ECHO_RES, b"")
        await assign(server)
        mock_clock.jump(0.8 * HOUR)
        await let_in(server, HOUR)
        go_on.set()
        await server.expects(("WORK_COMPLETE", H, b"done"), ("GRAB_JOB_UNIQ",))
        nursery.cancel_scope.cancel()
        await server.hangs_up()


async def test_a_worker_whose_login_has_ended_finishes_what_it_has(
    mock_clock: trio.testing.MockClock,
) -> None:
    """Anything else that it says would make the server hang up, and the job would be lost."""
    worker = trigear.Worker(max_jobs=2)
    go_on = trio.Event()

    @worker.function("f")
    async def handler(job: trigear.WorkerJob) -> bytes:
        await go_on.wait()
        return b"done"

    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(worker.run, place, auth=AUTH))
        server = await place.accepts()
        await let_in(server, HOUR)
        assert (await server.hears())[0] == "SET_CLIENT_ID"
        await server.expects(("OPTION_REQ", b"trigear"))
        await server.says(OPTION_RES, b"trigear")
        await server.expects(("CAN_DO", b"f"), ("ECHO_REQ", b""))
        await server.says(ECHO_RES, b"")
        await assign(server)
        await server.expects(("GRAB_JOB_UNIQ",))
        await server.says(NO_JOB)
        await server.expects(("PRE_SLEEP",))
        for share in (0.8, 0.1):
            mock_clock.jump(share * HOUR)
            await turn_away(server)
            await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(0.1 * HOUR)
        assert await silent(server)
        beats = len(server.beats)
        mock_clock.jump(50)
        assert await silent(server)
        await server.says(NOOP)  # it was on its way
        assert await silent(server)
        assert len(server.beats) == beats
        go_on.set()
        await server.expects(("WORK_COMPLETE", H, b"done"), ("end",))
        await server.hangs_up()
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1)
        server = await place.accepts()  # it comes back
        await let_in(server)
        nursery.cancel_scope.cancel()
        await server.hangs_up()


async def test_who_has_not_logged_in_passes_over_what_is_said_of_logins(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A certificate may have said who it is, and it has an end."""
    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            server = await place.accepts()
            await server.expects(("OPTION_REQ", b"exceptions"), ("OPTION_REQ", b"trigear"))
            await server.says(OPTION_RES, b"exceptions")
            await server.says(OPTION_RES, b"trigear")
            await server.says(SASL_EXPIRING, b"60000")
            await server.expects(("ECHO_REQ", b"x"))
            await server.says(ECHO_RES, b"x")
            await server.hears()
            await server.hangs_up()

        nursery.start_soon(serve)
        async with connect_to([Place("here", place)], patience=0) as client:
            assert await client.echo(b"x") == b"x"
    assert "here: this connection ends in 60.0 s" in caplog.text
