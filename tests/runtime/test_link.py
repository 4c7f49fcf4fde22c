"""A link: what waits is sent at once, failures are stored, and nobody ever sees a group."""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.runtime.scripted import ScriptedServer, scripted
from trigear.errors import ConnectionLost, RemoteProtocolError, TrigearInternalError
from trigear.protocol.client import ClientConnection
from trigear.protocol.events import Created, Echoed, Event
from trigear.runtime.address import Address
from trigear.runtime.link import (
    FLUSH_GRACE,
    Link,
    broken,
    hidden_nursery,
    joined,
    open_link,
    open_stream,
)
from trigear.wire.codec import request, response
from trigear.wire.packets import ECHO_REQ, ECHO_RES, JOB_CREATED, NOOP

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Owner:
    """Whoever uses a link, and what they were told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ends: list[ConnectionLost] = []
        self.deliver: Callable[[Event], None] = self.events.append

    @asynccontextmanager
    async def link(self, stream: trio.abc.Stream) -> AsyncIterator[Link[ClientConnection]]:
        async with open_link(
            stream,
            ClientConnection(),
            "the server",
            deliver=lambda event: self.deliver(event),
            ended=self.ends.append,
        ) as link:
            yield link


async def test_events_are_delivered_in_order() -> None:
    near, server = scripted()
    owner = Owner()
    async with owner.link(near) as link:
        one, two = link.machine.submit(b"f", b"1"), link.machine.echo(b"x")
        link.kick()
        await server.expects(("SUBMIT_JOB", b"f", b"", b"1"), ("ECHO_REQ", b"x"))
        await server.sends(response(JOB_CREATED, b"H:1") + response(ECHO_RES, b"x"))
        await trio.testing.wait_all_tasks_blocked()
        assert owner.events == [Created(one, b"H:1"), Echoed(two, b"x")]
        await server.hangs_up()


async def test_what_waits_is_sent_with_one_call() -> None:
    near, server = scripted()
    calls = 0

    async def count() -> None:
        nonlocal calls
        calls += 1

    assert isinstance(near.send_stream, trio.testing.MemorySendStream)
    near.send_stream.send_all_hook = count
    async with Owner().link(near) as link:
        for number in range(500):
            link.machine.echo(b"%d" % number)
            link.kick()
        await trio.testing.wait_all_tasks_blocked()
        assert calls == 1
        await server.hangs_up()


def test_small_pieces_are_joined_and_large_ones_are_not_copied() -> None:
    large = bytes(100_000)
    pieces = list(joined([b"a", b"b", large, b"c"]))
    assert pieces == [b"ab", large, b"c"]
    assert pieces[1] is large
    assert list(joined([large])) == [large]
    assert list(joined([])) == []


async def test_an_answer_of_the_machine_itself_is_sent_without_a_kick() -> None:
    near, server = scripted()
    owner = Owner()
    async with owner.link(near) as link:

        def answer(event: Event) -> None:
            link.machine.echo(b"again")

        owner.deliver = answer
        link.machine.echo(b"first")
        link.kick()
        await server.expects(("ECHO_REQ", b"first"))
        await server.says(ECHO_RES, b"first")
        await server.expects(("ECHO_REQ", b"again"))
        await server.hangs_up()


# The end


async def end_by(how: Callable[[ScriptedServer], object], said: bytes = b"") -> ConnectionLost:
    """The reason that a link gives when its server ends like this."""
    near, server = scripted()
    owner = Owner()
    async with owner.link(near) as link:
        link.machine.echo(b"x")
        link.kick()
        await server.hears()
        if said:
            await server.sends(said)
        await server.hangs_up()
        failure = await link.wait_over()
        assert owner.ends == [failure]
        assert link.failure is failure
        with pytest.raises(ConnectionLost) as caught:
            link.check()
        assert caught.value is not failure
        assert str(caught.value) == str(failure)
    return failure


async def test_the_end_of_the_stream_is_a_lost_connection() -> None:
    assert str(await end_by(ScriptedServer.hangs_up)) == "the server closed the connection"


async def test_the_end_may_come_in_the_middle_of_a_packet() -> None:
    failure = await end_by(ScriptedServer.hangs_up, response(ECHO_RES, b"x" * 50)[:-1])
    assert str(failure) == "the server closed the connection in the middle of a packet"


async def test_a_broken_protocol_ends_the_link_and_says_why() -> None:
    failure = await end_by(ScriptedServer.hangs_up, response(NOOP))
    assert str(failure) == (
        "the server broke the protocol: the server sent NOOP, which is not for a client;"
        " is it a Gearman server?"
    )
    assert isinstance(failure.__cause__, RemoteProtocolError)


async def test_what_came_before_the_end_is_delivered() -> None:
    near, server = scripted()
    owner = Owner()
    async with owner.link(near) as link:
        token = link.machine.echo(b"x")
        await server.says(ECHO_RES, b"x")
        await server.hangs_up()
        await link.wait_over()
    assert owner.events == [Echoed(token, b"x")]


async def test_a_peer_that_is_gone_when_we_write_is_a_lost_connection() -> None:
    near, server = scripted()
    async with Owner().link(near) as link:
        await server.hangs_up()
        await link.wait_over()
        link.machine.echo(b"x")
        link.kick()
        await trio.testing.wait_all_tasks_blocked()


async def test_a_stream_that_fails_to_send_ends_the_link(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Deaf(trio.abc.Stream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError from OSError(errno.EPIPE, "Broken pipe")

        async def wait_send_all_might_not_block(self) -> None:
            raise NotImplementedError

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            await trio.sleep_forever()
            raise AssertionError

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    async with Owner().link(Deaf()) as link:
        link.machine.echo(b"x")
        link.kick()
        failure = await link.wait_over()
    assert str(failure) == "the connection to the server broke: Broken pipe"
    assert isinstance(failure.__cause__, OSError)


async def test_a_stream_that_fails_to_receive_ends_the_link() -> None:
    near, _ = scripted()

    async def fail() -> None:
        raise trio.BrokenResourceError("reset")

    assert isinstance(near.receive_stream, trio.testing.MemoryReceiveStream)
    near.receive_stream.receive_some_hook = fail
    async with Owner().link(near) as link:
        failure = await link.wait_over()
    assert str(failure) == "the connection to the server broke: reset"


def test_a_failure_without_words_has_none() -> None:
    assert str(broken("x", trio.BrokenResourceError())) == "the connection to x broke"


# Leaving


async def test_what_is_queued_is_sent_before_the_link_is_left() -> None:
    near, server = scripted()
    async with trio.open_nursery() as nursery:

        async def leave() -> None:
            async with Owner().link(near) as link:
                link.machine.echo(b"last words")

        nursery.start_soon(leave)
        await server.expects(("ECHO_REQ", b"last words"), ("end",))
        await server.hangs_up()


async def test_what_is_queued_is_sent_even_if_the_body_was_cancelled() -> None:
    near, server = scripted()
    async with trio.open_nursery() as nursery:

        async def leave() -> None:
            with trio.CancelScope() as scope:
                async with Owner().link(near) as link:
                    link.machine.echo(b"last words")
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught

        nursery.start_soon(leave)
        await server.expects(("ECHO_REQ", b"last words"), ("end",))
        await server.hangs_up()


async def test_a_peer_that_does_not_read_cannot_hold_up_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, _ = trio.testing.lockstep_stream_pair()
    start = trio.current_time()
    async with Owner().link(near) as link:
        link.machine.echo(b"never read")
        link.kick()
    assert trio.current_time() - start == pytest.approx(FLUSH_GRACE)


async def test_a_peer_that_does_not_close_cannot_hold_up_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, _ = scripted()
    start = trio.current_time()
    async with Owner().link(near):
        pass
    assert trio.current_time() - start == pytest.approx(FLUSH_GRACE)


async def test_a_link_that_was_left_is_closed() -> None:
    near, server = scripted()
    owner = Owner()
    async with owner.link(near) as link:
        await server.hangs_up()
    with pytest.raises(trio.ClosedResourceError):
        link.check()


async def test_nothing_is_delivered_while_leaving() -> None:
    near, server = scripted()
    owner = Owner()
    async with trio.open_nursery() as nursery:

        async def leave() -> None:
            async with owner.link(near) as link:
                link.machine.echo(b"x")

        nursery.start_soon(leave)
        await server.expects(("ECHO_REQ", b"x"), ("end",))
        await server.says(ECHO_RES, b"x")
        await server.hangs_up()
    assert owner.events == []


# Back-pressure


async def test_a_producer_waits_until_the_peer_reads() -> None:
    near, far = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery, Owner().link(near) as link:
        done = []

        async def produce() -> None:
            for number in range(3):
                link.machine.echo(b"%d" % number)
                link.kick()
                await link.taken()
                done.append(number)

        nursery.start_soon(produce)
        await trio.testing.wait_all_tasks_blocked()
        assert done == [0]  # on its way, though nobody has read it; the second one waits
        got = b""
        while len(got) < 3 * 13:
            got += await far.receive_some()
        assert got == b"".join(request(ECHO_REQ, b"%d" % number) for number in range(3))
        await trio.testing.wait_all_tasks_blocked()
        assert done == [0, 1, 2]
        await far.aclose()


async def test_a_producer_is_told_that_the_connection_broke(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery, Owner().link(near) as link:

        async def forever() -> None:
            while True:
                link.machine.echo(b"x")
                link.kick()
                await link.taken()

        async def produce() -> None:
            with pytest.raises(ConnectionLost):
                await forever()

        nursery.start_soon(produce)
        await trio.testing.wait_all_tasks_blocked()
        await far.aclose()
        await link.wait_over()
        await trio.testing.wait_all_tasks_blocked()


async def test_a_producer_does_not_wait_for_a_peer_that_was_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, _ = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:

        async def forever() -> None:
            while True:
                link.machine.echo(b"x")
                link.kick()
                await link.taken()

        async def produce() -> None:
            with pytest.raises(ConnectionLost, match="closed by its own side"):
                await forever()

        async with Owner().link(near) as link:
            nursery.start_soon(produce)
            await trio.testing.wait_all_tasks_blocked()


# One exception, not a group


async def raised_through(
    body: Callable[[trio.Nursery], object] | None = None,
    task: Callable[[], object] | None = None,
) -> BaseException | None:
    try:
        async with hidden_nursery() as nursery:
            if task is not None:
                nursery.start_soon(_run, task)
                await trio.testing.wait_all_tasks_blocked()
            if body is not None:
                body(nursery)
            nursery.cancel_scope.cancel()
    except BaseException as error:
        return error
    return None


async def _run(task: Callable[[], object]) -> None:
    await trio.lowlevel.checkpoint()
    task()


def throw(error: BaseException) -> Callable[..., object]:
    def thrower(*_: object) -> object:
        raise error

    return thrower


async def test_the_bodys_exception_leaves_bare() -> None:
    cause, context = KeyError("cause"), LookupError("context")
    mine = ValueError("mine")
    mine.__cause__, mine.__context__ = cause, context
    caught = await raised_through(body=throw(mine))
    assert caught is mine
    assert caught.__cause__ is cause
    assert caught.__context__ is context


async def test_the_bodys_own_group_leaves_as_it_is() -> None:
    mine = ExceptionGroup("mine", [ValueError(), ExceptionGroup("inner", [KeyError()])])
    assert await raised_through(body=throw(mine)) is mine


async def test_a_bug_in_a_background_task_is_called_one() -> None:
    caught = await raised_through(task=throw(ZeroDivisionError("oops")))
    assert isinstance(caught, TrigearInternalError)
    assert "ZeroDivisionError('oops')" in str(caught)
    assert isinstance(caught.__cause__, ExceptionGroup)


async def test_a_background_task_may_end_the_program() -> None:
    end = SystemExit(3)
    assert await raised_through(task=throw(end)) is end


async def test_an_exception_wins_over_a_cancellation_from_outside() -> None:
    near, server = scripted()
    await server.hangs_up()
    with trio.CancelScope() as scope:

        async def cancel_and_raise() -> None:
            async with Owner().link(near):
                scope.cancel()
                raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            await cancel_and_raise()
        assert scope.cancel_called


async def test_a_cancellation_from_outside_lands_outside() -> None:
    near, server = scripted()
    await server.hangs_up()
    with trio.CancelScope() as scope:
        try:
            async with Owner().link(near):
                scope.cancel()
                await trio.sleep_forever()
        except trio.Cancelled:
            bare = True
            raise
    assert scope.cancelled_caught
    assert bare


async def test_a_cancellation_that_only_the_nursery_sees_lands_outside_bare() -> None:
    with trio.CancelScope() as scope:
        try:
            async with hidden_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
        except trio.Cancelled:
            bare = True
            raise
    assert bare


# Connecting


async def test_a_refused_connection_says_where_and_what_next() -> None:
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with pytest.raises(ConnectionLost) as caught:
        await open_stream(Address("127.0.0.1", port))
    assert str(caught.value) == (
        f"no connection to 127.0.0.1:{port}: Connection refused; is a server running there?"
    )
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    listener.close()


async def test_a_missing_unix_socket_says_where_and_what_next(tmp_path: object) -> None:
    with pytest.raises(ConnectionLost, match=r"no connection to unix:.*No such file") as caught:
        await open_stream(Address(path=f"{tmp_path}/none.sock"))
    assert isinstance(caught.value.__cause__, FileNotFoundError)


async def test_a_unix_socket_can_be_connected_to(tmp_path: object) -> None:
    path = f"{tmp_path}/here.sock"
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    await listener.bind(path)
    listener.listen()
    stream = await open_stream(Address(path=path))
    await stream.aclose()
    listener.close()
