"""A server that does what a test says, over a stream in memory."""

from __future__ import annotations

import math
from collections import deque

import trio
import trio.testing

from trigear.errors import ConnectionLost
from trigear.protocol.server import ServerConnection
from trigear.wire.codec import Handler, response, rows_for
from trigear.wire.packets import EXTENSIONS, LOGINS, PACKETS

Heard = tuple[bytes | str, ...]


def heard(name: str) -> Handler:
    return lambda connection, *args: connection.heard.append((name, *args))


class Recorder(ServerConnection):
    """The server's column, which only writes down what it hears."""

    __slots__ = ("heard",)

    rows = rows_for(
        {
            packet.number: heard(packet.name)
            for packet in (*PACKETS.values(), *EXTENSIONS.values(), *LOGINS.values())
            if packet.asked_by and packet.served
        }
    )

    def __init__(self) -> None:
        super().__init__(lambda connection: None)
        self.heard: deque[Heard] = deque()

    def on_command(self, line: bytes) -> None:
        self.heard.append(("text", line))


class ScriptedServer:
    """The far end of a connection: hears requests one by one, says what it is told to.

    Heartbeats come whenever they come; they are in ``beats``, in milliseconds, and not heard.
    """

    def __init__(self, stream: trio.StapledStream) -> None:
        self.stream = stream
        self.beats: list[int] = []
        self._machine = Recorder()

    async def hears(self) -> Heard:
        """The next request: its name and arguments. ("end",) when the other side has closed."""
        while True:
            while self._machine.heard:
                said = self._machine.heard.popleft()
                if said[0] != "HEARTBEAT":
                    return said
                assert isinstance(said[1], bytes)
                self.beats.append(int(said[1]))
            data = await self.stream.receive_some()
            if not data:
                return ("end",)
            self._machine.receive(bytes(data))
            assert self._machine.closing is None

    async def expects(self, *requests: Heard) -> None:
        """The next requests must be these."""
        assert [await self.hears() for _ in requests] == list(requests)

    async def says(self, number: int, *args: bytes) -> None:
        await self.sends(response(number, *args))

    async def sends(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def hangs_up(self) -> None:
        await self.stream.aclose()


def scripted() -> tuple[trio.StapledStream, ScriptedServer]:
    """A stream for a client or worker, and the server at its other end."""
    near, far = trio.testing.memory_stream_pair()
    return near, ScriptedServer(far)


class ScriptedPlace:
    """A place that accepts connections; each is a server of its own. Call it to connect.

    As long as ``closed`` is set, nobody answers there. ``attempts`` counts the calls.
    """

    def __init__(self) -> None:
        self.closed = False
        self.attempts = 0
        self._connected, self._accepted = trio.open_memory_channel[ScriptedServer](math.inf)

    async def __call__(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.attempts += 1
        if self.closed:
            raise ConnectionLost("nobody there")
        near, server = scripted()
        self._connected.send_nowait(server)
        return near

    async def accepts(self) -> ScriptedServer:
        """The next connection."""
        return await self._accepted.receive()
