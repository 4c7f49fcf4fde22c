"""Job handles: never the same twice, all of one width, and telling nobody how many there are.

A handle is ``<prefix>:<20 digits>``. The digits are a permutation, chosen by a key, of a counter
of 64 bits: a Feistel network over its halves with AES as the round function. Neighbouring
submissions get unrelated handles, so that a client learns nothing of the volume of others; equal
width makes handles prefix-free, which libgearman 2 needs to tell them apart.

Handles are made a block at a time, with whole blocks as operands, because one at a time would
cost more than the rest of the submission.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK: Final = 256
_ROUNDS: Final = 6
_HALF: Final = (1 << 32) - 1
_LANE: Final = struct.Struct(">I12x")


class HandleMint:
    """Makes job handles.

    Args:
        prefix: what handles begin with, as bytes of the wire.
        key: 16 random bytes. Two mints with the same key and first number make the same handles.
        first: the first number of the counter to use.
    """

    __slots__ = ("_encrypt", "_mask", "_next", "_prefix", "_ready", "_salts")

    def __init__(self, prefix: bytes, key: bytes, first: int = 0) -> None:
        self._prefix = prefix + b":"
        # The mode is of no matter for single blocks that are all different; nothing is kept secret
        # in them, they are the random function of a Feistel round.
        cipher = Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305
        self._encrypt = cipher.encryptor()
        self._next = first
        self._ready: list[bytes] = []
        # Every number occupies the first 4 bytes of a 16-byte lane; the salt of a round fills
        # the last byte of each lane.
        self._mask = int.from_bytes(b"\xff\xff\xff\xff" + bytes(12)) * _lanes(_BLOCK)
        self._salts = [turn * _lanes(_BLOCK) for turn in range(1, _ROUNDS + 1)]

    def __call__(self, tenant: str, function: bytes, unique: bytes) -> bytes:
        """A new handle. What it is for does not show in it."""
        if not self._ready:
            self._refill()
        return self._ready.pop()

    def _refill(self) -> None:
        numbers = range(self._next, self._next + _BLOCK)
        self._next += _BLOCK
        left = _spread([number >> 32 for number in numbers])
        right = _spread([number & _HALF for number in numbers])
        update, mask = self._encrypt.update, self._mask
        for salt in self._salts:
            mixed = int.from_bytes(update((right | salt).to_bytes(_BLOCK * 16)))
            left, right = right, left ^ (mixed & mask)
        prefix = self._prefix
        self._ready = [
            b"%s%020d" % (prefix, high << 32 | low)
            for high, low in zip(_gather(left), _gather(right), strict=True)
        ]
        self._ready.reverse()


def _lanes(count: int) -> int:
    """The number with 1 at the low end of each of ``count`` lanes of 16 bytes."""
    return int.from_bytes((bytes(15) + b"\x01") * count)


def _spread(halves: list[int]) -> int:
    """Put 32-bit numbers into the first 4 bytes of their lanes."""
    return int.from_bytes(b"".join([_LANE.pack(half) for half in halves]))


def _gather(lanes: int) -> Iterator[int]:
    """The 32-bit numbers in the first 4 bytes of the lanes."""
    return (half for (half,) in _LANE.iter_unpack(lanes.to_bytes(_BLOCK * 16)))
