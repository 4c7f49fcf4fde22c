"""The hub over real sockets: who is read when, what is sent when, and every way to end."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing

from tests.engine.world import packet
from tests.runtime.wired import (
    LARGE,
    PAIRS,
    SMALL,
    Pair,
    Room,
    Wire,
    choke,
    open_room,
    socketpair,
    tcp_pair,
)
from trigear.engine.config import EngineConfig
from trigear.engine.engine import TURN
from trigear.model import CloseReason
from trigear.runtime import hub
from trigear.wire.codec import HEADER_SIZE, request
from trigear.wire.packets import ECHO_REQ


class Counted(socket.socket):
    """A socket that counts the calls that send."""

    sends = 0

    def send(self, data: Any, *args: int) -> int:
        self.sends += 1
        return super().send(data, *args)

    def sendmsg(self, *args: Any) -> int:
        self.sends += 1
        return super().sendmsg(*args)


def counted_pair() -> tuple[Counted, socket.socket]:
    near, far = socket.socketpair()
    return Counted(fileno=near.detach()), far


# Serving


@PAIRS
async def test_what_is_asked_is_answered(pair: Pair) -> None:
    async with open_room() as room:
        one, two = room.wire(pair), room.wire(pair)
        assert await one.ask("ECHO_REQ", b"1") == ("ECHO_RES", b"1")
        assert await two.command(b"version") == ("text", b"OK ")
        await one.tell("CAN_DO", b"f")
        handle = await two.submit()
        assert await one.grab() == handle
        await one.tell("WORK_COMPLETE", handle, b"r")
        assert await two.next() == ("WORK_COMPLETE", handle, b"r")
        assert len(room.hub) == 2


async def test_packets_may_arrive_in_any_pieces() -> None:
    async with open_room() as room:
        wire = room.wire()
        for byte in packet("ECHO_REQ", b"x") + b"version\r\n":
            await wire.send(bytes([byte]))
            await room.settled()
        assert await wire.next() == ("ECHO_RES", b"x")
        assert await wire.next() == ("text", b"OK ")


@PAIRS
@pytest.mark.slow
async def test_a_large_workload_passes_unharmed_both_ways(pair: Pair) -> None:
    workload = os.urandom(1 << 20) * 20
    async with open_room() as room:
        client, worker = room.wire(pair), room.wire(pair)
        await worker.tell("CAN_DO", b"f")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.tell, "SUBMIT_JOB", b"f", b"", workload)
            _, handle = await client.next()
        await worker.tell("GRAB_JOB")
        assert await worker.next() == ("JOB_ASSIGN", handle, b"f", workload)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.tell, "WORK_COMPLETE", handle, workload[::-1])
            assert await client.next() == ("WORK_COMPLETE", handle, workload[::-1])
        assert await worker.ask("ECHO_REQ", b"on") == ("ECHO_RES", b"on")


# Writing


async def test_the_answers_of_a_pass_leave_in_one_send() -> None:
    async with open_room() as room:
        near, far = counted_pair()
        room.hub.add(near, "-")
        wire = Wire(far)
        await wire.send(packet("ECHO_REQ", b"x") * TURN)
        for _ in range(TURN):
            assert await wire.next() == ("ECHO_RES", b"x")
        assert near.sends == 1


async def test_what_others_cause_in_a_pass_leaves_in_one_send() -> None:
    async with open_room() as room:
        near, far = counted_pair()
        room.hub.add(near, "-")
        client = Wire(far)
        worker = await room.worker()
        handles = [await client.submit() for _ in range(5)]
        for _ in handles:
            await worker.grab()
        before = near.sends
        await worker.send(b"".join(packet("WORK_COMPLETE", handle, b"r") for handle in handles))
        for handle in handles:
            assert await client.next() == ("WORK_COMPLETE", handle, b"r")
        assert near.sends == before + 1


async def test_large_answers_are_not_joined_and_arrive_in_order() -> None:
    words = [bytes([number]) * hub.JOIN_LIMIT for number in range(2 * hub.GATHER)]
    async with open_room() as room:
        wire = room.wire()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.send, b"".join(packet("ECHO_REQ", word) for word in words))
            for word in words:
                assert await wire.next() == ("ECHO_RES", word)


async def test_what_does_not_fit_waits_and_what_follows_waits_behind_it() -> None:
    async with open_room(SMALL) as room:
        wire = room.wire()
        await choke(wire, room)
        (link,) = room.hub._links.values()
        assert link.writing
        unsent = link.unsent
        await wire.send(packet("ECHO_REQ", b"behind"))
        await room.settled()
        assert link.unsent == unsent, "not even read"
        assert await wire.next() == ("ECHO_RES", LARGE)
        assert await wire.next() == ("ECHO_RES", b"behind")
        assert room.hub.quiet


# Ends


@PAIRS
async def test_a_peer_that_leaves_is_gone(pair: Pair) -> None:
    async with open_room() as room:
        wire, other = room.wire(pair), room.wire(pair)
        await wire.ask("ECHO_REQ", b"x")
        await wire.close()
        await room.settled()
        assert room.closed == {CloseReason.PEER_CLOSED: 1}
        assert len(room.hub) == 1
        assert await other.ask("ECHO_REQ", b"on") == ("ECHO_RES", b"on")


async def test_a_peer_that_vanishes_is_gone() -> None:
    async with open_room() as room:
        wire = room.wire(tcp_pair)
        await wire.ask("ECHO_REQ", b"x")
        await wire.reset()
        await room.settled()
        assert room.closed == {CloseReason.PEER_RESET: 1}
        assert len(room.hub) == 0


@PAIRS
@pytest.mark.parametrize("part", [b"\0RE", packet("ECHO_REQ", b"xyz")[:-1], b"stat"])
async def test_a_peer_that_dies_in_the_middle_of_a_packet_is_gone(pair: Pair, part: bytes) -> None:
    async with open_room() as room:
        wire, other = room.wire(pair), room.wire(pair)
        await wire.send(packet("ECHO_REQ", b"x") + part)
        await wire.next()
        await wire.close()
        await room.settled()
        assert room.closed == {CloseReason.MID_PACKET: 1}
        assert len(room.hub) == 1
        assert await other.ask("ECHO_REQ", b"on") == ("ECHO_RES", b"on")


@PAIRS
@pytest.mark.parametrize("count", [1, 3, 5000])
async def test_who_closes_only_its_own_side_gets_all_answers_and_then_the_end(
    pair: Pair, count: int
) -> None:
    """The shape of a command piped into a network tool. 5000 echoes are several reads and turns."""
    async with open_room() as room:
        wire = room.wire(pair)
        question = packet("ECHO_REQ", b"x" * 40) * count + b"status\n"
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                await wire.send(question)
                await wire.stream.send_eof()

            answer = await wire.rest()
        assert answer == packet("ECHO_REQ", b"x" * 40).replace(
            b"\0REQ\0\0\0\x10", b"\0RES\0\0\0\x11"
        ) * (count) + (b".\n")
        await room.settled()
        assert room.closed == {CloseReason.PEER_CLOSED: 1}
        assert len(room.hub) == 0


async def test_a_command_line_tool_of_the_system_gets_its_answer() -> None:
    """The same with a real shell and a real pipe."""
    async with open_room() as room:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            host, port = listener.getsockname()
            script = (
                f"exec 3<>/dev/tcp/{host}/{port}; printf 'status\\nversion\\n' >&3; head -n 2 <&3"
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_accept_one, listener, room)
                done = await trio.run_process(["bash", "-c", script], capture_stdout=True)
        assert done.stdout == b".\nOK \n"


async def _accept_one(listener: socket.socket, room: Room) -> None:
    await trio.lowlevel.wait_readable(listener)
    sock, _ = listener.accept()
    room.hub.add(sock, "-")


@PAIRS
async def test_a_dead_peer_is_noticed_while_it_is_not_read_after_what_it_had_said(
    pair: Pair,
) -> None:
    async with open_room(SMALL) as room:
        wire = room.wire(pair)
        await choke(wire, room)
        await wire.tell("SUBMIT_JOB_BG", b"f", b"", b"last words")
        polls = await room.settled()
        assert room.engine.statistics().jobs == 0, "it is not read"
        await wire.close()
        assert await room.settled() < polls + 20, "a dead peer must not keep the loop running"
        assert len(room.hub) == 0
        assert room.engine.statistics().jobs == 1
        assert room.closed.total() == 1
        assert await room.settled() < polls + 30


async def test_who_says_nonsense_and_goes_is_told_of_for_the_nonsense() -> None:
    async with open_room() as room:
        wire = room.wire()
        wire.sock.send(b"\0XYZ")
        wire.sock.shutdown(socket.SHUT_WR)
        await room.settled()
        assert room.closed == {CloseReason.BAD_MAGIC: 1}


async def test_who_does_not_want_to_hear_is_heard_all_the_same() -> None:
    async with open_room() as room:
        wire = room.wire()
        wire.sock.shutdown(socket.SHUT_RD)
        for _ in range(2):
            await wire.tell("SUBMIT_JOB_BG", b"f", b"", b"w")
            await room.settled()
        assert room.engine.statistics().jobs == 2
        await wire.close()
        await room.settled()
        assert len(room.hub) == 0


async def test_input_that_fills_a_read_exactly_is_handled() -> None:
    async with open_room() as room:
        wire = room.wire()
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        data = packet("ECHO_REQ", b"x" * (hub.READ_SIZE - HEADER_SIZE))
        assert wire.sock.send(data) == hub.READ_SIZE
        assert len((await wire.next())[1]) == hub.READ_SIZE - HEADER_SIZE
        await room.settled()
        assert await wire.ask("ECHO_REQ", b"on") == ("ECHO_RES", b"on")


async def test_a_half_closed_peer_that_does_not_read_waits_without_a_busy_loop() -> None:
    async with open_room(SMALL) as room:
        wire = room.wire()
        await choke(wire, room)
        await wire.tell("ECHO_REQ", b"behind")
        await wire.stream.send_eof()
        polls = await room.settled()
        for _ in range(10):
            assert await room.settled() < polls + 10
        assert len(room.hub) == 1
        assert await wire.next() == ("ECHO_RES", LARGE)
        assert await wire.next() == ("ECHO_RES", b"behind")
        assert await wire.rest() == b""
        await room.settled()
        assert len(room.hub) == 0


async def test_a_connection_that_idles_costs_no_round() -> None:
    async with open_room() as room:
        wires = [room.wire() for _ in range(50)]
        polls = await room.settled()
        for _ in range(10):
            assert await room.settled() == polls
        assert await wires[7].ask("ECHO_REQ", b"x") == ("ECHO_RES", b"x")
        assert await room.settled() <= polls + 4


# Last words


async def test_a_refusal_reaches_a_peer_that_is_still_writing() -> None:
    """Closing with input unread would reset the connection, and the refusal with it."""
    async with open_room(EngineConfig(max_packet=1024)) as room:
        wire = room.wire(tcp_pair)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def write() -> None:
                await wire.send(request(ECHO_REQ, b"x" * (32 << 20)))

            answer = await wire.next()
            assert answer[:2] == ("ERROR", b"DATA_TOO_LARGE")
            assert answer[2] == b"Packet of 33554432 bytes; the limit is 1024"
            assert await wire.is_over()
        assert room.closed == {CloseReason.TOO_LARGE: 1}
        await wire.close()
        await room.settled()
        assert len(room.hub) == 0


async def test_last_words_reach_a_peer_that_takes_its_time() -> None:
    async with open_room() as room:
        wire = room.wire()
        await wire.send(packet("ECHO_REQ", LARGE) + b"\0XYZ")
        await room.settled()
        assert room.closed == {CloseReason.BAD_MAGIC: 1}
        assert len(room.hub) == 1
        assert await wire.next() == ("ECHO_RES", LARGE)
        assert (await wire.next())[:2] == ("ERROR", b"INVALID_MAGIC")
        assert await wire.is_over()
        await wire.close()
        await room.settled()
        assert len(room.hub) == 0


@PAIRS
async def test_who_does_not_go_is_closed_when_its_time_is_over(
    pair: Pair, mock_clock: trio.testing.MockClock
) -> None:
    async with open_room() as room:
        silent, deaf = room.wire(pair), room.wire(pair)
        await silent.send(b"\0XYZ")
        await deaf.send(packet("ECHO_REQ", LARGE) + b"\0XYZ")
        await room.settled()
        assert len(room.hub) == 2
        assert room.hub.next_deadline() == trio.current_time() + hub.DISCARD
        mock_clock.jump(hub.DISCARD - 0.1)
        room.hub.close_overdue()
        assert len(room.hub) == 2
        mock_clock.jump(0.2)
        room.hub.close_overdue()
        assert len(room.hub) == 1, "who reads nothing has longer"
        mock_clock.jump(hub.LINGER)
        room.hub.close_overdue()
        assert len(room.hub) == 0
        assert room.hub.next_deadline() == float("inf")


async def test_a_peer_that_floods_after_its_end_is_not_heard_and_does_not_stop_others() -> None:
    async with open_room() as room:
        wire, other = room.wire(tcp_pair), room.wire(tcp_pair)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def flood() -> None:
                with suppress(trio.BrokenResourceError):
                    while True:
                        await wire.send(b"\0XYZ" + packet("SUBMIT_JOB_BG", b"f", b"", b"w") * 5000)

            for number in range(50):
                word = b"%d" % number
                assert await other.ask("ECHO_REQ", word) == ("ECHO_RES", word)
            (link,) = room.hub._closing
            room.hub._close(link)
        assert room.engine.statistics().jobs == 0


# Descriptors


async def test_a_closed_connection_harms_nobody_who_gets_its_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is left of the old connection in the hub's lists must not touch the new one."""
    async with open_room() as room:
        near, far = socketpair()
        number = near.fileno()
        wire = Wire(far)
        room.hub.add(near, "-")
        new: list[Wire] = []

        def reuse() -> None:
            if number not in room.hub._links and not new:
                fresh, end = socketpair()
                if fresh.fileno() != number:
                    os.dup2(fresh.fileno(), number)
                    fresh.close()
                    fresh = socket.socket(fileno=number)
                room.hub.add(fresh, "-")
                new.append(Wire(end))

        room.hub.after_pass = reuse
        # The hub reads a connection once when it is ready and once more in the same round. After
        # that it means to read this one a third time, to see its end, but closes it first.
        full = packet("SET_CLIENT_ID", b"x" * (hub.READ_SIZE - HEADER_SIZE))
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        assert wire.sock.send(full) == hub.READ_SIZE
        assert wire.sock.send(b"\0XYZ") == 4
        wire.sock.shutdown(socket.SHUT_WR)
        await room.settled()
        (fresh_wire,) = new
        assert await fresh_wire.ask("ECHO_REQ", b"mine") == ("ECHO_RES", b"mine")
        assert len(room.hub) == 1


# The end of all


async def test_everybody_is_closed_and_gets_what_was_waiting() -> None:
    async with open_room() as room:
        wires = [room.wire() for _ in range(5)]
        for wire in wires:
            await wire.ask("ECHO_REQ", b"x")
        link = next(iter(room.hub._links.values()))
        link.session.send(b"last")
    assert len(room.hub) == 0
    assert await wires[0].rest() == b"last"
    for wire in wires[1:]:
        assert await wire.rest() == b""


async def test_who_does_not_read_cannot_keep_the_hub_from_ending() -> None:
    async with open_room(SMALL) as room:
        wire = room.wire()
        await choke(wire, room)
    assert len(room.hub) == 0


async def test_opening_a_connection_is_only_told_in_detail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_room() as room:
        wire = room.wire(address="10.0.0.1")
        await wire.ask("ECHO_REQ", b"x")
    record = caplog.records[0]
    assert record.getMessage() == "connection 1 (10.0.0.1) opened"
    assert record.levelno == logging.DEBUG
