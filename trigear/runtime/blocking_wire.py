"""What carries bytes to a server without Trio: a socket, and TLS over it if that is wanted.

Connecting, shaking hands and logging in wait, each for as long as is left. After that nothing waits
here: whoever turns the crank does.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Final

from trigear.runtime.values import words_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trigear.runtime.address import Address
    from trigear.security.layer import TlsLayer
    from trigear.security.tls import ClientContext, ClientTLS

CHUNK: Final = 65536
"""Bytes asked of the socket at a time."""


class TooLate(TimeoutError):
    """A server that took the connection does not go on; says at what."""


class Wire:
    """A connection to a server, plain or with TLS.

    Args:
        link: the socket, connected.
    """

    def __init__(self, link: socket.socket) -> None:
        self.socket = link

    def seal(self, chunks: Iterable[bytes]) -> bytes:
        """What has to be sent so that the server gets this."""
        return b"".join(chunks)

    def receive(self, most: int = CHUNK) -> bytes:
        """What has come; nothing if the server has closed the connection.

        Args:
            most: bytes to read at a time.

        Raises:
            BlockingIOError: nothing that is of use yet.
            OSError: the connection broke.
        """
        return self.socket.recv(most)

    def explained(self, error: ConnectionError) -> ConnectionError:
        """What this error means, as far as can be guessed."""
        return error

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


class TlsWire(Wire):
    """A connection whose handshake is done."""

    def __init__(self, link: socket.socket, layer: TlsLayer) -> None:
        super().__init__(link)
        self.layer = layer
        self._spoken = False

    def seal(self, chunks: Iterable[bytes]) -> bytes:
        return self.layer.seal(chunks)

    def receive(self, most: int = CHUNK) -> bytes:
        from trigear.security.layer import HUNG_UP, refusal

        try:
            data = self.socket.recv(most)
        except ConnectionError as error:
            raise self.explained(error) from None
        if not data:
            if not self._spoken:
                raise ConnectionError(HUNG_UP)
            return b""
        try:
            plain = self.layer.open(data)
        except OSError as error:  # of the module ssl, of which this is to know nothing
            self._say(self.layer.seal(()))
            raise ConnectionError(refusal(error)) from error
        if not plain and not self.layer.over:
            raise BlockingIOError
        self._spoken = True
        return plain

    def explained(self, error: ConnectionError) -> ConnectionError:
        from trigear.security.layer import HUNG_UP

        return error if self._spoken else ConnectionError(HUNG_UP)

    def close(self) -> None:
        self._say(self.layer.farewell())
        super().close()

    def _say(self, last: bytes) -> None:
        """Say what is only polite; nobody waits for it."""
        try:
            self.socket.setblocking(False)
            self.socket.send(last)
        except OSError:
            pass  # it is over either way


def open_socket(address: Address, timeout: float | None) -> socket.socket:
    """Connect within ``timeout`` seconds; the socket never waits from then on.

    Raises:
        OSError: nobody answers there.
    """
    if address.path is not None:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.settimeout(timeout)
            link.connect(address.path)
        except BaseException:
            link.close()
            raise
    else:
        try:
            link = socket.create_connection((address.host, address.port), timeout)
        except UnicodeError as error:
            raise OSError(f"{address.host!r} cannot be the name of a host") from error
        # A request is often one small packet that somebody waits for.
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setblocking(False)
    return link


def open_wire(
    address: Address, until: float | None, tls: ClientTLS | ClientContext | None = None
) -> Wire:
    """Connect, and shake hands if that is wanted.

    Args:
        address: to whom.
        until: when the time is up, by the monotonic clock.
        tls: how TLS is spoken, which then is spoken over every TCP connection; None: where the
            address asks for it.

    Raises:
        OSError: nobody answers there, or TLS failed; the error says why.
        ConfigError: a file of TLS cannot be used.
    """
    link = open_socket(address, left(until))
    if address.path is not None or (tls is None and not address.tls):
        return Wire(link)
    try:
        return _secured(link, address, until, tls)
    except BaseException:
        link.close()
        raise


def _secured(
    link: socket.socket,
    address: Address,
    until: float | None,
    tls: ClientTLS | ClientContext | None,
) -> TlsWire:
    # Only here: it brings what reads certificates.
    from trigear.security.layer import HANDSHAKE_SECONDS, TlsLayer, refusal
    from trigear.security.tls import ClientTLS, build_client

    layer = TlsLayer(build_client(tls or ClientTLS()), address.host)
    if until is None:
        until = time.monotonic() + HANDSHAKE_SECONDS
    try:
        while not layer.step():
            wait(link, until)
            link.sendall(layer.outgoing())
            wait(link, until)
            layer.feed(link.recv(CHUNK))
        wait(link, until)
        link.sendall(layer.outgoing())
    except TimeoutError as error:
        raise TooLate("no TLS handshake in time") from error
    except (ConnectionError, BrokenPipeError) as error:
        raise ConnectionError("it hung up on the TLS handshake") from error
    except OSError as error:
        if not hasattr(error, "library"):  # as errors of the module ssl have
            raise
        wire = TlsWire(link, layer)
        wire._say(layer.outgoing())
        raise ConnectionError(refusal(error)) from error
    link.setblocking(False)
    return TlsWire(link, layer)


def left(until: float | None) -> float | None:
    """Seconds until then, a few at least: none would mean something else to a socket."""
    return None if until is None else max(until - time.monotonic(), 0.001)


def wait(link: socket.socket, until: float | None) -> None:
    """Let the next calls of a socket wait, but not for longer than until then.

    Raises:
        TimeoutError: the time is up.
    """
    if until is not None and until <= time.monotonic():
        raise TimeoutError
    link.settimeout(left(until))


def why_not(error: OSError) -> str:
    """Why there is no connection."""
    late = isinstance(error, TimeoutError) and not isinstance(error, TooLate)
    return "no answer in time" if late else words_for(error)
