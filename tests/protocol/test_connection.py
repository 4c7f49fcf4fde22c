"""What both ends share: bytes in, packets handled in turns, an outbox, and an end."""

from __future__ import annotations

import pytest

from trigear.model import CloseReason
from trigear.protocol.connection import MAX_PACKET, Connection
from trigear.wire.codec import RES, request, response, rows_for
from trigear.wire.commands import LINE_LIMIT
from trigear.wire.packets import (
    ECHO_RES,
    JOB_CREATED,
    NOOP,
    OPTION_RES,
    STATUS_RES,
    SUBMIT_JOB,
)


class Listener(Connection):
    """Hears ECHO_RES, OPTION_RES and STATUS_RES, and hangs up when told ``bye``."""

    __slots__ = ("heard",)
    incoming = RES

    def __init__(self, max_packet: int = MAX_PACKET) -> None:
        super().__init__(max_packet)
        self.heard: list[bytes] = []

    def on_echo_res(self, data: bytes) -> None:
        self.heard.append(data)
        self.out.append(b"<" + data + b">")
        if data == b"long":
            self.end_turn()
        if data == b"bye":
            self.close(CloseReason.PEER_CLOSED)

    def on_option_res(self, option: bytes) -> None:
        self.stopped = True

    def on_status_res(self, *fields: bytes) -> None:
        self.heard.append(b" ".join(fields))


Listener.rows = rows_for(
    {
        ECHO_RES: Listener.on_echo_res,
        OPTION_RES: Listener.on_option_res,
        STATUS_RES: Listener.on_status_res,
    }
)


def echoes(*words: bytes) -> bytes:
    return b"".join(response(ECHO_RES, word) for word in words)


def test_packets_are_handled_as_they_come() -> None:
    end = Listener()
    assert not end.receive(echoes(b"a", b"b")[:-1])
    assert end.heard == [b"a"]
    assert not end.receive(b"b")
    assert end.heard == [b"a", b"b"]


def test_a_turn_bounds_the_packets_and_says_whether_there_may_be_more() -> None:
    end = Listener()
    assert end.receive(echoes(b"a", b"b", b"c"), 2)
    assert end.heard == [b"a", b"b"]
    assert not end.receive(b"", 2)
    assert end.heard == [b"a", b"b", b"c"]


def test_a_packet_that_was_much_work_ends_its_turn() -> None:
    end = Listener()
    assert end.receive(echoes(b"a", b"long", b"b", b"long"))
    assert end.heard == [b"a", b"long"]
    assert not end.receive(b"")
    assert end.heard == [b"a", b"long", b"b", b"long"]
    assert not end.receive(echoes(b"long"))
    assert not end.receive(echoes(b"c"))
    assert end.heard[-1] == b"c"


def test_output_is_handed_over_once() -> None:
    end = Listener()
    end.receive(echoes(b"a", b"b"))
    assert end.take() == [b"<a>", b"<b>"]
    assert end.take() == []


def test_after_the_end_nothing_is_decoded_and_what_was_said_is_still_to_be_sent() -> None:
    end = Listener()
    assert not end.receive(echoes(b"a", b"bye", b"c"))
    assert end.heard == [b"a", b"bye"]
    assert end.closing is CloseReason.PEER_CLOSED
    assert end.stopped
    assert end.decoder.buffered == 0
    assert not end.receive(echoes(b"d"))
    assert end.heard == [b"a", b"bye"]
    assert end.take() == [b"<a>", b"<bye>"]


def test_an_end_is_an_end_also_when_the_turn_is_over() -> None:
    end = Listener()
    end.receive(echoes(b"a"))
    end.end_turn()
    end.close(CloseReason.SHUTDOWN)
    assert not end.receive(echoes(b"b"))
    assert end.heard == [b"a"]


def test_an_end_that_is_only_stopped_keeps_what_it_did_not_decode() -> None:
    end = Listener()
    assert not end.receive(response(OPTION_RES, b"x") + echoes(b"a"))
    assert end.closing is None
    assert end.decoder.buffered
    assert not end.receive(b"more")
    assert end.heard == []


def test_the_first_reason_to_end_counts() -> None:
    end = Listener()
    end.close(CloseReason.MALFORMED)
    end.close(CloseReason.SHUTDOWN)
    assert end.closing is CloseReason.MALFORMED


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"text\n", CloseReason.BAD_MAGIC),
        (b"\0XYZ", CloseReason.BAD_MAGIC),
        (request(ECHO_RES, b"a"), CloseReason.BAD_MAGIC),
        (response(NOOP), CloseReason.UNKNOWN_TYPE),
        (response(JOB_CREATED, b"H"), CloseReason.UNKNOWN_TYPE),
        (response(STATUS_RES, b"H", b"1"), CloseReason.MALFORMED),
        (response(ECHO_RES, bytes(1025)), CloseReason.TOO_LARGE),
        (b"x" * LINE_LIMIT, CloseReason.LINE_TOO_LONG),
    ],
)
def test_what_cannot_be_understood_ends_the_conversation(data: bytes, reason: CloseReason) -> None:
    for feed in (whole, bytewise):
        end = Listener(max_packet=1024)
        feed(end, data + echoes(b"after"))
        assert end.closing is reason
        assert end.heard == []


def whole(end: Connection, data: bytes) -> None:
    end.receive(data)


def bytewise(end: Connection, data: bytes) -> None:
    for at in range(len(data)):
        end.receive(data[at : at + 1])


def test_a_large_submission_ends_a_connection_that_takes_none():
    connection = Listener()
    connection.on_large_submission(SUBMIT_JOB)
    assert connection.closing is CloseReason.TOO_LARGE
