"""The codec: what is built can be taken apart, however the bytes arrive."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from itertools import cycle, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.recording import (
    ALL_ROWS,
    EVERY_PACKET,
    Entry,
    Recorder,
    byte_by_byte,
    decode,
    decoder,
    halves,
)
from trigear.wire import codec
from trigear.wire.codec import HEADER_SIZE, REQ, RES, Decoder, head, request, response, rows_for
from trigear.wire.packets import (
    CAN_DO,
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    GET_STATUS,
    GRAB_JOB,
    JOB_ASSIGN_UNIQ,
    JOB_CREATED,
    PACKETS,
    PRE_SLEEP,
    SUBMIT_JOB,
    SUBMIT_JOB_EPOCH,
    SUBMIT_REDUCE_JOB,
    WORK_COMPLETE,
    WORK_FAIL,
    WORK_STATUS,
    Packet,
)

TAIL = request(ECHO_REQ, b"behind") + b"status\r\n"
TAIL_ENTRIES: list[Entry] = [("packet", ECHO_REQ, b"behind"), ("text", b"status")]

HANDLE = b"H:a:0001"

# Written down by hand from the layout: magic, type and size as hexadecimal, then the payload.
VECTORS = {
    "CAN_DO": (request(CAN_DO, b"sum"), "00524551 00000001 00000003 73756d"),
    "SUBMIT_JOB": (
        request(SUBMIT_JOB, b"sum", b"u1", b"1+2"),
        "00524551 00000007 0000000a 73756d00 753100 312b32",
    ),
    "JOB_CREATED": (
        response(JOB_CREATED, HANDLE),
        "00524553 00000008 00000008 483a613a30303031",
    ),
    "JOB_ASSIGN_UNIQ": (
        response(JOB_ASSIGN_UNIQ, HANDLE, b"sum", b"u1", b"1+2"),
        "00524553 0000001f 00000013 483a613a3030303100 73756d00 753100 312b32",
    ),
    "WORK_COMPLETE": (
        request(WORK_COMPLETE, HANDLE, b"3"),
        "00524551 0000000d 0000000a 483a613a3030303100 33",
    ),
    "WORK_FAIL": (request(WORK_FAIL, HANDLE), "00524551 0000000e 00000008 483a613a30303031"),
    "WORK_STATUS": (
        request(WORK_STATUS, HANDLE, b"1", b"2"),
        "00524551 0000000c 0000000c 483a613a3030303100 3100 32",
    ),
    "STATUS_RES": (
        response(20, HANDLE, b"0", b"0", b"0", b"0"),
        "00524553 00000014 00000010 483a613a3030303100 3000 3000 3000 30",
    ),
    "ERROR": (
        response(ERROR, b"QUEUE_ERROR", b"Job queue is full"),
        "00524553 00000013 0000001d 51554555455f4552524f52 00 4a6f62207175657565206973 2066756c6c",
    ),
    "GRAB_JOB": (request(GRAB_JOB), "00524551 00000009 00000000"),
}


@pytest.mark.parametrize(("built", "layout"), VECTORS.values(), ids=VECTORS)
def test_packets_have_the_bytes_of_the_protocol(built: bytes, layout: str) -> None:
    assert built == bytes.fromhex(layout)


@pytest.mark.parametrize("name", VECTORS)
def test_packets_of_the_protocol_are_understood(name: str) -> None:
    raw = bytes.fromhex(VECTORS[name][1])
    size = struct.unpack_from(">I", raw, 8)[0]
    (entry,) = decode([raw], raw[:4])
    assert PACKETS[entry[1]].name == name
    assert b"\0".join(entry[2:]) == raw[HEADER_SIZE : HEADER_SIZE + size]


def test_the_header_alone_is_the_start_of_the_packet() -> None:
    assert response(ECHO_RES, b"abc") == head(ECHO_RES, 3) + b"abc"


# Every row, both directions


def samples(packet: Packet, last: bytes = b"raw\0rest") -> tuple[bytes, ...]:
    """Arguments for a packet: names, and a last one with a NUL inside."""
    return (*(name.encode() for name in packet.args[:-1]), last)[: len(packet.args)]


ROWS = pytest.mark.parametrize("packet", EVERY_PACKET.values(), ids=lambda p: p.name)


@ROWS
def test_every_packet_comes_back_whole_split_and_byte_by_byte(packet: Packet) -> None:
    args = samples(packet)
    for build, magic in ((request, REQ), (response, RES)):
        raw = build(packet.number, *args)
        expected = [("packet", packet.number, *args)]
        assert decode([raw], magic) == expected
        assert decode(byte_by_byte(raw), magic) == expected
        for pieces in halves(raw):
            assert decode(pieces, magic) == expected


@ROWS
def test_every_packet_leaves_what_follows_alone(packet: Packet) -> None:
    args = samples(packet)
    raw = request(packet.number, *args) + TAIL
    expected = [("packet", packet.number, *args), *TAIL_ENTRIES]
    assert decode([raw]) == expected
    assert decode(byte_by_byte(raw)) == expected
    for pieces in halves(raw):
        assert decode(pieces) == expected


@ROWS
def test_every_packet_may_have_empty_arguments(packet: Packet) -> None:
    args = (b"",) * len(packet.args)
    assert decode([request(packet.number, *args) + TAIL]) == [
        ("packet", packet.number, *args),
        *TAIL_ENTRIES,
    ]


@ROWS
def test_missing_arguments_read_as_empty_down_to_the_fewest(packet: Packet) -> None:
    for count in range(1, len(packet.args)):
        raw = request(packet.number, *samples(packet, b"x")[:count]) + TAIL
        got = decode([raw])
        if count >= packet.least:
            filled = (*samples(packet, b"x")[:count], *[b""] * (len(packet.args) - count))
            assert got == [("packet", packet.number, *filled), *TAIL_ENTRIES]
        else:
            assert got == [("malformed", packet.number)]


Build = Callable[..., bytes]


@given(
    st.sampled_from(sorted(EVERY_PACKET)),
    st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\0", b"")), min_size=8, max_size=8),
    st.binary(max_size=40),
    st.sampled_from([request, response]),
)
def test_any_arguments_come_back(
    number: int, names: list[bytes], last: bytes, build: Build
) -> None:
    packet = EVERY_PACKET[number]
    if packet.strip_nul:
        last = last.rstrip(b"\0")
    args = (*names[: len(packet.args) - 1], last)[: len(packet.args)]
    raw = build(number, *args)
    assert decode([raw], raw[:4]) == [("packet", number, *args)]


def test_the_last_argument_may_hold_nul_bytes() -> None:
    assert decode([request(SUBMIT_JOB, b"f", b"u", b"\0a\0\0")]) == [
        ("packet", SUBMIT_JOB, b"f", b"u", b"\0a\0\0")
    ]


def test_a_payload_where_none_belongs_is_skipped() -> None:
    raw = request(GRAB_JOB, b"what is this") + TAIL
    assert decode([raw]) == [("packet", GRAB_JOB), *TAIL_ENTRIES]


def test_a_packet_is_cut_by_its_size_and_not_by_the_next_nul() -> None:
    """A missing NUL must not make the decoder read on into the following packet."""
    raw = struct.pack(">4sII", REQ, SUBMIT_JOB_EPOCH, 3) + b"f\0u" + TAIL
    assert decode([raw]) == [("malformed", SUBMIT_JOB_EPOCH)]
    raw = struct.pack(">4sII", REQ, WORK_COMPLETE, 3) + b"H:1" + TAIL
    assert decode([raw]) == [("packet", WORK_COMPLETE, b"H:1", b""), *TAIL_ENTRIES]


# Shapes that programs in use send


@pytest.mark.parametrize(
    ("raw", "args"),
    [
        pytest.param(
            struct.pack(">4sII", REQ, 13, 3) + b"H:1", (13, b"H:1", b""), id="no result, no NUL"
        ),
        pytest.param(request(13, b"H:1", b""), (13, b"H:1", b""), id="empty result"),
        pytest.param(request(12, b"H:1", b"5"), (12, b"H:1", b"5", b""), id="no denominator"),
        pytest.param(request(25, b"H:1"), (25, b"H:1", b""), id="exception without data"),
        pytest.param(request(28, b"H:1"), (28, b"H:1", b""), id="data without data"),
        pytest.param(request(29, b"H:1"), (29, b"H:1", b""), id="warning without text"),
        pytest.param(request(14, b"H:1\0"), (14, b"H:1"), id="WORK_FAIL with NUL"),
        pytest.param(request(15, b"H:1\0"), (15, b"H:1"), id="GET_STATUS with NUL"),
        pytest.param(request(41, b"u\0"), (41, b"u"), id="GET_STATUS_UNIQUE with NUL"),
        pytest.param(request(26, b"exceptions\0"), (26, b"exceptions"), id="OPTION_REQ with NUL"),
        pytest.param(request(22, b"me\0"), (22, b"me"), id="SET_CLIENT_ID with NUL"),
        pytest.param(request(14, b"\0"), (14, b""), id="nothing but a NUL"),
        pytest.param(request(14, b"H:1\0\0"), (14, b"H:1\0"), id="two NULs: one goes"),
        pytest.param(request(14, b""), (14, b""), id="nothing at all"),
        pytest.param(request(1, b"f\0"), (1, b"f\0"), id="CAN_DO keeps its bytes"),
        pytest.param(request(16, b"x\0"), (16, b"x\0"), id="ECHO_REQ keeps its bytes"),
    ],
)
def test_shapes_of_real_programs_are_understood(raw: bytes, args: tuple[object, ...]) -> None:
    expected = [("packet", *args), *TAIL_ENTRIES]
    assert decode([raw + TAIL]) == expected
    assert decode(byte_by_byte(raw + TAIL)) == expected


def test_a_reduce_job_has_four_arguments_before_its_data() -> None:
    assert decode([request(SUBMIT_REDUCE_JOB, b"f", b"u", b"r", b"", b"data")]) == [
        ("packet", SUBMIT_REDUCE_JOB, b"f", b"u", b"r", b"", b"data")
    ]


# Text


def test_text_and_packets_alternate() -> None:
    stream = b"status\n" + request(CAN_DO, b"f") + b"workers\r\n\n" + request(PRE_SLEEP) + b"x\n"
    expected = [
        ("text", b"status"),
        ("packet", CAN_DO, b"f"),
        ("text", b"workers"),
        ("text", b""),
        ("packet", PRE_SLEEP),
        ("text", b"x"),
    ]
    assert decode([stream]) == expected
    assert decode(byte_by_byte(stream)) == expected
    for pieces in halves(stream):
        assert decode(pieces) == expected


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"a\n", b"a"),
        (b"a\r\n", b"a"),
        (b"a\r\r\n", b"a\r"),
        (b"\r\n", b""),
        (b"\n", b""),
        (b"a\rb\n", b"a\rb"),
        (b"a\0b\n", b"a\0b"),
        (b"\xff\xfe\n", b"\xff\xfe"),
    ],
)
def test_a_line_ends_in_newline_with_or_without_one_return(raw: bytes, line: bytes) -> None:
    assert decode([raw]) == [("text", line)]
    assert decode(byte_by_byte(raw)) == [("text", line)]


def test_a_line_has_a_longest_length() -> None:
    target = Recorder()
    machine = decoder(max_line=8)
    machine.feed(b"1234567\n" + b"1234567\r\n")
    machine.run(target, 99)
    assert target.entries == [("text", b"1234567"), ("line too long",)]


def test_a_line_without_end_is_refused_as_soon_as_it_is_too_long() -> None:
    target = Recorder()
    machine = decoder(max_line=8)
    machine.feed(b"1234567")
    assert not machine.run(target, 99)
    assert target.entries == []
    machine.feed(b"8")
    assert not machine.run(target, 99)
    assert target.entries == [("line too long",)]


def test_the_length_of_a_line_counts_from_its_own_beginning() -> None:
    target = Recorder()
    machine = decoder(max_line=64)
    machine.feed(TAIL * 10 + b"sta")
    assert not machine.run(target, 99)
    assert target.entries == TAIL_ENTRIES * 10
    assert machine.buffered == 3


# What is no packet


def test_bytes_that_are_no_magic_are_noticed_at_the_first_that_is_wrong() -> None:
    for raw in (b"\0X", b"\0RX", b"\0REX", b"\0RESX"[:3] + b"X", b"\0\0"):
        assert decode(byte_by_byte(raw)) == [("bad magic", raw)]
    for raw in (b"\0", b"\0R", b"\0RE", b"\0REQ", b"\0RES", request(1, b"abc")[:11]):
        assert decode(byte_by_byte(raw)) == []


def test_a_whole_packet_of_no_magic_ends_the_stream() -> None:
    raw = struct.pack(">4sII", b"\0REX", 1, 0)
    assert decode([raw + TAIL]) == [("bad magic", b"\0REX")]
    raw = struct.pack(">4sII", b"\0REX", 1, 100)
    assert decode([raw]) == [("bad magic", b"\0REX")]


def test_a_packet_of_the_other_direction_is_reported_and_skipped() -> None:
    assert decode([response(CAN_DO, b"f") + TAIL]) == [("wrong magic", CAN_DO), *TAIL_ENTRIES]
    assert decode([request(CAN_DO, b"f")], RES) == [("wrong magic", CAN_DO)]


@pytest.mark.parametrize("number", [0, 5, 43, len(ALL_ROWS), 0xFFFFFFFF])
def test_an_unknown_type_is_reported_and_skipped(number: int) -> None:
    for data in (b"whatever", bytes(LARGE)):
        assert decode(chunks(request(number, data) + TAIL, 65536)) == [
            ("unknown type", number),
            *TAIL_ENTRIES,
        ]


# Large packets

LARGE = 200_000


def chunks(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


@pytest.mark.parametrize("size", [97, 4095, 4096, 65536, 1 << 20], ids=str)
@pytest.mark.parametrize(
    "number",
    [SUBMIT_JOB, SUBMIT_REDUCE_JOB, WORK_COMPLETE, ECHO_REQ],
    ids=lambda n: PACKETS[n].name,
)
def test_large_packets_come_back_whole(number: int, size: int) -> None:
    packet = PACKETS[number]
    args = samples(packet, bytes(range(256)) * (LARGE // 256))
    stream = TAIL + request(number, *args) + TAIL
    expected = [*TAIL_ENTRIES, ("packet", number, *args), *TAIL_ENTRIES]
    assert decode(chunks(stream, size)) == expected


def test_the_decoder_says_how_much_of_a_large_packet_is_missing() -> None:
    packet = request(ECHO_REQ, b"x" * LARGE)
    target = Recorder()
    machine = decoder()
    told = [machine.wanted]
    for piece in (packet[:12], packet[12:50_000], packet[50_000:], TAIL):
        machine.feed(piece)
        machine.run(target, 99)
        told.append(machine.wanted)
    assert told == [0, LARGE, len(packet) - 50_000, 0, 0]


@pytest.mark.parametrize("most", [None, 1024], ids=["gathered", "skipped"])
def test_of_a_packet_that_is_all_there_nothing_is_missing_whatever_is_behind_it(
    most: int | None,
) -> None:
    packet = request(SUBMIT_JOB, b"f", b"u", b"x" * LARGE)
    target = Recorder()
    machine = decoder()
    machine.max_submission = most
    machine.feed(packet[:100])
    machine.run(target, 99)
    assert machine.wanted == len(packet) - 100
    machine.feed(packet[100:] + TAIL)
    machine.feed(TAIL)
    assert machine.wanted == 0
    assert not machine.run(target, 99)
    assert target.entries[1:] == TAIL_ENTRIES * 2
    assert machine.wanted == 0


def test_of_a_packet_that_was_discarded_nothing_is_missing() -> None:
    machine = decoder()
    machine.feed(request(ECHO_REQ, b"x" * LARGE)[:100])
    machine.run(Recorder(), 99)
    machine.discard()
    assert machine.wanted == 0


@pytest.mark.parametrize("sizes", [(1,), (4095,), (4096,), (1, 4096), (1, 4097), (1, 65536)])
def test_a_large_packet_needs_no_more_than_its_own_memory_however_it_trickles_in(
    sizes: tuple[int, ...],
) -> None:
    packet = request(SUBMIT_JOB, b"f", b"u", b"x" * LARGE)
    target = Recorder()
    machine = decoder()
    tracemalloc.start()
    try:
        pieces = cycle(sizes)
        at = 0
        while at < len(packet) - 1:
            size = min(next(pieces), len(packet) - 1 - at)
            machine.feed(packet[at : at + size])
            machine.run(target, 99)
            at += size
        gathered = tracemalloc.get_traced_memory()[0]
        machine.feed(packet[-1:])
        machine.run(target, 99)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert target.entries == [("packet", SUBMIT_JOB, b"f", b"u", b"x" * LARGE)]
    assert gathered <= 1.3 * LARGE
    assert peak <= gathered + 1.1 * LARGE


def test_a_workload_that_came_by_itself_is_not_copied() -> None:
    packet, workload = request(SUBMIT_JOB, b"f", b"u", b"x" * LARGE), b"x" * LARGE
    target = Recorder()
    machine = decoder()
    for piece in (packet[:-LARGE], workload):
        machine.feed(piece)
        machine.run(target, 99)
    ((_, _, *args),) = target.entries
    assert args == [b"f", b"u", workload]
    assert args[-1] is workload


LARGE_JOB = request(SUBMIT_JOB, b"f", b"unique", b"x" * LARGE)
LARGE_HEAD = HEADER_SIZE + len(b"f\0unique\0")


@pytest.mark.parametrize(
    ("peeked", "start"),
    [
        pytest.param(LARGE_JOB[:4096], LARGE_HEAD, id="a large packet"),
        pytest.param(LARGE_JOB[:LARGE_HEAD], LARGE_HEAD, id="no more than what is before it"),
        pytest.param(LARGE_JOB[: LARGE_HEAD - 1], 0, id="less than that"),
        pytest.param(LARGE_JOB[: HEADER_SIZE - 1], 0, id="less than a header"),
        pytest.param(b"", 0, id="nothing"),
        pytest.param(request(SUBMIT_JOB, b"f", b"", b"x" * 1000), 0, id="a small packet"),
        pytest.param(request(ECHO_REQ, bytes(LARGE))[:4096], 0, id="nothing is before it"),
        pytest.param(request(GRAB_JOB, bytes(LARGE))[:4096], 0, id="it has no arguments"),
        pytest.param(request(5, bytes(LARGE))[:4096], 0, id="no type of this side"),
        pytest.param(request(999, bytes(LARGE))[:4096], 0, id="no type at all"),
        pytest.param(response(SUBMIT_JOB, bytes(LARGE))[:4096], 0, id="the other magic"),
        pytest.param(b"status\n" * 500, 0, id="text"),
    ],
)
def test_where_the_workload_of_a_large_packet_starts_is_known_before_it_is_read(
    peeked: bytes, start: int
) -> None:
    machine = decoder()
    assert machine.start_of_large(peeked) == start
    assert machine.buffered == 0


def test_large_packets_are_expected_for_a_while_after_one() -> None:
    machine = decoder()
    assert not machine.expects_large
    for piece in chunks(LARGE_JOB, 65536):
        machine.feed(piece)
        machine.run(Recorder(), 99)
        assert machine.expects_large
    for _ in range(1000):
        assert machine.start_of_large(LARGE_JOB[:4096])
    assert machine.expects_large
    count = 0
    while machine.expects_large:
        machine.start_of_large(TAIL)
        count += 1
    assert 10 < count < 100
    machine.start_of_large(TAIL)
    assert not machine.expects_large


def test_nothing_may_come_between_the_chunks_of_a_large_packet() -> None:
    packet = request(GET_STATUS, b"H" * LARGE)
    for pieces in ([packet[:9000], b"", packet[9000:], b""], [packet[:100], b"", packet[100:]]):
        target = Recorder()
        machine = decoder()
        machine.feed(pieces[0])
        machine.run(target, 99)
        for piece in pieces[1:]:
            machine.feed(piece)
        machine.run(target, 99)
        assert target.entries == [("packet", GET_STATUS, b"H" * LARGE)]


def test_two_large_packets_in_a_row_come_back_whole() -> None:
    one, two = b"1" * LARGE, b"2" * LARGE
    stream = request(ECHO_REQ, one) + request(ECHO_REQ, two)
    assert decode(chunks(stream, 65536)) == [("packet", ECHO_REQ, one), ("packet", ECHO_REQ, two)]


def test_a_large_packet_is_judged_like_a_small_one() -> None:
    def told(raw: bytes) -> list[Entry]:
        return decode(chunks(raw + TAIL, 65536))

    assert told(response(ECHO_RES, bytes(LARGE))) == [("wrong magic", ECHO_RES), *TAIL_ENTRIES]
    assert told(request(5, bytes(LARGE))) == [("unknown type", 5), *TAIL_ENTRIES]
    assert told(request(77, bytes(LARGE))) == [("unknown type", 77), *TAIL_ENTRIES]
    assert told(request(SUBMIT_JOB, b"f", b"x" * LARGE)) == [("malformed", SUBMIT_JOB)]
    assert told(request(GRAB_JOB, bytes(LARGE))) == [("packet", GRAB_JOB), *TAIL_ENTRIES]
    assert told(request(WORK_COMPLETE, b"H" * LARGE)) == [
        ("packet", WORK_COMPLETE, b"H" * LARGE, b""),
        *TAIL_ENTRIES,
    ]
    assert told(request(GET_STATUS, b"H" * LARGE + b"\0")) == [
        ("packet", GET_STATUS, b"H" * LARGE),
        *TAIL_ENTRIES,
    ]
    assert told(request(GET_STATUS, b"H" * LARGE)) == [
        ("packet", GET_STATUS, b"H" * LARGE),
        *TAIL_ENTRIES,
    ]


def test_the_decoder_can_be_stopped_by_a_large_packet() -> None:
    target = Recorder()
    target.stop_after(1)
    machine = decoder()
    for piece in chunks(request(ECHO_REQ, b"x" * LARGE) + TAIL, 65536):
        machine.feed(piece)
        assert not machine.run(target, 99)
    assert target.entries == [("packet", ECHO_REQ, b"x" * LARGE)]


def test_the_type_of_the_last_argument_is_bytes_whatever_the_size() -> None:
    for size in (0, 10, LARGE):
        ((_, _, data),) = decode(chunks(request(ECHO_REQ, bytes(size)), 65536) or [b""])
        assert type(data) is bytes


# The size cap


@pytest.mark.parametrize("limit", [1024, 65536, 100_000])
def test_a_packet_may_be_as_large_as_the_limit_and_not_larger(limit: int) -> None:
    fits = request(ECHO_REQ, b"x" * limit)
    for pieces in ([fits], chunks(fits, 4096)):
        assert decode(pieces, max_packet=limit) == [("packet", ECHO_REQ, b"x" * limit)]
    over = request(ECHO_REQ, b"x" * (limit + 1))
    for pieces in ([over], chunks(over, 4096)):
        assert decode(pieces, max_packet=limit) == [("too large", ECHO_REQ, limit + 1)]
    assert decode([response(ECHO_REQ, b"x" * (limit + 1))], max_packet=limit) == [
        ("too large", ECHO_REQ, limit + 1)
    ]


def test_a_size_above_the_limit_is_noticed_before_anything_is_buffered_for_it() -> None:
    target = Recorder()
    machine = decoder(max_packet=1024)
    header = struct.pack(">4sII", REQ, ECHO_REQ, 0xFFFFFFFF)
    machine.feed(header[:11])
    assert not machine.run(target, 99)
    assert target.entries == []
    machine.feed(header[11:])
    assert not machine.run(target, 99)
    assert target.entries == [("too large", ECHO_REQ, 0xFFFFFFFF)]
    assert machine.buffered <= HEADER_SIZE


@pytest.mark.parametrize("size", [1, 7, 65_535, 65_536, LARGE + 30])
def test_a_submission_that_is_too_large_is_skipped_and_what_follows_is_heard(size: int) -> None:
    large = request(SUBMIT_JOB, b"f", b"u", b"x" * LARGE)
    target = Recorder()
    machine = decoder()
    machine.max_submission = LARGE
    kept = 0
    for piece in chunks(large + large + TAIL, size) if size > 1 else [large[:13], large[13:], TAIL]:
        machine.feed(piece)
        while machine.run(target, 99):
            pass
        kept = max(kept, len(machine._buf))
    skipped = [entry for entry in target.entries if entry == ("large submission", SUBMIT_JOB)]
    assert len(skipped) == {LARGE + 30: 1, 1: 1}.get(size, 2)
    assert target.entries[-2:] == TAIL_ENTRIES
    assert machine.buffered == 0
    assert kept <= size + 65_536


@given(
    packets=st.lists(
        st.tuples(st.sampled_from([SUBMIT_JOB, ECHO_REQ]), st.integers(0, 400)), max_size=6
    ),
    cuts=st.lists(st.integers(1, 300), min_size=1, max_size=8),
    most=st.sampled_from([0, 100, 200, 1000]),
)
def test_skipping_is_the_same_wherever_the_stream_is_cut(
    packets: list[tuple[int, int]], cuts: list[int], most: int
) -> None:
    """One that is there whole is handed over; else what is too large is told of, and nothing
    else is different."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "_LARGE", 64)
        stream, expected = b"", []
        for number, size in packets:
            args = (b"f", b"", b"x" * size) if number == SUBMIT_JOB else (b"x" * size,)
            stream += request(number, *args)
            expected.append(("packet", number, *args))
        target = Recorder()
        machine = decoder()
        machine.max_submission = most
        while stream:
            machine.feed(stream[: cuts[0]])
            stream, cuts = stream[cuts[0] :], [*cuts[1:], cuts[0]]
            while machine.run(target, 2):
                pass
        assert machine.buffered == 0
    assert len(target.entries) == len(expected)
    for entry, whole in zip(target.entries, expected, strict=True):
        if entry != whole:
            assert entry == ("large submission", SUBMIT_JOB)
            assert whole[1] == SUBMIT_JOB
            assert len(whole[4]) + 3 > max(most, 64)


@pytest.mark.parametrize("packet", [request(ECHO_REQ, b"x" * LARGE), response(SUBMIT_JOB)])
def test_only_submissions_of_this_direction_are_skipped(packet: bytes) -> None:
    target = Recorder()
    machine = decoder()
    machine.max_submission = 1024
    for piece in chunks(packet + TAIL, 4096):
        machine.feed(piece)
        while machine.run(target, 99):
            pass
    assert len(target.entries) == 3
    assert target.entries[0][0] in ("packet", "wrong magic")


def test_a_submission_as_large_as_it_may_be_is_gathered() -> None:
    target = Recorder()
    machine = decoder()
    packet = request(SUBMIT_JOB, b"f", b"", b"x" * LARGE)
    machine.max_submission = len(packet) - HEADER_SIZE
    for piece in chunks(packet, 4096):
        machine.feed(piece)
        machine.run(target, 99)
    assert target.entries == [("packet", SUBMIT_JOB, b"f", b"", b"x" * LARGE)]


def test_a_header_reserves_no_memory_for_what_it_announces() -> None:
    target = Recorder()
    machine = decoder(max_packet=1 << 30)
    machine.feed(struct.pack(">4sII", REQ, ECHO_REQ, 1 << 30) + b"only this")
    assert not machine.run(target, 99)
    assert target.entries == []
    assert machine.buffered == HEADER_SIZE + len(b"only this")


def test_a_bad_magic_is_no_packet_of_any_size() -> None:
    raw = struct.pack(">4sII", b"\0REX", ECHO_REQ, 2000)
    for rest in (b"", bytes(2000)):
        assert decode([raw + rest], max_packet=1024) == [("bad magic", b"\0REX")]


# Turns


def test_a_turn_ends_after_so_many_packets_and_lines() -> None:
    target = Recorder()
    machine = decoder()
    machine.feed(TAIL * 3)
    counts = []
    while machine.run(target, 2):
        counts.append(len(target.entries))
    counts.append(len(target.entries))
    assert counts == [2, 4, 6]
    assert target.entries == TAIL_ENTRIES * 3


def test_more_is_only_promised_while_there_is_something_to_look_at() -> None:
    target = Recorder()
    machine = decoder()
    machine.feed(TAIL)
    assert machine.run(target, 1)
    assert not machine.run(target, 1)
    machine.feed(b"sta")
    assert not machine.run(target, 1)
    machine.feed(b"tus\nwor")
    # one line was taken, and whether the rest is whole was not looked at
    assert machine.run(target, 1)
    assert not machine.run(target, 1)
    assert machine.buffered == 3


def test_a_large_packet_takes_its_turn() -> None:
    target = Recorder()
    more = False
    machine = decoder()
    for piece in chunks(request(ECHO_REQ, bytes(LARGE)) + TAIL, 65536):
        machine.feed(piece)
        more = machine.run(target, 1)
    assert [entry[0] for entry in target.entries] == ["packet"]
    assert more
    assert not machine.run(target, 5)
    assert target.entries[1:] == TAIL_ENTRIES


def test_a_target_that_stops_gets_nothing_more() -> None:
    for stream in (TAIL * 2, b"status\n" * 3, request(GRAB_JOB) * 3):
        target = Recorder()
        target.stop_after(1)
        machine = decoder()
        machine.feed(stream)
        assert not machine.run(target, 99)
        assert len(target.entries) == 1


@given(st.data())
def test_turns_and_pieces_change_nothing(data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.sampled_from(sorted(EVERY_PACKET)), min_size=1, max_size=6))
    stream = b"".join(request(n, *samples(EVERY_PACKET[n])) for n in numbers) + TAIL
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    turn = data.draw(st.integers(1, 5))
    assert decode(pieces, turn=turn) == decode([stream])


# The buffer


def test_buffered_counts_what_no_handler_has_seen() -> None:
    target = Recorder()
    machine = decoder()
    assert machine.buffered == 0
    machine.feed(TAIL)
    assert machine.buffered == len(TAIL)
    machine.run(target, 1)
    assert machine.buffered == len(b"status\r\n")
    machine.run(target, 1)
    assert machine.buffered == 0
    machine.feed(request(ECHO_REQ, bytes(LARGE))[:-1])
    machine.run(target, 1)
    assert machine.buffered == HEADER_SIZE + LARGE - 1


def test_what_was_consumed_is_let_go_of() -> None:
    target = Recorder()
    machine = decoder()
    for _ in range(1000):
        machine.feed(TAIL + b"sta")
        machine.run(target, 99)
        machine.feed(b"tus\n")
        machine.run(target, 99)
        assert machine.buffered == 0


def test_discard_forgets_everything() -> None:
    for waiting in (b"sta", request(ECHO_REQ, bytes(LARGE))[:-1]):
        target = Recorder()
        machine = decoder()
        machine.feed(waiting)
        machine.run(target, 99)
        assert machine.buffered == len(waiting)
        machine.discard()
        assert machine.buffered == 0
        machine.feed(TAIL)
        machine.run(target, 99)
        assert target.entries == TAIL_ENTRIES


def test_the_last_types_of_a_chunk_are_known_for_the_log() -> None:
    target = Recorder()
    target.stop_after(20)
    machine = decoder()
    assert machine.recent_types() == []
    machine.feed(
        b"".join(request(CAN_DO, b"%d" % n) for n in range(19)) + request(PRE_SLEEP) + TAIL
    )
    machine.run(target, 99)
    assert machine.recent_types() == [CAN_DO] * 15 + [PRE_SLEEP]


def test_rows_are_only_for_what_has_a_handler() -> None:
    def on_echo(target: object, data: bytes) -> None:
        seen.append(data)

    seen: list[bytes] = []
    rows = rows_for({ECHO_REQ: on_echo})
    assert len(rows) == ECHO_REQ + 1
    assert [row for row in rows if row] == [(0, 1, False, on_echo)]
    target = Recorder()
    machine = Decoder(REQ, rows, max_packet=1024, max_line=80)
    machine.feed(request(ECHO_REQ, b"x") + request(CAN_DO, b"f") + request(GET_STATUS, b"H"))
    machine.run(target, 99)
    assert seen == [b"x"]
    assert target.entries == [("unknown type", CAN_DO), ("unknown type", GET_STATUS)]


def test_all_rows_stand_at_their_numbers() -> None:
    for number, row in islice(enumerate(ALL_ROWS), 43):
        if row is None:
            assert number in (0, 5)
        else:
            assert row[0] == len(PACKETS[number].args) - 1
