"""Large packets at the hub: in which pieces they are read, and whose turn it is meanwhile."""

from __future__ import annotations

import socket

import pytest

from tests.engine.world import packet
from tests.runtime.wired import Pair, Wire, open_room
from trigear.model import CloseReason
from trigear.runtime import hub
from trigear.wire.codec import HEADER_SIZE

SIZE = 200_000
WORKLOAD = bytes(range(250)) * (SIZE // 250)
SUBMISSION = packet("SUBMIT_JOB_BG", b"f", b"", WORKLOAD)
HEAD = HEADER_SIZE + len(b"f\0\0")


class Watched(socket.socket):
    """A socket that writes down what it is asked to read: whose it is, how much, and whether the
    bytes stay where they are."""

    log: list[tuple[str, int, bool]]
    name: str

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = super().recv(size, flags)
        self.log.append((self.name, size, flags == socket.MSG_PEEK))
        return data


def watched(log: list[tuple[str, int, bool]], name: str = "") -> Pair:
    def make() -> tuple[socket.socket, socket.socket]:
        near, far = socket.socketpair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        mine = Watched(fileno=near.detach())
        mine.log, mine.name = log, name
        return mine, far

    return make


def say(wire: Wire, data: bytes) -> None:
    """All of it is there before the hub looks."""
    assert wire.sock.send(data) == len(data)


async def test_a_workload_is_read_apart_from_what_is_before_it_once_they_are_large() -> None:
    log: list[tuple[str, int, bool]] = []
    async with open_room() as room:
        wire, worker = room.wire(watched(log)), await room.worker()
        for _ in range(3):
            log.append(("", 0, False))
            say(wire, SUBMISSION)
            assert (await wire.next())[0] == "JOB_CREATED"
            await room.settled()
        say(wire, packet("ECHO_REQ", b"small"))
        assert await wire.next() == ("ECHO_RES", b"small")
        for _ in range(3):
            said, _, function, workload = await worker.ask("GRAB_JOB")
            assert (said, function) == ("JOB_ASSIGN", b"f")
            assert workload == WORKLOAD
    starts = [at for at, (_, size, _) in enumerate(log) if not size]
    first, second, third = (
        [(size, peeked) for _, size, peeked in log[start + 1 :]] for start in starts
    )
    assert first[:2] == [(hub.READ_SIZE, False), (len(SUBMISSION) - hub.READ_SIZE, False)]
    assert second[:3] == third[:3] == [(hub.PEEK, True), (HEAD, False), (SIZE, False)]
    assert third[-2:] == [(hub.PEEK, True), (hub.READ_SIZE, False)]


@pytest.mark.pure
async def test_large_packets_of_many_are_read_in_turn_and_nobody_waits_for_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub, "READ_ROUND", 1)
    log: list[tuple[str, int, bool]] = []
    names = ["one", "two", "three", "four"]
    async with open_room() as room:
        wires = {name: room.wire(watched(log, name)) for name in names}
        other = room.wire(watched(log, "other"))
        for _ in range(2):
            for wire in wires.values():
                say(wire, SUBMISSION)
            say(other, packet("ECHO_REQ", b"x"))
            for wire in wires.values():
                assert (await wire.next())[0] == "JOB_CREATED"
            assert await other.next() == ("ECHO_RES", b"x")
            await room.settled()
        assert room.engine.statistics().jobs == 2 * len(names)
    large = [name for name, size, _ in log if size > hub.READ_SIZE]
    assert large == names * 2
    last = next(at for at in reversed(range(len(log))) if log[at][1] > hub.READ_SIZE)
    second = [at for at, (name, _, _) in enumerate(log) if name == "other"]
    assert second[0] < last - len(names)


@pytest.mark.pure
@pytest.mark.parametrize("half", [False, True], ids=["gone", "silent"])
async def test_who_leaves_while_it_waits_for_its_turn_is_noticed(
    half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "READ_ROUND", 1)
    log: list[tuple[str, int, bool]] = []
    async with open_room() as room:
        one, two = (room.wire(watched(log, name)) for name in ("one", "two"))
        for wire in (one, two):
            say(wire, SUBMISSION[:100])
        await room.settled()
        say(one, SUBMISSION[100:])
        say(two, SUBMISSION[100:-1])
        if half:
            two.sock.shutdown(socket.SHUT_WR)
        else:
            await two.close()
        await room.settled()
        assert [name for name, size, _ in log if size > hub.READ_SIZE] == ["one", "two"]
        assert room.closed == {CloseReason.MID_PACKET: 1}
        assert (await one.next())[0] == "JOB_CREATED"
