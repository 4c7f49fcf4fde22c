"""TLS on the side of those who connect: a Trio stream over another one."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from trigear.errors import ConnectionLost
from trigear.security.layer import HANDSHAKE_SECONDS, HUNG_UP, TlsLayer, refusal

if TYPE_CHECKING:
    from trigear.security.tls import ClientContext

FAREWELL_SECONDS: Final = 1.0
"""How long a peer may take to hear that the connection is over."""

_READ: Final = 65536


class TlsStream(trio.abc.Stream):
    """A connection whose handshake is done.

    Args:
        stream: what leads to the server.
        layer: TLS over it.
    """

    def __init__(self, stream: trio.abc.Stream, layer: TlsLayer) -> None:
        self._stream = stream
        self._layer = layer
        self._opened = b""
        self._spoken = False

    @property
    def layer(self) -> TlsLayer:
        """What was agreed on with the server."""
        return self._layer

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        sealed = self._layer.seal([memoryview(data)])
        try:
            await self._stream.send_all(sealed)
        except trio.BrokenResourceError:
            if self._spoken:
                raise
            raise trio.BrokenResourceError(HUNG_UP) from None

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while not self._opened:
            if self._layer.over:
                return b""
            try:
                data = await self._stream.receive_some(_READ)
            except trio.BrokenResourceError:
                if self._spoken:
                    raise
                raise trio.BrokenResourceError(HUNG_UP) from None
            if not data:
                if not self._spoken:
                    raise trio.BrokenResourceError(HUNG_UP)
                return b""
            try:
                self._opened = self._layer.open(bytes(data))
            except ssl.SSLError as error:
                raise trio.BrokenResourceError(refusal(error)) from None
            self._spoken = self._spoken or bool(self._opened)
        end = len(self._opened) if max_bytes is None else max_bytes
        data, self._opened = self._opened[:end], self._opened[end:]
        return data

    async def aclose(self) -> None:
        with (
            trio.move_on_after(FAREWELL_SECONDS, shield=True),
            suppress(trio.BrokenResourceError, trio.ClosedResourceError),
        ):
            await self._stream.send_all(self._layer.farewell())
        await self._stream.aclose()


async def secured(
    stream: trio.abc.Stream, context: ClientContext, server_name: str, place: str
) -> TlsStream:
    """Do the handshake with a server.

    Args:
        stream: what leads to it; closed if the handshake fails.
        context: whom to trust.
        server_name: whom the certificate has to name.
        place: what the server is called in errors.

    Raises:
        ConnectionLost: the handshake failed; the error says why.

    Cancellation: the stream is closed.
    """
    layer = TlsLayer(context, server_name)
    try:
        with trio.move_on_after(HANDSHAKE_SECONDS):
            while not layer.step():
                await stream.send_all(layer.outgoing())
                data = await stream.receive_some(_READ)
                layer.feed(bytes(data))
            await stream.send_all(layer.outgoing())
            return TlsStream(stream, layer)
        raise ConnectionLost(
            f"no connection to {place}: no TLS handshake within {HANDSHAKE_SECONDS:g} s"
        )
    except ssl.SSLError as error:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.send_all(layer.outgoing())
        await trio.aclose_forcefully(stream)
        raise ConnectionLost(f"no connection to {place}: {refusal(error)}") from error
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise ConnectionLost(f"no connection to {place}: it hung up on the TLS handshake") from (
            error
        )
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
