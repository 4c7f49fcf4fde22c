"""What every end of a Gearman conversation has: a decoder, an outbox, and an end.

Theory of operation. Bytes go in by :meth:`Connection.receive`, which never raises because of the
peer. The decoder takes them apart with the rows of the packet table that this end may hear *in its
present state*: a state is nothing but the rows in force, so a packet that is not legal now is found
to be so by the lookup that is needed anyway. Handlers append to ``out``; whoever owns the socket
takes everything from there at once and sends it in one go. When the machine wants the connection
to end it sets ``closing`` to the reason and decodes no further; what is in ``out`` is still to be
sent.

Replies leave in the order of their requests. That one rule of the protocol is kept at both ends:
the server's column holds replies back behind one that is not known yet, the columns of client and
worker keep the requests that wait for one in a queue and match what comes against its head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from mypy_extensions import mypyc_attr

from trigear.model import CloseReason
from trigear.wire.codec import REQ, RES, Decoder, Row
from trigear.wire.commands import LINE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PACKET: Final = 64 * 1024 * 1024
"""Largest payload that is accepted unless told otherwise, in bytes."""

_EVERYTHING: Final = 1 << 62


@mypyc_attr(allow_interpreted_subclasses=True)
class Connection:
    """One end of a Gearman conversation.

    Args:
        max_packet: largest payload accepted from the peer, in bytes.
    """

    __slots__ = ("closing", "decoder", "out", "paused", "stopped")

    incoming: ClassVar[bytes]
    """The magic of the packets this end hears."""

    rows: ClassVar[Sequence[Row]]
    """The packets this end hears, by number."""

    def __init__(self, max_packet: int = MAX_PACKET) -> None:
        self.decoder = Decoder(self.incoming, self.rows, max_packet=max_packet, max_line=LINE_LIMIT)
        self.out: list[bytes] = []
        self.stopped = False
        self.paused = False
        self.closing: CloseReason | None = None

    def receive(self, data: bytes, turn: int = _EVERYTHING) -> bool:
        """Take bytes from the peer and handle at most ``turn`` packets.

        Returns:
            Whether more packets may be waiting; call again with ``b""``.
        """
        if self.stopped:
            return False
        if data:
            self.decoder.feed(data)
        more = self.decoder.run(self, turn)
        if self.closing is not None:
            self.decoder.discard()
            return False
        if self.paused:
            self.stopped = self.paused = False
            return self.decoder.buffered > 0
        return more

    def take(self) -> list[bytes]:
        """Everything to be sent to the peer, once."""
        out = self.out
        self.out = []
        return out

    def end_turn(self) -> None:
        """Handle no more packets in this call of :meth:`receive`: the last one was enough work."""
        self.stopped = self.paused = True

    def close(self, reason: CloseReason) -> None:
        """Ask for the end of the connection, after what is in ``out`` was sent."""
        self.stopped = True
        if self.closing is None:
            self.closing = reason

    # What the decoder reports beside packets. An end that hears no text treats it as bad magic.

    def on_text(self, line: bytes) -> None:
        self.on_bad_magic(line[:4])

    def on_bad_magic(self, start: bytes) -> None:
        self.close(CloseReason.BAD_MAGIC)

    def on_wrong_magic(self, number: int) -> None:
        self.close(CloseReason.BAD_MAGIC)

    def on_unknown_type(self, number: int) -> None:
        self.close(CloseReason.UNKNOWN_TYPE)

    def on_malformed(self, number: int) -> None:
        self.close(CloseReason.MALFORMED)

    def on_too_large(self, number: int, size: int) -> None:
        self.close(CloseReason.TOO_LARGE)

    def on_large_submission(self, number: int) -> None:
        self.close(CloseReason.TOO_LARGE)

    def on_line_too_long(self) -> None:
        self.close(CloseReason.LINE_TOO_LONG)


__all__ = ["MAX_PACKET", "REQ", "RES", "Connection"]
