"""The server's column of the connection machine: requests in, replies out in order.

Replies and reply slots. A reply that is not known yet (a durable submission waits for its commit)
takes a *slot*. While the oldest slot is empty everything else for this connection queues behind
it, replies and WORK packets alike, so that no packet overtakes the JOB_CREATED it depends on. Only
NOOP may pass: it answers nothing. A connection without an empty slot never touches the queue.
"""

from __future__ import annotations

from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Final

from mypy_extensions import mypyc_attr

from trigear.model import CloseReason
from trigear.protocol.connection import MAX_PACKET, Connection
from trigear.wire.codec import REQ, Handler, Row, response, rows_for
from trigear.wire.packets import ERROR, EXTENSIONS, NOOP, PACKETS, name_of

if TYPE_CHECKING:
    from collections.abc import Callable

_NOOP: Final = response(NOOP)

PLACE: Final = 256
"""Bytes that a reply costs which is waited for, beside what is held for it: who has thousands of
empty ones waiting does have something waiting."""

_TLS_HANDSHAKE: Final = b"\x16\x03"
_HTTP_METHODS: Final = tuple(
    method + b" "
    for method in (
        *(b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH"),
        *(b"CONNECT", b"OPTIONS", b"TRACE"),
    )
)
_HTTP_ANSWER: Final = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def server_rows(cls: type[ServerConnection]) -> tuple[Row, ...]:
    """The rows of a server that implements ``on_<packet name>`` for every request it serves."""
    return rows_for(_handlers(cls))


@cache
def _extended_rows(cls: type[ServerConnection]) -> tuple[Row, ...]:
    """The same in extended mode. Of trigear's extensions a server need not implement any."""
    handlers = _handlers(cls)
    for packet in EXTENSIONS.values():
        handler = getattr(cls, "on_" + packet.name.lower(), None)
        if packet.asked_by and handler is not None:
            handlers[packet.number] = handler
    return rows_for(handlers)


def _handlers(cls: type[ServerConnection]) -> dict[int, Handler]:
    return {
        packet.number: getattr(cls, "on_" + packet.name.lower())
        for packet in PACKETS.values()
        if packet.asked_by and packet.served
    }


class Slot:
    """A reply that is not known yet. Tokens are compared by identity.

    ``size`` is what is held in memory for it, in bytes.
    """

    __slots__ = ("data", "size")

    def __init__(self, size: int) -> None:
        self.data: bytes | None = None
        self.size = size


@mypyc_attr(allow_interpreted_subclasses=True)
class ServerConnection(Connection):
    """The server's end of one connection.

    A subclass has one handler ``on_<packet name in lower case>`` per request, called with the
    packet's arguments, and :meth:`on_command` for text lines.

    Args:
        touch: called with this connection when ``out`` is no longer empty, or when the end of the
            connection was asked for; may be called more than once.
    """

    __slots__ = ("_extended", "_heard", "_held", "_touch", "held_size", "holding")

    incoming = REQ

    def __init__(
        self, touch: Callable[[ServerConnection], object], max_packet: int = MAX_PACKET
    ) -> None:
        super().__init__(max_packet)
        self._touch = touch
        self._held: deque[bytes | Slot] | None = None
        self.held_size = 0
        """Bytes that wait behind an empty slot, or for it."""
        self.holding = False
        """Whether nothing of the peer is handled until :meth:`go_on`."""
        self._extended = False
        self._heard = False

    @property
    def extended(self) -> bool:
        """Whether the peer understands trigear's own packets. They are unknown until it says so,
        as they are to any other server."""
        return self._extended

    def extend(self) -> None:
        """The peer understands them; holds from the next call of :meth:`receive` on."""
        self._extended = True
        # The checker takes the hash of the instances for that of the class.
        self.decoder.rows = _extended_rows(type(self))  # type: ignore[arg-type]

    # Output

    def send(self, data: bytes) -> None:
        """Send a reply or a push, behind everything that waits for a slot."""
        if self._held is None:
            if not self.out:
                self._touch(self)
            self.out.append(data)
        else:
            self._hold(data, len(data))

    def send_noop(self) -> None:
        """Wake the worker; passes replies that wait for a slot."""
        if not self.out:
            self._touch(self)
        self.out.append(_NOOP)

    def send_error(self, code: str, text: str) -> None:
        """Refuse the request at hand."""
        self.send(response(ERROR, code.encode(), text.encode()))

    def reserve(self, size: int = 0) -> Slot:
        """Keep the place of a reply that will be known later; ``size`` bytes are held for it."""
        size += PLACE
        slot = Slot(size)
        if self._held is None:
            self._held = deque()
        self._hold(slot, size)
        return slot

    def _hold(self, item: bytes | Slot, size: int) -> None:
        assert self._held is not None
        self._held.append(item)
        self.held_size += size
        # Whoever sends must learn how much waits, to stop reading in time.
        self._touch(self)

    @property
    def waits(self) -> bool:
        """Whether a reply is not known yet."""
        return self._held is not None

    def fill(self, slot: Slot, data: bytes) -> None:
        """Give the reply for a slot, and send what only waited for it."""
        slot.data = data
        held = self._held
        if held is None:
            return
        if not self.out:
            self._touch(self)
        while held:
            first = held[0]
            if isinstance(first, Slot):
                if first.data is None:
                    return
                self.out.append(first.data)
                self.held_size -= first.size
            else:
                self.out.append(first)
                self.held_size -= len(first)
            held.popleft()
        self._held = None

    def close(self, reason: CloseReason) -> None:
        super().close(reason)
        self._touch(self)

    # Input

    def hold(self) -> None:
        """Handle nothing more of what the peer says until :meth:`go_on`: the request at hand
        cannot be answered yet, and what comes behind it may depend on the answer."""
        self.stopped = self.holding = True
        # Whoever reads for this connection must learn of it.
        self._touch(self)

    def go_on(self) -> None:
        """The request at hand can be answered, which the caller does at once; then the rest."""
        self.holding = False
        self.stopped = self.closing is not None
        self._touch(self)

    def receive(self, data: bytes, turn: int = 1 << 62) -> bool:
        if self.holding:
            self.decoder.feed(data)
            return False
        if not self._heard and data:
            self._heard = True
            if data.startswith(_TLS_HANDSHAKE):
                self.close(CloseReason.SPEAKS_TLS)
                return False
        return super().receive(data, turn)

    def on_text(self, line: bytes) -> None:
        if line.startswith(_HTTP_METHODS) and b" HTTP/1." in line:
            self.send(_HTTP_ANSWER)
            self.close(CloseReason.SPEAKS_HTTP)
        else:
            self.on_command(line)

    def on_command(self, line: bytes) -> None:
        """A text command, without its line end."""
        raise NotImplementedError

    def on_wrong_magic(self, number: int) -> None:
        self.send_error("INVALID_MAGIC", "Request magic expected")

    def on_unknown_type(self, number: int) -> None:
        self.send_error("INVALID_COMMAND", "Command not expected")

    def on_bad_magic(self, start: bytes) -> None:
        self.send_error("INVALID_MAGIC", "Neither a packet nor a text command")
        self.close(CloseReason.BAD_MAGIC)

    def on_malformed(self, number: int) -> None:
        self.send_error("INVALID_PACKET", f"{name_of(number)} has too few arguments")
        self.close(CloseReason.MALFORMED)

    def on_too_large(self, number: int, size: int) -> None:
        limit = self.decoder.max_packet
        self.send_error("DATA_TOO_LARGE", f"Packet of {size} bytes; the limit is {limit}")
        self.close(CloseReason.TOO_LARGE)

    def on_line_too_long(self) -> None:
        self.send(b"ERR LINE_TOO_LONG A+text+command+ends+in+a+newline\r\n")
        self.close(CloseReason.LINE_TOO_LONG)
