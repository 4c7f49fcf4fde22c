"""What one connection does to the others: those that do not read, that flood, that hit a bug."""

from __future__ import annotations

import itertools
import socket
import threading
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.engine.test_engine import broken
from tests.engine.world import packet
from tests.runtime.wired import LARGE, PAIRS, SMALL, Pair, Room, choke, open_room
from trigear.engine.config import EngineConfig
from trigear.engine.engine import TURN, Engine
from trigear.errors import TrigearInternalError
from trigear.model import CloseReason, Now
from trigear.runtime.clock import now
from trigear.testing.memory import counting_mint

if TYPE_CHECKING:
    from trigear.engine.session import Session

# Back-pressure


async def test_who_does_not_read_is_not_read_and_nobody_else_notices() -> None:
    async with open_room(SMALL) as room:
        slow, other, worker = room.wire(), room.wire(), await room.worker()
        first = await slow.submit()
        await choke(slow, room)
        await slow.tell("SUBMIT_JOB_BG", b"f", b"", b"unread")
        second = await other.submit()
        assert await worker.grab() == second, "the job of who does not read is passed over"
        assert await worker.ask("GRAB_JOB") == ("NO_JOB",)
        await worker.tell("WORK_COMPLETE", second, LARGE)
        assert await other.next() == ("WORK_COMPLETE", second, LARGE)
        await worker.tell("PRE_SLEEP")
        assert await slow.next() == ("ECHO_RES", LARGE)
        assert (await slow.next())[0] == "JOB_CREATED"
        assert await worker.next() == ("NOOP",)
        assert await worker.grab() == first


async def test_a_worker_is_not_held_up_by_a_client_that_does_not_read() -> None:
    async with open_room(SMALL) as room:
        slow, worker = room.wire(), await room.worker()
        handle = await slow.submit()
        await worker.grab()
        await choke(slow, room)
        await worker.tell("WORK_COMPLETE", handle, b"r")
        assert await worker.ask("ECHO_REQ", b"on") == ("ECHO_RES", b"on")
        assert await slow.next() == ("ECHO_RES", LARGE)
        assert await slow.next() == ("WORK_COMPLETE", handle, b"r")


@PAIRS
async def test_who_lets_too_much_pile_up_is_closed_at_once(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_room(SMALL) as room:
        slow, other, worker = room.wire(pair, "10.0.0.9"), room.wire(), await room.worker()
        handle = await slow.submit()
        await worker.grab()
        part = packet("WORK_DATA", handle, bytes(1 << 20))
        for _ in range(16):
            await worker.send(part)
            assert await worker.ask("ECHO_REQ", b"on") == ("ECHO_RES", b"on")
        await room.settled()
        assert room.closed == {CloseReason.SLOW_CONSUMER: 1}
        assert len(room.hub) == 2, "what it did not read is let go of"
        assert caplog.messages == [
            "connection 1 (10.0.0.9) closed: peer does not read what it is sent, 1 job waited for"
        ]
        assert await other.ask("ECHO_REQ", b"on") == ("ECHO_RES", b"on")
        await worker.tell("WORK_COMPLETE", handle, b"r")
        assert await worker.ask("GRAB_JOB") == ("NO_JOB",)


# Fairness


class Tenanted(Engine):
    """An engine whose tenants are told by address, and which notes who has a turn when."""

    def __init__(self) -> None:
        super().__init__(EngineConfig(), counting_mint(), now())
        self.turns: list[tuple[str, int]] = []

    def tenant_of(self, session: Session) -> str:
        return session.address

    def receive(self, session: Session, data: bytes, now: Now) -> bool:
        if not data:
            self.turns.append((session.address, session.number))
        return super().receive(session, data, now)


async def test_heavy_connections_share_turns_by_tenant_and_then_by_connection() -> None:
    async with open_room(engine=Tenanted()) as room:
        engine = room.engine
        assert isinstance(engine, Tenanted)
        many = [room.wire(address="many") for _ in range(10)]
        few = room.wire(address="few")
        question = packet("GRAB_JOB") * (100 * TURN)
        for wire in (*many, few):
            assert wire.sock.send(question) == len(question)
        for wire in (*many, few):
            for _ in range(100 * TURN):
                assert await wire.next() == ("NO_JOB",)
        turns = engine.turns
        assert len(turns) == 11 * 100 - 11
        first = next(at for at, (tenant, _) in enumerate(turns) if tenant == "few")
        shared = turns[first : first + 2 * 99]
        assert [tenant for tenant, _ in shared] == ["few", "many"] * 99
        numbers = [number for tenant, number in shared if tenant == "many"]
        for at in range(0, 90, 10):
            assert sorted(numbers[at : at + 10]) == list(range(1, 11))


async def test_who_asks_little_is_served_between_the_turns_of_who_asks_much() -> None:
    async with open_room(engine=Tenanted()) as room:
        engine = room.engine
        assert isinstance(engine, Tenanted)
        heavy = [room.wire(address="t") for _ in range(20)]
        light = room.wire(address="t")
        question = packet("GRAB_JOB") * (500 * TURN)
        for wire in heavy:
            assert wire.sock.send(question) == len(question)
        marks = []
        while len(engine.turns) < 20 * 499:
            assert await light.ask("ECHO_REQ", b"x") == ("ECHO_RES", b"x")
            marks.append(len(engine.turns))
        steps = [later - earlier for earlier, later in itertools.pairwise(marks)]
        assert max(steps) < 20 * 499 // 5, "it waits for a few turns and not for the end of all"


async def test_a_timer_keeps_running_beside_connections_that_flood() -> None:
    """Counted in packets: what the hub handles between two ticks of 5 ms is a small part."""
    async with open_room(engine=Tenanted()) as room:
        engine = room.engine
        assert isinstance(engine, Tenanted)
        wires = [room.wire() for _ in range(200)]
        marks: list[int] = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def tick() -> None:
                while True:
                    await trio.sleep(0.005)
                    marks.append(len(engine.turns))

            for wire in wires:
                await wire.send(packet("CAN_DO", b"f") * (50 * TURN))
            while len(engine.turns) < 200 * 49:
                await trio.sleep(0.005)
            nursery.cancel_scope.cancel()
        assert len(marks) > 5
        steps = [later - earlier for earlier, later in itertools.pairwise(marks)]
        assert max(steps) < 200 * 49 // 5


# Faults


async def test_a_fault_stays_with_its_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken(monkeypatch)
    async with open_room() as room:
        victim, other, worker = room.wire(), room.wire(), await room.worker()
        handle = await other.submit()
        assert await worker.grab() == handle
        await victim.send(packet("ECHO_REQ", b"before") + packet("ECHO_REQ", b"trigger"))
        assert await victim.next() == ("ECHO_RES", b"before")
        assert await victim.is_over()
        assert room.closed == {CloseReason.FAULT: 1}
        assert room.engine.statistics().faults == 1
        await worker.tell("WORK_COMPLETE", handle, b"r")
        assert await other.next() == ("WORK_COMPLETE", handle, b"r")
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


async def test_a_fault_in_a_later_turn_stays_with_its_connection_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken(monkeypatch)
    async with open_room() as room:
        victim, other = room.wire(), room.wire()
        await victim.send(packet("CAN_DO", b"f") * 2 * TURN + packet("ECHO_REQ", b"trigger"))
        assert await victim.is_over()
        assert await other.ask("ECHO_REQ", b"on") == ("ECHO_RES", b"on")
        assert room.closed == {CloseReason.FAULT: 1}


@pytest.mark.pure
async def test_a_fault_while_a_connection_ends_is_counted_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_room() as room:
        victim, other = room.wire(), room.wire()
        await victim.ask("ECHO_REQ", b"x")
        with monkeypatch.context() as patch:

            def leave(*args: object) -> None:
                raise LookupError("a bug")

            patch.setattr(type(room.engine.broker), "leave", leave)
            await victim.close()
            await room.settled()
        assert room.engine.statistics().faults == 1
        assert len(room.hub) == 1
        assert await other.ask("ECHO_REQ", b"on") == ("ECHO_RES", b"on")


async def test_damaged_queues_end_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    room = Room()
    wire = room.wire()
    await wire.send(packet("CAN_DO", b"f") + packet("ECHO_REQ", b"trigger"))
    session = next(iter(room.hub._links.values())).session
    room.engine.broker.function(session.peer.tenant, b"f").running = 5
    with trio.fail_after(30), pytest.raises(TrigearInternalError, match="queues are damaged"):
        await room.hub.run()
    room.hub.close_all(CloseReason.SHUTDOWN)
    assert await wire.is_over()


async def test_a_patient_hub_does_not_keep_others_from_opening_the_door() -> None:
    room = Room()
    room.hub.patience = 30.0  # longer than this test may take
    near, far = socket.socketpair()
    far.settimeout(10)
    with trio.socket.socket() as listener, far:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        door = listener.getsockname()
        room.hub.watch(listener._sock)  # type: ignore[attr-defined]
        room.hub.add(near, "127.0.0.1")

        def visit() -> None:
            # Its echo is there: the hub expects more, and waits for it.
            far.sendall(packet("ECHO_REQ", b"x"))
            far.recv(100)
            socket.create_connection(door, 10).close()

        guest = threading.Thread(target=visit)
        guest.start()
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(room.hub.run)
                visitor, _ = await listener.accept()
                visitor.close()
                guest.join()
                nursery.cancel_scope.cancel()
        room.hub.unwatch(listener._sock)  # type: ignore[attr-defined]
    room.hub.close_all(CloseReason.SHUTDOWN)
