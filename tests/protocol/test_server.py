"""The server's column: replies in the order of their requests, also while one is not known yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trigear.model import CloseReason
from trigear.protocol.server import PLACE, ServerConnection, Slot, server_rows
from trigear.wire.codec import request, response
from trigear.wire.commands import LINE_LIMIT
from trigear.wire.packets import (
    ALL_YOURS,
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    EXTENSIONS,
    JOB_CREATED,
    JOB_DETACH,
    NOOP,
    PACKETS,
    SUBMIT_JOB,
    Packet,
)

if TYPE_CHECKING:
    from collections.abc import Callable

WAKE = response(NOOP)


class Answering(ServerConnection):
    """Answers everything with the name of the packet and its arguments."""

    __slots__ = ()

    def on_command(self, line: bytes) -> None:
        if line == b"hold":
            self.hold()
        else:
            self.send(b"<" + line + b">")


def handler(name: str) -> Callable[..., None]:
    def handle(self: Answering, *args: bytes) -> None:
        self.send(b"[" + b" ".join([name.encode(), *args]) + b"]")

    return handle


for _packet in PACKETS.values():
    if _packet.asked_by and _packet.served:
        setattr(Answering, "on_" + _packet.name.lower(), handler(_packet.name))
Answering.rows = server_rows(Answering)


class Touches(list[ServerConnection]):
    """The connections that were touched."""


def connected(max_packet: int = 4096) -> tuple[Answering, Touches]:
    touches = Touches()
    return Answering(touches.append, max_packet), touches


def said(connection: ServerConnection) -> bytes:
    return b"".join(connection.take())


def refusal(code: bytes, text: bytes) -> bytes:
    return response(ERROR, code, text)


# Requests


@pytest.mark.parametrize("packet", PACKETS.values(), ids=lambda p: p.name)
def test_requests_reach_their_handlers_and_everything_else_is_refused(packet: Packet) -> None:
    connection, _ = connected()
    args = [name.encode() for name in packet.args]
    connection.receive(request(packet.number, *args) + b"status\n")
    if packet.asked_by and packet.served:
        answer = b"[" + b" ".join([packet.name.encode(), *args]) + b"]"
    else:
        answer = refusal(b"INVALID_COMMAND", b"Command not expected")
    assert said(connection) == answer + b"<status>"
    assert connection.closing is None


class Extended(Answering):
    """Implements one of the extensions."""

    __slots__ = ()

    on_job_detach = handler("JOB_DETACH")


Extended.rows = server_rows(Extended)


def test_an_extension_is_only_there_in_extended_mode() -> None:
    connection = Extended(Touches().append)
    connection.receive(request(JOB_DETACH, b"H"))
    assert said(connection) == refusal(b"INVALID_COMMAND", b"Command not expected")
    connection.extend()
    connection.receive(request(JOB_DETACH, b"H"))
    assert said(connection) == b"[JOB_DETACH H]"


@pytest.mark.parametrize("number", EXTENSIONS)
def test_a_server_need_not_know_any_extension(number: int) -> None:
    connection, _ = connected()
    connection.extend()
    connection.receive(request(number, b"H", b"x") + request(ECHO_REQ, b"on"))
    assert said(connection) == (
        refusal(b"INVALID_COMMAND", b"Command not expected") + b"[ECHO_REQ on]"
    )


def test_a_server_must_know_every_request() -> None:
    with pytest.raises(AttributeError, match="on_can_do"):
        server_rows(ServerConnection)
    with pytest.raises(NotImplementedError):
        ServerConnection.on_command(connected()[0], b"status")


@pytest.mark.parametrize("number", [0, 5, ALL_YOURS, 43, 99, 0xFFFFFFFF])
def test_a_type_that_is_no_request_is_refused_and_the_connection_lives(number: int) -> None:
    connection, _ = connected()
    connection.receive(request(number, b"x") + request(ECHO_REQ, b"on"))
    assert said(connection) == (
        refusal(b"INVALID_COMMAND", b"Command not expected") + b"[ECHO_REQ on]"
    )
    assert connection.closing is None


def test_a_packet_with_the_magic_of_answers_is_refused_and_the_connection_lives() -> None:
    connection, _ = connected()
    connection.receive(response(ECHO_REQ, b"x") + request(ECHO_REQ, b"on"))
    assert said(connection) == (
        refusal(b"INVALID_MAGIC", b"Request magic expected") + b"[ECHO_REQ on]"
    )


@pytest.mark.parametrize(
    ("data", "answer", "reason"),
    [
        (
            b"\0XYZ rest",
            refusal(b"INVALID_MAGIC", b"Neither a packet nor a text command"),
            CloseReason.BAD_MAGIC,
        ),
        (
            request(SUBMIT_JOB, b"f", b"u"),
            refusal(b"INVALID_PACKET", b"SUBMIT_JOB has too few arguments"),
            CloseReason.MALFORMED,
        ),
        (
            request(ECHO_REQ, bytes(4097)),
            refusal(b"DATA_TOO_LARGE", b"Packet of 4097 bytes; the limit is 4096"),
            CloseReason.TOO_LARGE,
        ),
        (
            b"x" * LINE_LIMIT,
            b"ERR LINE_TOO_LONG A+text+command+ends+in+a+newline\r\n",
            CloseReason.LINE_TOO_LONG,
        ),
    ],
)
def test_framing_that_cannot_be_followed_is_answered_and_ends_the_connection(
    data: bytes, answer: bytes, reason: CloseReason
) -> None:
    connection, touches = connected()
    assert not connection.receive(request(ECHO_REQ, b"before") + data + request(ECHO_REQ, b"after"))
    assert said(connection) == b"[ECHO_REQ before]" + answer
    assert connection.closing is reason
    assert connection in touches


# Other protocols on our port


@pytest.mark.parametrize(
    "hello",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32), b"\x16\x03"],
)
def test_a_peer_that_speaks_tls_is_closed_without_a_word(hello: bytes) -> None:
    connection, touches = connected()
    assert not connection.receive(hello)
    assert connection.closing is CloseReason.SPEAKS_TLS
    assert said(connection) == b""
    assert connection in touches


@pytest.mark.parametrize(
    "hello",
    [
        b"GET / HTTP/1.1\r\nHost: jobs\r\n\r\n",
        b"POST /f HTTP/1.0\r\n\r\nbody",
        b"OPTIONS * HTTP/1.1\n\n",
    ],
)
def test_a_peer_that_speaks_http_is_told_so_in_http(hello: bytes) -> None:
    for pieces in (
        [hello],
        [hello[:1], hello[1:]],
        [hello[at : at + 1] for at in range(len(hello))],
    ):
        connection, _ = connected()
        for piece in pieces:
            connection.receive(piece)
        assert connection.closing is CloseReason.SPEAKS_HTTP
        assert said(connection).startswith(b"HTTP/1.1 400 ")
        assert not connection.receive(b"status\n")


def test_commands_and_packets_that_look_a_little_like_it_are_not_taken_for_it() -> None:
    for line in (b"GET / HTTP/2", b"get / HTTP/1.1", b"POST", b"\x16 \x03"):
        connection, _ = connected()
        connection.receive(line + b"\n")
        assert said(connection) == b"<" + line + b">"
        assert connection.closing is None


def test_http_after_something_else_is_http_too() -> None:
    connection, _ = connected()
    connection.receive(b"status\nGET / HTTP/1.1\r\n")
    assert said(connection).startswith(b"<status>HTTP/1.1 400 ")
    assert connection.closing is CloseReason.SPEAKS_HTTP


def test_tls_is_looked_for_in_the_first_bytes_only() -> None:
    connection, _ = connected()
    connection.receive(b"status\n")
    connection.receive(b"\x16\x03\n")
    assert said(connection) == b"<status><\x16\x03>"


# Who is touched


def test_a_connection_is_touched_when_it_has_something_to_send() -> None:
    connection, touches = connected()
    connection.receive(request(ECHO_REQ, b"1")[:-1])
    assert touches == []
    connection.receive(b"1" + request(ECHO_REQ, b"2"))
    assert touches == [connection]
    said(connection)
    connection.send_noop()
    assert touches == [connection] * 2
    said(connection)
    connection.close(CloseReason.SHUTDOWN)
    assert touches == [connection] * 3


# Slots


def test_everything_waits_behind_an_empty_slot_but_noop() -> None:
    connection, touches = connected()
    connection.send(b"1")
    slot = connection.reserve()
    connection.send(b"3")
    connection.send_error("CODE", "text")
    connection.send_noop()
    connection.send(b"5")
    assert said(connection) == b"1" + WAKE
    assert connection.held_size == PLACE + 2 + len(refusal(b"CODE", b"text"))
    touches.clear()
    connection.fill(slot, b"2")
    assert touches == [connection]
    assert said(connection) == b"23" + refusal(b"CODE", b"text") + b"5"
    assert connection.held_size == 0
    connection.send(b"6")
    assert said(connection) == b"6"


def test_what_is_held_for_a_slot_counts_until_it_is_sent() -> None:
    connection, touches = connected()
    first = connection.reserve(100)
    assert connection.waits
    assert touches == [connection], "who reads must learn that it is time to stop"
    second = connection.reserve(10)
    connection.send(b"12345")
    assert connection.held_size == PLACE * 2 + 115
    connection.fill(second, b"2")
    assert connection.held_size == PLACE * 2 + 115
    connection.fill(first, b"1")
    assert connection.held_size == 0
    assert not connection.waits


def test_slots_filled_out_of_order_leave_in_order() -> None:
    connection, _ = connected()
    first = connection.reserve()
    connection.send(b"-")
    second = connection.reserve()
    third = connection.reserve()
    connection.fill(third, b"3")
    assert said(connection) == b""
    connection.fill(first, b"1")
    assert said(connection) == b"1-"
    assert connection.held_size == PLACE * 2
    connection.fill(second, b"2")
    assert said(connection) == b"23"


def test_a_slot_that_nothing_waits_for_any_more_may_still_be_filled() -> None:
    """The reply is gone with whatever took it; filling twice harms nobody."""
    connection, _ = connected()
    slot = connection.reserve()
    connection.fill(slot, b"1")
    connection.fill(slot, b"again")
    assert said(connection) == b"1"


def test_a_noop_wakes_a_connection_that_holds_everything_else_back() -> None:
    connection, _touches = connected()
    connection.reserve()
    connection.send(b"held")
    assert connection.out == []
    connection.send_noop()
    assert said(connection) == WAKE


def test_what_is_held_back_is_counted_and_made_known_at_once() -> None:
    """Whoever reads for the connection must learn of it to stop in time."""
    connection, touches = connected()
    slot = connection.reserve(1000)
    connection.send(b"held")
    assert connection.held_size == PLACE + 1004
    assert touches == [connection, connection]
    connection.fill(slot, b"reply")
    assert connection.held_size == 0


@given(
    st.lists(st.sampled_from(["send", "reserve", "noop", "fill", "take"]), max_size=40), st.data()
)
def test_the_order_of_requests_is_kept_however_slots_are_filled(
    steps: list[str], data: st.DataObject
) -> None:
    connection, touches = connected()
    promised: list[bytes] = []
    slots: dict[int, Slot] = {}
    sent: list[bytes] = []
    for number, step in enumerate(steps):
        word = b"%d " % number
        if step == "send":
            promised.append(word)
            connection.send(word)
        elif step == "reserve":
            promised.append(word)
            slots[number] = connection.reserve()
        elif step == "noop":
            connection.send_noop()
        elif step == "fill" and slots:
            chosen = data.draw(st.sampled_from(sorted(slots)))
            connection.fill(slots.pop(chosen), b"%d " % chosen)
        else:
            sent += connection.take()
            touches.clear()
        assert bool(connection.out) <= bool(touches)
    for chosen, slot in slots.items():
        connection.fill(slot, b"%d " % chosen)
    sent += connection.take()
    assert [word for word in sent if word != WAKE] == promised
    assert sent.count(WAKE) == steps.count("noop")
    assert connection.held_size == 0


def test_a_reply_is_a_packet_of_the_answering_direction() -> None:
    connection, _ = connected()
    slot = connection.reserve()
    connection.fill(slot, response(JOB_CREATED, b"H"))
    connection.send(response(ECHO_RES, b"x"))
    assert said(connection) == response(JOB_CREATED, b"H") + response(ECHO_RES, b"x")


# Waiting for somebody else's answer


def test_nothing_is_handled_while_a_connection_holds_and_nothing_is_lost() -> None:
    connection, touches = connected()
    echo = [request(ECHO_REQ, b"%d" % number) for number in range(3)]
    assert not connection.receive(b"hold\n" + echo[0])
    assert connection.holding
    assert touches
    assert not connection.receive(echo[1][:5])
    assert not connection.receive(echo[1][5:] + echo[2])
    assert said(connection) == b""
    connection.go_on()
    assert not connection.holding
    assert not connection.receive(b"")
    assert said(connection) == b"".join(b"[ECHO_REQ %d]" % number for number in range(3))


def test_a_connection_that_was_closed_while_it_held_handles_no_more() -> None:
    connection, _ = connected()
    connection.hold()
    connection.close(CloseReason.SHUTDOWN)
    connection.go_on()
    assert not connection.receive(request(ECHO_REQ, b"!"))
    assert said(connection) == b""
