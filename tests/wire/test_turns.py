"""Where a decoder stops, and what it has in hand then."""

from __future__ import annotations

from tests.wire.recording import Recorder, decode, decoder
from trigear.wire.codec import request
from trigear.wire.packets import CAN_DO, ECHO_REQ, PRE_SLEEP

LARGE = request(ECHO_REQ, bytes(100_000))
SMALL = request(PRE_SLEEP)


def test_a_large_packet_counts_as_one_and_not_more() -> None:
    target, machine = Recorder(), decoder()
    machine.feed(LARGE[:50_000])
    assert not machine.run(target, 2)
    machine.feed(LARGE[50_000:] + SMALL * 3)
    assert machine.run(target, 2)
    assert [entry[1] for entry in target.entries] == [ECHO_REQ, PRE_SLEEP]
    assert not machine.run(target, 2)
    assert len(target.entries) == 4


def test_there_is_nothing_more_when_everything_was_handled_in_the_last_turn() -> None:
    target, machine = Recorder(), decoder()
    machine.feed(SMALL * 3)
    assert machine.run(target, 2)
    assert not machine.run(target, 1)
    assert not machine.run(target, 1)
    assert len(target.entries) == 3


def test_an_empty_first_line_is_no_beginning_of_a_long_one() -> None:
    lines = b"\n" + b"version\n" * 2000
    assert decode([lines]) == [("text", b""), *[("text", b"version")] * 2000]


def test_a_line_is_measured_from_its_own_beginning() -> None:
    packet = request(ECHO_REQ, bytes(8000))
    assert decode([packet + b"vers" * 40, b"\n"]) == [
        ("packet", ECHO_REQ, bytes(8000)),
        ("text", b"vers" * 40),
    ]


def test_the_types_of_a_chunk_are_remembered_in_order() -> None:
    target, machine = Recorder(), decoder()
    machine.feed(request(ECHO_REQ, b"x") + request(CAN_DO, b"f") + SMALL + SMALL[:5])
    machine.run(target, 99)
    assert machine.recent_types() == [ECHO_REQ, CAN_DO, PRE_SLEEP]
