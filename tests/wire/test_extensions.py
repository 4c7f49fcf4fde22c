"""trigear's own packets: where their numbers may lie, and how they are cut."""

from __future__ import annotations

import pytest

from tests.wire.recording import decode
from trigear.wire.codec import REQ, RES, request, response, rows_for
from trigear.wire.packets import (
    EXTENDED_OPTION,
    EXTENSIONS,
    GET_RESULT,
    JOB_DETACH,
    PACKETS,
    REPLIES,
    RESULT,
    Packet,
    Side,
)

SASL = range(101, 108)
FREE = range(114, 120)
NODES = range(128, 140)

EVERY = pytest.mark.parametrize("packet", EXTENSIONS.values(), ids=lambda p: p.name)


@EVERY
def test_an_extension_takes_no_number_that_is_kept_for_something_else(packet: Packet) -> None:
    assert 101 <= packet.number < 128
    assert packet.number not in {*PACKETS, *SASL, *FREE, *NODES}


def test_of_the_extensions_one_is_answered_by_another() -> None:
    answered = {packet.number: packet.replies for packet in EXTENSIONS.values() if packet.replies}
    assert answered == {GET_RESULT: (RESULT,)}
    assert EXTENSIONS.keys() & REPLIES == {RESULT}


@EVERY
def test_an_extension_goes_one_way_and_means_every_argument(packet: Packet) -> None:
    assert (packet.asked_by is Side.NONE) != (packet.sent_to is Side.NONE)
    assert packet.served
    assert packet.least == len(packet.args)


@EVERY
def test_only_the_last_argument_may_hold_anything(packet: Packet) -> None:
    *names, last = (name.encode() for name in packet.args)
    last += b"\0\n\xff\0"
    magic, build = (REQ, request) if packet.asked_by else (RES, response)
    assert decode([build(packet.number, *names, last)], magic) == [
        ("packet", packet.number, *names, last)
    ]


def test_an_extension_may_be_in_force_alone() -> None:
    rows = rows_for({JOB_DETACH: lambda *_: None})
    assert [number for number, row in enumerate(rows) if row is not None] == [JOB_DETACH]


def test_the_name_of_the_option_is_in_lower_case_as_it_is_compared() -> None:
    assert EXTENDED_OPTION.lower() == EXTENDED_OPTION
