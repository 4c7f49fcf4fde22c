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
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_BLOCK: Final = 256
_SIZE: Final = _BLOCK * 16
_ROUNDS: Final = 6
_NUMBERS: Final = struct.Struct(">" + "Q8x" * _BLOCK)
"""The 64-bit numbers at the beginning of each lane of 16 bytes."""

_LANES: Final = int.from_bytes((bytes(15) + b"\x01") * _BLOCK)
"""1 at the low end of each lane."""

_HALVES: Final = _LANES << 96
"""1 in the first 4 bytes of each lane."""

_MASK: Final = _HALVES * 0xFFFFFFFF
"""All of the first 4 bytes of each lane."""

_PLACES: Final = int.from_bytes(_NUMBERS.pack(*range(_BLOCK))) << 32
"""The place of each lane in the block, in its first 4 bytes."""


class HandleMint:
    """Makes job handles.

    Args:
        prefix: what handles begin with, as bytes of the wire.
        key: 16 random bytes. Two mints with the same key and first number make the same handles.
        first: the first number of the counter to use.
    """

    __slots__ = ("_encrypt", "_format", "_next", "_ready", "_salts", "_skipped")

    def __init__(self, prefix: bytes, key: bytes, first: int = 0) -> None:
        self._format = prefix.replace(b"%", b"%%") + b":%020d"
        # The mode is of no matter for single blocks that are all different; nothing is kept secret
        # in them, they are the random function of a Feistel round.
        cipher = Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305
        self._encrypt = cipher.encryptor()
        self._skipped = first % _BLOCK
        self._next = first - self._skipped
        self._ready: list[bytes] = []
        # Half a number occupies the first 4 bytes of a 16-byte lane; the salt of a round fills the
        # last byte of each lane.
        self._salts = [turn * _LANES for turn in range(1, _ROUNDS + 1)]

    def __call__(self, tenant: str, function: bytes, unique: bytes) -> bytes:
        """A new handle. What it is for does not show in it."""
        if not self._ready:
            self._refill()
        return self._ready.pop()

    def _refill(self) -> None:
        # A block begins with a multiple of its length, so its numbers differ in their low halves
        # only, and there by no more than their place in the block.
        first = self._next
        self._next = first + _BLOCK
        left = (first >> 32) * _HALVES
        right = (first & 0xFFFFFFFF) * _HALVES + _PLACES
        update = self._encrypt.update
        for salt in self._salts:
            mixed = int.from_bytes(update((right | salt).to_bytes(_SIZE)))
            left, right = right, left ^ (mixed & _MASK)
        template = self._format
        numbers = _NUMBERS.unpack((left | right >> 32).to_bytes(_SIZE))
        ready = [template % number for number in numbers[self._skipped :]]
        ready.reverse()
        self._ready = ready
        self._skipped = 0
