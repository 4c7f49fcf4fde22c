"""Between bytes and packets: build packets, and cut a stream into them.

The decoder calls a handler per packet instead of returning packet objects: on a server's hot path
the objects cost more than everything else the packet needs. It reads with a cursor and drops what
it consumed once per chunk, never once per packet.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from trigear.wire.packets import EXTENSIONS, LOGINS, PACKETS

REQ: Final = b"\0REQ"
RES: Final = b"\0RES"
HEADER_SIZE: Final = 12

_HEADER: Final = struct.Struct(">4sII")
_unpack: Final = _HEADER.unpack_from
_pack: Final = _HEADER.pack

_LARGE: Final = 65536
"""A packet larger than this is gathered in the chunks it arrives in, and its last argument, the
workload, is joined of them: one copy, and no buffer for bytes that were only announced."""

_SMALL: Final = 4096
"""Chunks below this are gathered into one, so that bytes that trickle in are no million objects."""

_LATELY: Final = 16
"""Chunks that begin with something else until no large packet is expected any more."""

_SUBMISSIONS: Final = frozenset(
    number for number, packet in PACKETS.items() if packet.name.startswith("SUBMIT_")
)

Handler = Callable[..., None]
Row = tuple[int, int, bool, Handler] | None
"""How to take one packet type apart: number of NULs to split at (-1: no arguments), fewest
arguments, whether to drop one trailing NUL, handler."""


def request(number: int, *args: bytes) -> bytes:
    """A packet to a server."""
    payload = b"\0".join(args)
    return _pack(REQ, number, len(payload)) + payload


def response(number: int, *args: bytes) -> bytes:
    """A packet from a server."""
    payload = b"\0".join(args)
    return _pack(RES, number, len(payload)) + payload


def rows_for(handlers: Mapping[int, Handler]) -> tuple[Row, ...]:
    """The decoder's rows for the packet types that ``handlers`` names."""
    rows: list[Row] = [None] * (max(handlers) + 1)
    for number, handler in handlers.items():
        packet = PACKETS.get(number) or EXTENSIONS.get(number) or LOGINS[number]
        rows[number] = (len(packet.args) - 1, packet.least, packet.strip_nul, handler)
    return tuple(rows)


def head(number: int, size: int) -> bytes:
    """The header alone of a packet from a server whose payload has ``size`` bytes."""
    return _pack(RES, number, size)


class Target(Protocol):
    """Whom the decoder calls. ``stopped`` ends the decoding after the packet at hand."""

    stopped: bool

    def on_text(self, line: bytes) -> None:
        """A text line, without its end."""

    def on_wrong_magic(self, number: int) -> None:
        """A whole packet with the magic of the other direction; it is skipped."""

    def on_unknown_type(self, number: int) -> None:
        """A whole packet of a type that this side does not take; it is skipped."""

    def on_malformed(self, number: int) -> None:
        """A packet with fewer arguments than its type needs."""

    def on_bad_magic(self, start: bytes) -> None:
        """Bytes that begin with NUL but are no packet; nothing after them makes sense."""

    def on_too_large(self, number: int, size: int) -> None:
        """A header that announces more than ``max_packet`` bytes."""

    def on_large_submission(self, number: int) -> None:
        """A header of a submission that announces more than ``max_submission`` bytes; the packet
        will be skipped."""

    def on_line_too_long(self) -> None:
        """A text line without an end within ``max_line`` bytes."""


class _Skipped:
    """Stands where a large packet would be gathered, and keeps nothing of it."""

    __slots__ = ("_left", "_size", "rest")

    def __init__(self, start: int, need: int) -> None:
        self._size = start
        self._left = need - start
        self.rest = b""
        """What came behind the packet."""

    def extend(self, data: bytes) -> None:
        self._size += len(data)
        self.rest += data[self._left :]
        self._left = max(self._left - len(data), 0)

    def __len__(self) -> int:
        return self._size


class _Gathered:
    """The chunks of a large packet that came so far."""

    __slots__ = ("_parts", "_size")

    def __init__(self, begun: bytes) -> None:
        self._parts: list[bytes | bytearray | memoryview] = [
            bytearray(begun) if len(begun) < _SMALL else begun
        ]
        """Never an empty one. The first has the header."""
        self._size = len(begun)

    def extend(self, data: bytes) -> None:
        size = len(data)
        self._size += size
        last = self._parts[-1]
        if size >= _SMALL:
            self._parts.append(data)
        elif isinstance(last, bytearray) and len(last) < _SMALL:
            last += data
        elif size:
            self._parts.append(bytearray(data))

    def __len__(self) -> int:
        return self._size

    def cut(self, need: int) -> bytes:
        """Take off what came behind the first ``need`` bytes, which are all there."""
        rest: list[bytes] = []
        parts = self._parts
        while self._size > need:
            last = parts.pop()
            keep = max(len(last) - (self._size - need), 0)
            rest.append(bytes(memoryview(last)[keep:]))
            self._size -= len(last) - keep
            if keep:
                parts.append(memoryview(last)[:keep])
        rest.reverse()
        return b"".join(rest)

    def header(self) -> tuple[bytes, int, int]:
        """Magic, number and size."""
        return _unpack(self._parts[0], 0)

    def arguments(self, splits: int, strip: bool) -> list[bytes]:
        """Take the packet apart, as its row says, into at most ``splits`` arguments and one more.
        It is complete, and cut; nothing of it is left here."""
        parts, self._parts = self._parts, []
        begun = b""
        args: list[bytes] = []
        start = count = 0
        # The first chunk has what is before the workload, or the one behind a lonely header. Longer
        # arguments than that are nobody's, but such a packet is judged like any other.
        for count in (1, 2, len(parts)):
            begun = b"".join(parts[:count])
            args, start = _split(begun, splits)
            if len(args) == splits:
                break
        last = parts[count:]
        if start < len(begun) or not last:
            last.insert(0, memoryview(begun)[start:])
        if strip and splits == 0 and not last[-1][-1]:
            last[-1] = memoryview(last[-1])[:-1]
        # No copy is made of a single chunk.
        args.append(b"".join(last))
        return args


def _split(begun: bytes, splits: int) -> tuple[list[bytes], int]:
    """The first ``splits`` arguments, as far as they are there, and where they end."""
    args: list[bytes] = []
    start = HEADER_SIZE
    while len(args) < splits and (stop := begun.find(b"\0", start)) >= 0:
        args.append(begun[start:stop])
        start = stop + 1
    return args, start


class Decoder:
    """Cuts one direction of a connection into packets and text lines.

    ``magic`` is what packets begin with, ``rows`` says by packet number how to take them apart,
    ``max_packet`` limits a packet's payload and is checked before anything is buffered for it, and
    ``max_line`` limits a text line, both in bytes. A submission of more than ``max_submission``
    bytes is skipped instead of being gathered, and what comes behind it is heard; one that is there
    whole is handed over all the same, for who takes it to measure.
    """

    __slots__ = (
        "_buf",
        "_large",
        "_magic",
        "_need",
        "_pos",
        "expects_large",
        "max_line",
        "max_packet",
        "max_submission",
        "rows",
    )

    def __init__(
        self, magic: bytes, rows: Sequence[Row], *, max_packet: int, max_line: int
    ) -> None:
        self._magic = magic
        self.rows = rows
        self.max_packet = max_packet
        self.max_line = max_line
        self.max_submission: int | None = None
        self._buf = b""
        self._pos = 0
        self._large: _Gathered | _Skipped | None = None
        self._need = 0
        self.expects_large = 0
        """Not 0 while a large packet is gathered, and for a while after one: so many chunks may
        begin with something else until none is expected any more."""

    def start_of_large(self, peeked: bytes) -> int:
        """How much to read by itself of what came, so that the workload of a large packet comes in
        chunks of its own: a single one is not even copied.

        Args:
            peeked: what has come, or the first thousands of bytes of it, while nothing is buffered.

        Returns:
            Bytes; 0 if it begins with something else.
        """
        if len(peeked) >= HEADER_SIZE:
            found, number, size = _unpack(peeked, 0)
            if found == self._magic and size > _LARGE and number < len(self.rows):
                row = self.rows[number]
                if row is not None and row[0] > 0:
                    args, start = _split(peeked, row[0])
                    if len(args) == row[0]:
                        return start
        self.expects_large = max(self.expects_large - 1, 0)
        return 0

    @property
    def wanted(self) -> int:
        """Bytes that a large packet still lacks; 0 if none was begun."""
        return 0 if self._large is None else max(self._need - len(self._large), 0)

    @property
    def buffered(self) -> int:
        """Bytes received and not yet handed to a handler."""
        if self._large is not None:
            return len(self._large)
        return len(self._buf) - self._pos

    def feed(self, data: bytes) -> None:
        """Take more bytes in. Decodes nothing."""
        if self._large is not None:
            self._large.extend(data)
        elif self._pos < len(self._buf):
            self._buf = self._buf[self._pos :] + data
            self._pos = 0
        else:
            self._buf = data
            self._pos = 0

    def discard(self) -> None:
        """Forget what is buffered; the connection is past use."""
        self._buf = b""
        self._pos = 0
        self._large = None

    def recent_types(self) -> list[int]:
        """The packet types of the current chunk up to the cursor, newest last; for fault logs."""
        types = []
        pos, end = 0, self._pos
        while pos + HEADER_SIZE <= end and self._buf[pos : pos + 4] in (REQ, RES):
            _, number, size = _unpack(self._buf, pos)
            types.append(number)
            pos += HEADER_SIZE + size
        return types[-16:]

    def run(self, target: Target, turn: int) -> bool:
        """Hand at most ``turn`` packets or lines to ``target``.

        Returns:
            Whether more may be waiting in the buffer: call again. Never because of a packet
            that is still incomplete.
        """
        if self._large is not None:
            if len(self._large) < self._need:
                return False
            self._run_large(target)
            turn -= 1
            if target.stopped:
                return False
        buf = self._buf
        pos = self._pos
        end = len(buf)
        rows = self.rows
        magic = self._magic
        count = len(rows)
        while pos < end:
            if turn <= 0:
                return True
            if buf[pos]:
                stop = buf.find(b"\n", pos)
                if stop - pos >= self.max_line or (stop < 0 and end - pos >= self.max_line):
                    target.on_line_too_long()
                    return False
                if stop < 0:
                    return False
                start = pos
                self._pos = pos = stop + 1
                if stop > start and buf[stop - 1] == 13:
                    stop -= 1
                target.on_text(buf[start:stop])
            else:
                if end - pos < HEADER_SIZE:
                    begun = buf[pos : pos + 4]
                    if not (REQ.startswith(begun) or RES.startswith(begun)):
                        target.on_bad_magic(begun)
                    return False
                found, number, size = _unpack(buf, pos)
                body = pos + 12
                stop = body + size
                if stop > end:
                    if found != magic and found != REQ and found != RES:
                        target.on_bad_magic(found)
                    elif size > self.max_packet:
                        target.on_too_large(number, size)
                    elif size > _LARGE:
                        self._need = size + 12
                        if found == magic and self._skips(number, size):
                            target.on_large_submission(number)
                            self._large = _Skipped(end - pos, self._need)
                        else:
                            self._large = _Gathered(buf[pos:])
                        self.expects_large = _LATELY
                        self._buf = b""
                        self._pos = 0
                    return False
                if size > self.max_packet:
                    if found == magic or found in (REQ, RES):
                        target.on_too_large(number, size)
                    else:
                        target.on_bad_magic(found)
                    return False
                self._pos = pos = stop
                if found == magic and number < count and (row := rows[number]) is not None:
                    splits, least, strip, handler = row
                    if splits > 0:
                        args = buf[body:stop].split(b"\0", splits)
                        if len(args) <= splits:
                            if len(args) < least:
                                target.on_malformed(number)
                                return False
                            args += [b""] * (splits + 1 - len(args))
                        handler(target, *args)
                    elif splits == 0:
                        if strip and stop > body and not buf[stop - 1]:
                            stop -= 1
                        handler(target, buf[body:stop])
                    else:
                        handler(target)
                elif found == magic:
                    target.on_unknown_type(number)
                elif found in (REQ, RES):
                    target.on_wrong_magic(number)
                else:
                    target.on_bad_magic(found)
                    return False
            turn -= 1
            if target.stopped:
                return False
        # everything is consumed: let go of the chunk rather than keep it until the next one
        self._buf = b""
        self._pos = 0
        return False

    def _skips(self, number: int, size: int) -> bool:
        most = self.max_submission
        return most is not None and size > most and number in _SUBMISSIONS

    def _run_large(self, target: Target) -> None:
        """Hand over the packet in the large buffer, which is complete."""
        large = self._large
        assert large is not None
        self._large = None
        self._pos = 0
        if isinstance(large, _Skipped):
            self._buf = large.rest
            return
        self._buf = large.cut(self._need)
        found, number, _ = large.header()
        if found != self._magic:
            target.on_wrong_magic(number)
            return
        row = self.rows[number] if number < len(self.rows) else None
        if row is None:
            target.on_unknown_type(number)
            return
        splits, least, strip, handler = row
        args = large.arguments(splits, strip) if splits >= 0 else []
        if len(args) < least:
            target.on_malformed(number)
            return
        handler(target, *args, *[b""] * (splits + 1 - len(args)))
