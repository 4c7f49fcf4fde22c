"""Programs that talk to a server over a socket, packet by packet."""

from __future__ import annotations

import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from tests.engine.world import Said, packet, spoken
from trigear.engine.config import EngineConfig, ServerConfig
from trigear.runtime.address import parse_address
from trigear.runtime.link import open_stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trigear.runtime.server import Server

HEADER = struct.Struct(">4sII")


def local(engine: EngineConfig | None = None, **more: object) -> ServerConfig:
    """A server on a free port of this machine."""
    return ServerConfig(engine or EngineConfig(), listen=("127.0.0.1",), port=0, **more)


def beside(path: Path, engine: EngineConfig | None = None, **more: object) -> ServerConfig:
    """A server on a Unix socket, whose buffers are small and of known size."""
    return ServerConfig(engine or EngineConfig(), listen=(f"unix:{path}/server",), **more)


class Caller:
    """One connection to a server, seen from its far end."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self._read = bytearray()

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def tell(self, name: str, *args: bytes) -> None:
        await self.say(packet(name, *args))

    async def ask(self, name: str, *args: bytes) -> Said:
        """Send a packet; the next one that comes."""
        await self.tell(name, *args)
        return await self.hears()

    async def hears(self) -> Said:
        """The next packet."""
        await self._have(HEADER.size)
        size = HEADER.size + HEADER.unpack_from(self._read)[2]
        await self._have(size)
        (said,) = spoken(self.takes(size))
        return said

    async def submit(self, name: str = "SUBMIT_JOB", *args: bytes) -> bytes:
        """Submit a job, by default of function ``f`` with no unique; the handle."""
        said, handle = await self.ask(name, *(args or (b"f", b"", b"work")))
        assert said == "JOB_CREATED"
        return handle

    async def grab(self) -> bytes:
        """Grab a job; the handle."""
        said, handle, *_ = await self.ask("GRAB_JOB")
        assert said == "JOB_ASSIGN"
        return handle

    async def can_do(self, *functions: bytes) -> None:
        for function in functions:
            await self.tell("CAN_DO", function)
        await self.settled()

    async def command(self, line: bytes) -> bytes:
        """Give a text command; the first line of its answer."""
        await self.say(line + b"\n")
        while b"\n" not in self._read:
            await self.some()
        return self.takes(self._read.index(b"\n") + 1).rstrip()

    async def settled(self) -> None:
        """The server has handled everything said so far."""
        assert await self.ask("ECHO_REQ", b"?") == ("ECHO_RES", b"?")

    async def to_the_end(self) -> bytes:
        """Everything that comes until the server closes the connection."""
        while chunk := await self.stream.receive_some():
            self._read += chunk
        return self.takes(len(self._read))

    async def some(self) -> None:
        """Read once, whatever comes."""
        self._read += await self.stream.receive_some(65536)

    async def _have(self, size: int) -> None:
        while len(self._read) < size:
            chunk = await self.stream.receive_some()
            assert chunk, f"the server closed the connection after {bytes(self._read[:64])!r}"
            self._read += chunk

    def takes(self, size: int) -> bytes:
        """So many bytes of what has come."""
        data = bytes(self._read[:size])
        del self._read[:size]
        return data


@asynccontextmanager
async def calling(server: Server) -> AsyncIterator[Caller]:
    """A connection to the first address of a server."""
    stream = await open_stream(parse_address(server.addresses[0]))
    assert isinstance(stream, trio.abc.HalfCloseableStream)
    async with stream:
        yield Caller(stream)
