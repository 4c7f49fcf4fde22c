"""Servers that let clients in as a test says, and somebody who stands in between."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import trio
import trio.testing

from tests.security.logins import LOOPBACK, NOW, authenticator
from trigear.protocol.asking import FENCE
from trigear.security.mechs import Challenge, Done
from trigear.wire.packets import (
    ECHO_RES,
    ERROR,
    OPTION_RES,
    SASL_CHALLENGE,
    SASL_MECHANISMS,
    SASL_OK,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

    from tests.runtime.scripted import ScriptedServer

SCRAM = b"SCRAM-SHA-256"


async def offer(server: ScriptedServer, mechanisms: bytes = SCRAM) -> None:
    """Say how one may log in."""
    await server.expects(("OPTION_REQ", b"sasl"), ("ECHO_REQ", FENCE))
    await server.says(OPTION_RES, b"sasl")
    await server.says(SASL_MECHANISMS, mechanisms, b"", b"1", b"")
    await server.says(ECHO_RES, FENCE)


async def let_in(server: ScriptedServer, lifetime: float = 0.0) -> None:
    """Let alice in with her password, for so many seconds."""
    await offer(server)
    said, start = await server.hears()
    assert said == "SASL_START"
    name, _, first = start.partition(b"\0")
    assert name == SCRAM
    exchange = authenticator().begin("SCRAM-SHA-256", LOOPBACK, NOW)
    outcome = exchange.step(first, NOW)
    assert isinstance(outcome, Challenge)
    await server.says(SASL_CHALLENGE, outcome.data)
    said, answer = await server.hears()
    assert said == "SASL_RESPONSE"
    outcome = exchange.step(answer, NOW)
    assert isinstance(outcome, Done)
    left = b"%d" % round(lifetime * 1000)
    await server.says(SASL_OK, b"acme/alice", b"acme", b"submit", left, outcome.data)
    await trio.testing.wait_all_tasks_blocked()


async def turn_away(server: ScriptedServer, code: bytes = b"AUTHENTICATION_FAILED") -> None:
    """Refuse whoever wants to log in."""
    await offer(server)
    assert (await server.hears())[0] == "SASL_START"
    await server.says(ERROR, code, b"No")


@asynccontextmanager
async def between(
    address: tuple[str, int],
    edit: Callable[[bytes], bytes] = bytes,
    *,
    outside: ssl.SSLContext | None = None,
    inside: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Somebody who stands between clients and a server, and reads and changes what the server says.

    Args:
        address: of the server.
        edit: what is made of each piece that it says.
        outside: with which TLS clients are met, if with any.
        inside: with which TLS the server is met.

    Yields:
        The port at which clients arrive.
    """

    async def meet(client: trio.abc.Stream) -> None:
        server: trio.abc.Stream = await trio.open_tcp_stream(*address)
        if outside is not None:
            client = trio.SSLStream(client, outside, server_side=True, https_compatible=True)
        if inside is not None:
            server = trio.SSLStream(
                server, inside, server_hostname="localhost", https_compatible=True
            )
        try:
            async with trio.open_nursery() as nursery:

                async def carry(source, target, change) -> None:
                    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        async for piece in source:
                            await target.send_all(change(bytes(piece)))
                    nursery.cancel_scope.cancel()

                nursery.start_soon(carry, client, server, bytes)
                nursery.start_soon(carry, server, client, edit)
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(client)
                await trio.aclose_forcefully(server)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, meet, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()
