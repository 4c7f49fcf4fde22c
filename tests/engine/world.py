"""A whole server in memory for the tests of the engine, spoken to in packets by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.wire.recording import EVERY_PACKET, decode
from trigear.engine.config import EngineConfig
from trigear.testing.clock import SettableClock
from trigear.testing.memory import MemoryEngine, MemoryPeer
from trigear.wire.codec import RES, request
from trigear.wire.packets import name_of

if TYPE_CHECKING:
    from trigear.model import CloseReason

NUMBERS = {packet.name: number for number, packet in EVERY_PACKET.items()}

JOBS = {
    "SUBMIT_JOB": ("normal", False),
    "SUBMIT_JOB_BG": ("normal", True),
    "SUBMIT_JOB_HIGH": ("high", False),
    "SUBMIT_JOB_HIGH_BG": ("high", True),
    "SUBMIT_JOB_LOW": ("low", False),
    "SUBMIT_JOB_LOW_BG": ("low", True),
}
"""The plain submissions: priority, and whether in the background."""

Said = tuple[Any, ...]


def packet(name: str, *args: bytes) -> bytes:
    """A request by its name."""
    return request(NUMBERS[name], *args)


def spoken(stream: bytes) -> list[Said]:
    """What a server said: packets as ``(name, *args)``, text as ``("text", line)``."""
    return [
        (name_of(entry[1]), *entry[2:]) if entry[0] == "packet" else entry
        for entry in decode([stream], RES, max_packet=1 << 30)
    ]


class Caller:
    """A program on the other end of a connection."""

    def __init__(self, world: World, peer: MemoryPeer) -> None:
        self.world = world
        self.peer = peer

    def tell(self, name: str, *args: bytes) -> None:
        """Send a packet; what comes back is left for :meth:`heard`."""
        self.peer.send(packet(name, *args))

    def ask(self, name: str, *args: bytes) -> list[Said]:
        """Send a packet; everything that came from the server since the last look."""
        self.tell(name, *args)
        return self.heard()

    def heard(self) -> list[Said]:
        """Everything that came from the server since the last look."""
        return spoken(self.peer.take())

    def command(self, line: bytes) -> bytes:
        """Send a text command; the bytes of the answer."""
        self.peer.send(line + b"\n")
        return self.peer.take()

    def submit(self, name: str = "SUBMIT_JOB", *args: bytes) -> bytes:
        """Submit a job, by default of function ``f`` with no unique; the handle."""
        ((said, handle),) = self.ask(name, *(args or (b"f", b"", b"work")))
        assert said == "JOB_CREATED"
        assert isinstance(handle, bytes)
        return handle

    def grab(self, name: str = "GRAB_JOB") -> bytes:
        """Grab a job; the handle."""
        ((said, handle, *_),) = self.ask(name)
        assert said.startswith("JOB_ASSIGN")
        assert isinstance(handle, bytes)
        return handle

    def end(self) -> CloseReason | None:
        """Why the server closed this connection; None if it did not."""
        return self.peer.closed

    def leave(self) -> None:
        self.peer.hang_up()


class World(MemoryEngine):
    """The server, its clock, and who is connected to it. Where a test says nothing else, jobs that
    are lost are queued again at once."""

    def __init__(self, config: EngineConfig | None = None) -> None:
        self.time = SettableClock()
        super().__init__(self.time, config or EngineConfig(backoff=0.0))

    def caller(self, address: str = "127.0.0.1") -> Caller:
        return Caller(self, self.connect(address))

    def worker(self, *functions: bytes, timeout: bytes | None = None) -> Caller:
        """A connection that can do these functions, by default ``f``."""
        caller = self.caller()
        for function in functions or (b"f",):
            if timeout is None:
                caller.tell("CAN_DO", function)
            else:
                caller.tell("CAN_DO_TIMEOUT", function, timeout)
        return caller

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and whatever falls due happen on time."""
        end = self.time().monotonic + seconds
        while (deadline := self.engine.next_deadline()) <= end:
            self.time.advance(max(deadline - self.time().monotonic, 0))
            self.tick()
        self.time.advance(end - self.time().monotonic)


@pytest.fixture
def world() -> World:
    return World()
