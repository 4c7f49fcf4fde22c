"""Streams to feed a machine: what the tables say, and what chance makes of it."""

from __future__ import annotations

import os
import random
import struct
from typing import TYPE_CHECKING, Final

from trigear.wire.codec import HEADER_SIZE, REQ, RES, request, response
from trigear.wire.commands import COMMANDS
from trigear.wire.packets import EXTENSIONS, LOGINS, PACKETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trigear.wire.codec import Decoder

VARIABLE: Final = "TRIGEAR_FUZZ_EXAMPLES"

NAMES: Final = (
    b"",
    b"f",
    b"g",
    b"-",
    b"u",
    b"exceptions",
    b"trigear",
    b"\xff\n",
    b"7",
    b"1500",
    b"x" * 65,
)
"""Arguments that mean something somewhere."""

TABLE: Final = {**PACKETS, **EXTENSIONS, **LOGINS}

HANDLES: Final = tuple(b"H:memory:%020d" % number for number in range(1, 9))

LINES: Final = tuple(
    " ".join([*command.words, *("f" for _ in command.args)]).encode() for command in COMMANDS
)

SIZES: Final = (0, 1, 255, 1 << 16, (1 << 16) + 1, 1 << 20, (1 << 31) - 1, (1 << 32) - 1)


def first_seed() -> int:
    """Every ordinary run tries the same streams; a run with a budget of its own tries new ones."""
    return 0 if VARIABLE not in os.environ else random.SystemRandom().getrandbits(32)


class Mutator:
    """Makes streams. The same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._numbers = sorted(TABLE)

    def sound(self) -> bytes:
        """A whole packet or a line."""
        chance = self._chance
        kind = chance.random()
        if kind < 0.15:
            return chance.choice(LINES) + chance.choice((b"\n", b"\r\n"))
        number = chance.choice(self._numbers)
        args = [
            chance.choice(HANDLES if name == "handle" else NAMES) for name in TABLE[number].args
        ]
        if kind < 0.9:
            return request(number, *args)
        return response(number, *args)

    def stream(self) -> bytes:
        """A few packets and lines, most of the time not quite as they should be."""
        chance = self._chance
        parts = [self.sound() for _ in range(chance.choice((1, 1, 2, 4)))]
        data = bytearray(b"".join(parts))
        for _ in range(chance.choice((0, 1, 1, 2, 5))):
            chance.choice(_MUTATIONS)(data, chance)
        return bytes(data)

    def pieces(self, stream: bytes) -> Iterator[bytes]:
        """The stream as it may arrive."""
        at = 0
        while at < len(stream):
            size = self._chance.randint(1, len(stream))
            yield stream[at : at + size]
            at += size


def _flip(data: bytearray, chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _replace(data: bytearray, chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.choice((0, 10, 13, 32, 82, 255))


def _cut(data: bytearray, chance: random.Random) -> None:
    start = chance.randint(0, len(data))
    del data[start : start + chance.randint(0, 12)]


def _insert(data: bytearray, chance: random.Random) -> None:
    at = chance.randint(0, len(data))
    data[at:at] = chance.randbytes(chance.randint(1, 12))


def _insert_nul(data: bytearray, chance: random.Random) -> None:
    data.insert(chance.randint(0, len(data)), 0)


def _repeat(data: bytearray, chance: random.Random) -> None:
    start = chance.randint(0, len(data))
    data[start:start] = data[start : start + chance.randint(1, 40)]


def _truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randint(0, len(data)) :]


def _set_type(data: bytearray, chance: random.Random) -> None:
    if len(data) >= HEADER_SIZE and not data[0]:
        struct.pack_into(
            ">I", data, 4, chance.choice((0, 5, 43, 107, 108, 1 << 31, chance.randrange(43)))
        )


def _set_size(data: bytearray, chance: random.Random) -> None:
    if len(data) >= HEADER_SIZE and not data[0]:
        (size,) = struct.unpack_from(">I", data, 8)
        wrong = chance.choice((*SIZES, size + 1, max(size - 1, 0)))
        struct.pack_into(">I", data, 8, min(wrong, (1 << 32) - 1))


def _set_magic(data: bytearray, chance: random.Random) -> None:
    if len(data) >= 4 and not data[0]:
        data[:4] = chance.choice((REQ, RES, b"\0RE\0", b"\0rEQ", b"\0\0\0\0"))


_MUTATIONS: Final = (
    _flip,
    _replace,
    _cut,
    _insert,
    _insert_nul,
    _repeat,
    _truncate,
    _set_type,
    _set_size,
    _set_magic,
)


def is_bounded(decoder: Decoder) -> bool:
    """Whether the decoder holds no more than one packet, or a line, and a header."""
    return decoder.buffered <= max(decoder.max_packet, decoder.max_line) + HEADER_SIZE
