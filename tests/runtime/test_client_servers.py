"""A client of several servers: which one is chosen, and what happens when one goes away."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.runtime.calls import Call, Lot, client_of, greeted
from tests.runtime.scripted import ScriptedPlace, ScriptedServer
from trigear.errors import ConnectionLost, JobLost, LocalProtocolError
from trigear.protocol.choice import home_of
from trigear.runtime.backoff import LEAST, MOST, STEADY_SECONDS
from trigear.runtime.client import connect, connect_to
from trigear.runtime.pool import ATTEMPT_SECONDS, Place
from trigear.runtime.values import JobStatus
from trigear.wire.codec import response
from trigear.wire.packets import (
    ECHO_RES,
    JOB_CREATED,
    STATUS_RES,
    STATUS_RES_UNIQUE,
    WORK_COMPLETE,
)

if TYPE_CHECKING:
    from trio.testing import MockClock

H = b"H:here:1"


def unique_for(number: int, servers: int) -> bytes:
    """A unique whose home is this server."""
    return next(
        unique
        for unique in (b"u%d" % count for count in range(1000))
        if home_of(unique, b"", servers) == number
    )


async def echoes(server: ScriptedServer, data: bytes = b"x") -> None:
    await server.expects(("ECHO_REQ", data))
    await server.says(ECHO_RES, data)


# Which server


@pytest.mark.parametrize("first", [0, 1, 2])
async def test_what_has_no_unique_goes_to_the_server_drawn_by_lot(
    autojump_clock: MockClock, first: int
) -> None:
    places = [ScriptedPlace() for _ in range(3)]
    async with client_of(*places, first=first) as client, trio.open_nursery() as nursery:
        server = await greeted(places[first])
        for _ in range(3):
            call = Call(nursery, lambda: client.echo(b"x"))
            await echoes(server)
            assert await call.outcome() == b"x"
        assert [place.attempts for place in places] == [int(n == first) for n in range(3)]


@pytest.mark.parametrize("home", [0, 1, 2])
async def test_a_unique_goes_to_its_home(autojump_clock: MockClock, home: int) -> None:
    places = [ScriptedPlace() for _ in range(3)]
    unique = unique_for(home, 3)
    async with client_of(*places) as client, trio.open_nursery() as nursery:
        calls = [
            Call(nursery, lambda: client.submit("f", b"", unique=unique)),
            Call(nursery, lambda: client.submit_background("f", unique, unique="-")),
            Call(nursery, lambda: client.status_of_unique(unique)),
        ]
        server = await greeted(places[home])
        heard = {(await server.hears())[:3] for _ in calls}
        assert heard == {
            ("SUBMIT_JOB", b"f", unique),
            ("SUBMIT_JOB_BG", b"f", b"-"),
            ("GET_STATUS_UNIQUE", unique),
        }
        nursery.cancel_scope.cancel()


async def test_the_next_server_in_the_list_stands_in_for_one_that_is_down(
    autojump_clock: MockClock,
) -> None:
    places = [ScriptedPlace() for _ in range(3)]
    places[1].closed = True
    unique = unique_for(1, 3)
    async with client_of(*places) as client, trio.open_nursery() as nursery:
        call = Call(nursery, lambda: client.submit_background("f", b"w", unique=unique))
        stand_in = await greeted(places[2])
        await stand_in.expects(("SUBMIT_JOB_BG", b"f", unique, b"w"))
        await stand_in.says(JOB_CREATED, H)
        assert await call.outcome() == H
        # When its home is up again, the unique goes home.
        places[1].closed = False
        home = await greeted(places[1])
        call = Call(nursery, lambda: client.submit_background("f", b"w", unique=unique))
        await home.expects(("SUBMIT_JOB_BG", b"f", unique, b"w"))
        await home.says(JOB_CREATED, H)
        assert await call.outcome() == H


async def test_a_server_that_does_not_answer_is_given_up_after_a_while(
    autojump_clock: MockClock,
) -> None:
    async def hangs() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    place = ScriptedPlace()
    start = trio.current_time()
    async with connect_to([Place("a", hangs), Place("b", place)], rng=Lot()) as client:
        assert trio.current_time() - start == pytest.approx(ATTEMPT_SECONDS)
        server = await greeted(place)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.echo, b"x")
            await echoes(server)
    with pytest.raises(ConnectionLost, match="no connection to a: no answer within 10 s"):
        async with connect_to([Place("a", hangs)]):
            raise AssertionError


async def test_entering_fails_if_no_server_can_be_reached(autojump_clock: MockClock) -> None:
    places = [ScriptedPlace(), ScriptedPlace()]
    for place in places:
        place.closed = True
    with pytest.raises(ConnectionLost) as caught:
        async with client_of(*places, patience=math.inf):
            raise AssertionError
    assert str(caught.value) == "none of 2 servers can be reached: nobody there; nobody there"
    assert not caught.value.in_doubt
    assert [place.attempts for place in places] == [1, 1]
    with pytest.raises(ConnectionLost, match=r"^nobody there$"):
        async with client_of(places[0]):
            raise AssertionError


async def test_a_name_that_is_none_and_patience_that_is_none_are_refused_on_entering(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(LocalProtocolError, match="client id"):
        async with connect("localhost", client_id="two words"):
            raise AssertionError
    for patience in (-1, math.nan):
        with pytest.raises(ValueError, match="a number of seconds is needed"):
            async with connect("localhost", patience=patience):
                raise AssertionError


async def test_a_host_name_that_cannot_be_one_is_a_lost_connection(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(ConnectionLost, match="no machine has such a name"):
        async with connect("x" * 64 + ".example"):
            raise AssertionError


# Reconnecting


async def test_a_call_waits_for_a_server_that_comes_back(autojump_clock: MockClock) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        start = trio.current_time()
        await server.hangs_up()
        await trio.testing.wait_all_tasks_blocked()
        call = Call(nursery, lambda: client.echo(b"x"))
        server = await greeted(place)
        assert trio.current_time() - start == pytest.approx(LEAST)
        await echoes(server)
        assert await call.outcome() == b"x"


async def test_new_attempts_keep_ever_more_distance(autojump_clock: MockClock) -> None:
    times: list[float] = []

    async def refuses() -> trio.abc.Stream:
        times.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        raise ConnectionLost("not now")

    async with connect_to([Place("a", refuses), Place("b", ScriptedPlace())], rng=Lot()):
        await trio.sleep(100)
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    bounds = [min(LEAST * 2**step, MOST) for step in range(len(waits))]
    assert waits == pytest.approx(bounds)
    assert waits[-1] == pytest.approx(MOST)


@pytest.mark.parametrize(("lived", "wait"), [(0, 2 * LEAST), (STEADY_SECONDS, LEAST)])
async def test_only_a_connection_that_has_held_is_made_again_soon(
    autojump_clock: MockClock, lived: float, wait: float
) -> None:
    place = ScriptedPlace()
    async with client_of(place):
        server = await greeted(place)
        await server.hangs_up()
        server = await greeted(place)
        await trio.sleep(lived)
        start = trio.current_time()
        await server.hangs_up()
        await greeted(place)
        assert trio.current_time() - start == pytest.approx(wait)


@pytest.mark.parametrize("patience", [0, 3, 10])
async def test_patience_ends(autojump_clock: MockClock, patience: float) -> None:
    place = ScriptedPlace()
    async with client_of(place, patience=patience) as client:
        server = await greeted(place)
        place.closed = True
        await server.hangs_up()
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        with pytest.raises(ConnectionLost) as caught:
            await client.submit("f", b"w")
        assert trio.current_time() - start == pytest.approx(patience)
        assert not caught.value.in_doubt
        assert str(caught.value) in ("a closed the connection", "nobody there")


async def test_patience_may_be_without_end(autojump_clock: MockClock) -> None:
    place = ScriptedPlace()
    async with client_of(place, patience=math.inf) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        place.closed = True
        await server.hangs_up()
        await trio.testing.wait_all_tasks_blocked()
        call = Call(nursery, lambda: client.echo(b"x"))
        await trio.sleep(3600)
        place.closed = False
        await echoes(await greeted(place))
        assert await call.outcome() == b"x"


async def test_the_callers_deadline_ends_the_waiting_for_a_server(
    autojump_clock: MockClock,
) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client:
        server = await greeted(place)
        place.closed = True
        await server.hangs_up()
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1) as scope:
            await client.echo(b"x")
        assert scope.cancelled_caught


# What was under way


@pytest.mark.parametrize("created", [True, False])
async def test_nothing_is_submitted_twice_on_its_own(
    autojump_clock: MockClock, created: bool
) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        call = Call(nursery, lambda: client.submit("f", b"w", unique="u"))
        await server.hears()
        if created:
            await server.says(JOB_CREATED, H)
        await server.hangs_up()
        error = await call.outcome()
        if created:
            assert isinstance(error, JobLost)
            assert error.handle == H
        else:
            assert isinstance(error, ConnectionLost)
            assert error.in_doubt
        server = await greeted(place)
        probe = Call(nursery, lambda: client.echo(b"next"))
        await echoes(server, b"next")
        await probe.outcome()


@pytest.mark.parametrize("created", [True, False])
async def test_a_job_with_a_unique_is_submitted_again_on_demand(
    autojump_clock: MockClock, created: bool
) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        call = Call(nursery, lambda: client.submit("f", b"w", unique="u", resubmit=True))
        for _ in range(3):
            server = await greeted(place)
            await server.expects(("SUBMIT_JOB", b"f", b"u", b"w"))
            if created:
                await server.says(JOB_CREATED, H)
            await server.hangs_up()
        server = await greeted(place)
        await server.expects(("SUBMIT_JOB", b"f", b"u", b"w"))
        await server.sends(response(JOB_CREATED, H) + response(WORK_COMPLETE, H, b"done"))
        assert await call.outcome() == b"done"


async def test_a_background_job_whose_reply_was_lost_is_submitted_again_on_demand(
    autojump_clock: MockClock,
) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        call = Call(nursery, lambda: client.submit_background("f", b"w", unique="-", resubmit=True))
        server = await greeted(place)
        await server.expects(("SUBMIT_JOB_BG", b"f", b"-", b"w"))
        await server.hangs_up()
        server = await greeted(place)
        await server.expects(("SUBMIT_JOB_BG", b"f", b"-", b"w"))
        await server.says(JOB_CREATED, H)
        assert await call.outcome() == H


@pytest.mark.parametrize("kind", ["submit", "submit_background"])
async def test_submitting_again_ends_with_the_patience(
    autojump_clock: MockClock, kind: str
) -> None:
    place = ScriptedPlace()
    async with client_of(place, patience=5) as client, trio.open_nursery() as nursery:
        submit = client.submit if kind == "submit" else client.submit_background
        call = Call(nursery, lambda: submit("f", b"w", unique="u", resubmit=True))
        server = await greeted(place)
        await server.hears()
        place.closed = True
        await server.hangs_up()
        error = await call.outcome()
        assert isinstance(error, ConnectionLost)
        assert not error.in_doubt


@pytest.mark.parametrize("unique", [b"", b"-"])
async def test_submitting_again_needs_a_unique(autojump_clock: MockClock, unique: bytes) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client:
        for submit in client.submit, client.submit_background:
            with pytest.raises(ValueError, match="resubmit=True needs a unique"):
                await submit("f", b"", unique=unique, resubmit=True)


# Questions to several servers


async def test_a_job_is_looked_for_at_every_server(autojump_clock: MockClock) -> None:
    places = [ScriptedPlace(), ScriptedPlace(), ScriptedPlace()]
    async with client_of(*places, first=1) as client, trio.open_nursery() as nursery:
        call = Call(nursery, lambda: client.status(H))
        for number, known in ((1, b"0"), (2, b"1")):
            server = await greeted(places[number])
            await server.expects(("GET_STATUS", H))
            await server.says(STATUS_RES, H, known, known, b"1", b"2")
        assert await call.outcome() == JobStatus(True, True, 1, 2)
        assert places[0].attempts == 0


async def test_a_job_that_no_server_knows_is_not_known(autojump_clock: MockClock) -> None:
    places = [ScriptedPlace(), ScriptedPlace()]
    async with client_of(*places) as client, trio.open_nursery() as nursery:
        call = Call(nursery, lambda: client.status_of_unique(unique_for(1, 2)))
        for number in (1, 0):
            server = await greeted(places[number])
            assert (await server.hears())[0] == "GET_STATUS_UNIQUE"
            await server.says(STATUS_RES_UNIQUE, b"u", b"0", b"0", b"0", b"0", b"0")
        assert await call.outcome() == JobStatus(False, False, 0, 0, 0)


async def test_a_server_that_is_down_may_know_the_job(autojump_clock: MockClock) -> None:
    places = [ScriptedPlace(), ScriptedPlace()]
    places[1].closed = True
    async with client_of(*places) as client, trio.open_nursery() as nursery:
        call = Call(nursery, lambda: client.status(H))
        server = await greeted(places[0])
        await server.expects(("GET_STATUS", H))
        await server.says(STATUS_RES, H, b"0", b"0", b"0", b"0")
        error = await call.outcome()
        assert isinstance(error, ConnectionLost)
        assert str(error) == "nobody there; the others do not know the job"


# Leaving


async def test_whoever_still_waits_when_the_client_is_left_is_told(
    autojump_clock: MockClock,
) -> None:
    place, other = ScriptedPlace(), ScriptedPlace()
    never = trio.Event()

    async def hangs() -> trio.abc.Stream:
        await never.wait()
        raise AssertionError

    places = [Place("a", place), Place("b", hangs), Place("c", other)]
    async with trio.open_nursery() as nursery:
        async with connect_to(places, rng=Lot()) as client:
            server = await greeted(place)
            waits = [
                Call(nursery, lambda: client.submit("f", b"w")),
                Call(nursery, lambda: client.echo(b"x")),
                Call(nursery, lambda: client.submit("f", b"", unique=unique_for(1, 3))),
            ]
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(server.hangs_up)
        for call in waits:
            assert isinstance(await call.outcome(), trio.ClosedResourceError)
        with pytest.raises(trio.ClosedResourceError):
            await client.echo(b"x")


async def test_what_a_body_does_while_it_is_cancelled_still_reaches_the_server(
    autojump_clock: MockClock,
) -> None:
    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:

        async def use() -> None:
            with trio.CancelScope() as scope:
                async with client_of(place) as client:
                    scope.cancel()
                    with trio.move_on_after(5, shield=True):
                        assert await client.submit_background("log", b"leaving") == H

        nursery.start_soon(use)
        server = await greeted(place)
        await server.expects(("SUBMIT_JOB_BG", b"log", b"", b"leaving"))
        await server.says(JOB_CREATED, H)
        assert await server.hears() == ("end",)
        await server.hangs_up()
