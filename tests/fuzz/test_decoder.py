"""The decoder's promise: any bytes at all become events or the end of the stream, nothing else.

However the bytes arrive, the events are the same, and nothing is kept of what was consumed.
"""

from __future__ import annotations

import gc
import random
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.mutation import TABLE, Mutator, first_seed, is_bounded
from tests.wire.recording import Entry, Recorder, byte_by_byte, decoder
from trigear.wire.codec import REQ, RES, request, response

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_PACKET = 100_000
SLACK = 1 << 20
"""Bytes by which the traced memory may have grown from a hundredth of the inputs to the last."""


def told(pieces: Iterable[bytes], magic: bytes) -> list[Entry]:
    """What the decoder says to the pieces of a stream, until it ends it.

    How much it has seen when it notices that something is no packet depends on the pieces.
    """
    target = Recorder()
    machine = decoder(magic, max_packet=MAX_PACKET, max_line=64)
    for piece in pieces:
        machine.feed(piece)
        while machine.run(target, 3):
            assert not target.stopped
        assert is_bounded(machine) or target.stopped
        if target.stopped:
            break
    return [entry[:1] if entry[0] == "bad magic" else entry for entry in target.entries]


def is_event(entry: Entry) -> bool:
    """Whether the decoder may say this."""
    what, *more = entry
    if what == "packet":
        number, *args = more
        expected = len(TABLE[number].args)
        return len(args) == expected and all(type(arg) is bytes for arg in args)
    return what in {
        "text",
        "wrong magic",
        "unknown type",
        "malformed",
        "bad magic",
        "too large",
        "line too long",
    }


@pytest.mark.usefixtures("untraced")
def test_any_bytes_are_events_or_the_end_and_leave_nothing_behind(
    fuzz_examples: int,
) -> None:
    seed = first_seed()
    mutator = Mutator(seed)
    early = max(fuzz_examples // 100, 1)
    traced: dict[int, int] = {}
    tracemalloc.start()
    try:
        for example in range(1, fuzz_examples + 1):
            stream = mutator.stream()
            magic = RES if example % 4 == 0 else REQ
            whole = told([stream], magic)
            where = f"seed {seed}, input {example}: {stream!r}"
            assert all(map(is_event, whole)), where
            assert told(byte_by_byte(stream), magic) == whole, where
            assert told(mutator.pieces(stream), magic) == whole, where
            if example in (early, fuzz_examples):
                del stream, whole, where
                gc.collect()
                traced[example] = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    grown = traced[fuzz_examples] - traced[early]
    print(f"{fuzz_examples} inputs; bytes traced: {traced}")
    assert grown < SLACK


def test_large_packets_survive_any_cut(fuzz_examples: int) -> None:
    seed = first_seed()
    mutator = Mutator(seed)
    for example in range(fuzz_examples // 100):
        stream = mutator.stream()
        # what is behind the large packet is at the mercy of what the mutation made of its header
        large = b"\0REQ\0\0\0\x10\0\1\0\1" + b"x" * 65537 + stream
        whole = told([large], REQ)
        assert whole[0] == ("packet", 16, b"x" * 65537)
        where = f"seed {seed}, input {example}: {stream!r}"
        assert whole[1:] == told([stream], REQ), where
        assert told(mutator.pieces(large), REQ) == whole, where


CHUNKS = (0, 1, 2, 11, 12, 13, 100, 4095, 4096, 4097, 8191, 8192, 8193, 65535, 65536, 70_000)
"""Sizes at which gathering may go another way."""


def large(chance: random.Random) -> bytes:
    """A packet of any type and either direction that may have to be gathered, with NULs anywhere:
    in the header's neighbourhood, far behind it, or last."""
    body = bytearray(b"x") * chance.choice((65_500, 65_536, 65_537, 70_000, 99_000))
    for _ in range(chance.randint(0, 6)):
        body[chance.choice((chance.randrange(60), chance.randrange(len(body)), -1))] = 0
    build = chance.choice((request, request, request, response))
    return build(chance.choice((*TABLE, 0, 5, 999)), bytes(body))


def dealt(stream: bytes, chance: random.Random) -> Iterator[list[bytes]]:
    """The stream in chunks; those of one list come before anything is looked at, as they do while
    a connection is held."""
    at = 0
    while at < len(stream):
        hand = []
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            size = chance.choice(CHUNKS)
            hand.append(stream[at : at + size])
            at += size
        yield hand


def test_large_packets_of_any_type_are_the_same_in_pieces(fuzz_examples: int) -> None:
    seed = first_seed()
    chance = random.Random(seed)
    mutator = Mutator(seed)
    for example in range(fuzz_examples // 50):
        parts = [large(chance) if chance.random() < 0.6 else mutator.sound() for _ in range(3)]
        stream = b"".join(parts)
        whole = told([stream], REQ)
        where = f"seed {seed}, input {example}: {[part[:80] for part in parts]}"
        target = Recorder()
        machine = decoder(REQ, max_packet=MAX_PACKET, max_line=64)
        most = machine.wanted
        assert most == 0
        for hand in dealt(stream, chance):
            for piece in hand:
                machine.feed(piece)
                assert 0 <= machine.wanted <= most, where
            while machine.run(target, 1):
                assert not target.stopped, where
            if target.stopped:
                break
            most = machine.wanted
            assert most <= MAX_PACKET, where
        assert target.entries == whole, where
        assert all(map(is_event, target.entries)), where
        assert target.stopped or machine.buffered == 0, where
