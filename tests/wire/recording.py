"""A decoder's target that writes down everything it is told, for every packet of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from trigear.wire.codec import REQ, Decoder, Handler, Row, rows_for
from trigear.wire.packets import EXTENSIONS, LOGINS, PACKETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Entry = tuple[Any, ...]


def noting(number: int) -> Handler:
    def note(target: Recorder, *args: bytes) -> None:
        target.entries.append(("packet", number, *args))
        target.after_each()

    return note


EVERY_PACKET: Final = {**PACKETS, **EXTENSIONS, **LOGINS}

ALL_ROWS: Final[tuple[Row, ...]] = rows_for({number: noting(number) for number in EVERY_PACKET})


class Recorder:
    """Stops, as a connection does, at whatever makes the rest of the stream worthless."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.stopped = False
        self.after_each: Callable[[], None] = lambda: None

    def on_text(self, line: bytes) -> None:
        self.entries.append(("text", line))
        self.after_each()

    def on_wrong_magic(self, number: int) -> None:
        self.entries.append(("wrong magic", number))

    def on_unknown_type(self, number: int) -> None:
        self.entries.append(("unknown type", number))

    def _end(self, *entry: object) -> None:
        self.entries.append(entry)
        self.stopped = True

    def on_malformed(self, number: int) -> None:
        self._end("malformed", number)

    def on_bad_magic(self, start: bytes) -> None:
        self._end("bad magic", start)

    def on_too_large(self, number: int, size: int) -> None:
        self._end("too large", number, size)

    def on_large_submission(self, number: int) -> None:
        self.entries.append(("large submission", number))

    def on_line_too_long(self) -> None:
        self._end("line too long")

    def stop_after(self, count: int) -> None:
        """Stop the decoder when so many packets and lines have come."""

        def look() -> None:
            self.stopped = len(self.entries) >= count

        self.after_each = look


def decoder(magic: bytes = REQ, *, max_packet: int = 1 << 20, max_line: int = 8192) -> Decoder:
    return Decoder(magic, ALL_ROWS, max_packet=max_packet, max_line=max_line)


def decode(
    pieces: Iterable[bytes], magic: bytes = REQ, *, max_packet: int = 1 << 20, turn: int = 1 << 62
) -> list[Entry]:
    """What a decoder says to a stream that arrives in these pieces.

    Once it said that the stream is worthless nothing more is fed, as in a connection.
    """
    target = Recorder()
    machine = decoder(magic, max_packet=max_packet)
    for piece in pieces:
        machine.feed(piece)
        while machine.run(target, turn):
            assert not target.stopped
        if target.stopped:
            break
    return target.entries


def byte_by_byte(stream: bytes) -> Iterable[bytes]:
    return (stream[at : at + 1] for at in range(len(stream)))


def halves(stream: bytes) -> Iterable[tuple[bytes, bytes]]:
    """The stream cut in two, at every place."""
    return ((stream[:at], stream[at:]) for at in range(len(stream) + 1))
