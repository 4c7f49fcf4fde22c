"""What both asking columns do: the queue of requests, tombstones, text commands, broken peers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trigear.errors import LocalProtocolError, RemoteProtocolError
from trigear.model import CloseReason
from trigear.protocol.asking import SIZE_LIMIT, AskingConnection
from trigear.protocol.client import ClientConnection
from trigear.protocol.events import Answer, Broken, Created, Echoed, OptionSet, Refused, number_in
from trigear.protocol.worker import WorkerConnection
from trigear.wire.codec import RES, request, response
from trigear.wire.packets import (
    ALL_YOURS,
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    JOB_CREATED,
    NO_JOB,
    NOOP,
    OPTION_REQ,
    OPTION_RES,
    PACKETS,
    SET_CLIENT_ID,
    STATUS_RES,
    SUBMIT_JOB,
    Side,
)

BOTH = pytest.mark.parametrize("column", [ClientConnection, WorkerConnection])


def broken_by(column: AskingConnection) -> RemoteProtocolError:
    """The error of the one event that is left."""
    (event,) = column.events()
    assert isinstance(event, Broken)
    assert column.stopped
    return event.error


@BOTH
def test_replies_answer_requests_in_their_order(column: type[AskingConnection]) -> None:
    asking = column()
    one, two, three = asking.echo(b"1"), asking.option(b"exceptions"), asking.echo(b"")
    assert asking.take() == [
        request(ECHO_REQ, b"1"),
        request(OPTION_REQ, b"exceptions"),
        request(ECHO_REQ, b""),
    ]
    assert asking.outstanding == 3
    asking.receive(
        response(ECHO_RES, b"1") + response(OPTION_RES, b"exceptions") + response(ECHO_RES, b"")
    )
    assert asking.events() == [Echoed(one, b"1"), OptionSet(two, b"exceptions"), Echoed(three, b"")]
    assert asking.events() == []
    assert asking.outstanding == 0
    assert asking.closing is None


@BOTH
def test_error_answers_the_oldest_request_whatever_it_is(column: type[AskingConnection]) -> None:
    asking = column()
    option, echo = asking.option(b"nonsense"), asking.echo(b"x")
    asking.receive(response(ERROR, b"UNKNOWN_OPTION", b"no such thing") + response(ECHO_RES, b"x"))
    assert asking.events() == [
        Refused(option, "UNKNOWN_OPTION", "no such thing"),
        Echoed(echo, b"x"),
    ]


def test_error_without_a_text_has_an_empty_one() -> None:
    client = ClientConnection()
    token = client.echo(b"x")
    client.receive(response(ERROR, b"QUEUE_ERROR"))
    assert client.events() == [Refused(token, "QUEUE_ERROR", "")]


def test_an_abandoned_request_is_a_tombstone_that_absorbs_its_reply() -> None:
    client = ClientConnection()
    lost, kept = client.submit(b"f", b"1"), client.submit(b"f", b"2")
    client.abandon(lost)
    client.receive(response(JOB_CREATED, b"H:1") + response(JOB_CREATED, b"H:2"))
    assert client.events() == [Created(kept, b"H:2")]


def test_an_abandoned_request_absorbs_an_error_too() -> None:
    client = ClientConnection()
    lost, kept = client.echo(b"1"), client.echo(b"2")
    client.abandon(lost)
    client.receive(response(ERROR, b"QUEUE_ERROR", b"full") + response(ECHO_RES, b"2"))
    assert client.events() == [Echoed(kept, b"2")]


@BOTH
@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (response(ECHO_RES, b"x"), "ECHO_RES where no request"),
        (response(ERROR, b"A", b"b"), r"ERROR \(A: b\) where no request"),
    ],
)
def test_a_reply_that_nobody_waits_for_breaks_the_connection(
    column: type[AskingConnection], reply: bytes, says: str
) -> None:
    asking = column()
    asking.receive(reply + response(ECHO_RES, b"after"))
    with pytest.raises(RemoteProtocolError, match=says):
        raise broken_by(asking)
    assert asking.closing is CloseReason.MALFORMED


def test_a_reply_of_the_wrong_kind_breaks_the_connection() -> None:
    client = ClientConnection()
    client.get_status(b"H:1")
    client.receive(response(JOB_CREATED, b"H:1"))
    assert broken_by(client).text == "the server sent JOB_CREATED in answer to GET_STATUS"


def test_a_packet_that_this_side_never_gets_breaks_the_connection() -> None:
    client = ClientConnection()
    client.receive(response(NOOP))
    error = broken_by(client)
    assert (error.code, client.closing) == ("UNEXPECTED_PACKET", CloseReason.UNKNOWN_TYPE)
    assert "NOOP, which is not for a client" in error.text


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (b"\0BAD" + bytes(8), "INVALID_MAGIC", CloseReason.BAD_MAGIC),
        (request(ECHO_REQ, b"x"), "INVALID_MAGIC", CloseReason.BAD_MAGIC),
        (b"HTTP/1.1 400 Bad Request\r\n", "INVALID_MAGIC", CloseReason.BAD_MAGIC),
        (RES + b"\0\0\0\x08\x00\x00\x10\x00", "DATA_TOO_LARGE", CloseReason.TOO_LARGE),
        (response(STATUS_RES, b"H:1"), "INVALID_PACKET", CloseReason.MALFORMED),
        (b"x" * 2000, "INVALID_PACKET", CloseReason.LINE_TOO_LONG),
        (RES + b"\0\0\0\x63\0\0\0\0", "UNEXPECTED_PACKET", CloseReason.UNKNOWN_TYPE),
    ],
)
def test_nonsense_becomes_one_broken_event(data: bytes, code: str, reason: CloseReason) -> None:
    client = ClientConnection(max_packet=1024)
    client.receive(data)
    client.receive(data)
    error = broken_by(client)
    assert (error.code, client.closing) == (code, reason)


def test_closing_twice_reports_once() -> None:
    client = ClientConnection()
    client.close(CloseReason.MALFORMED)
    client.close(CloseReason.BAD_MAGIC)
    assert len(client.events()) == 1
    assert client.closing is CloseReason.MALFORMED


@pytest.mark.parametrize(
    ("column", "number", "args"),
    [
        (ClientConnection, NO_JOB, ()),
        (ClientConnection, 1, (b"f",)),
        (ClientConnection, 5, ()),
        (WorkerConnection, SUBMIT_JOB, (b"f", b"", b"")),
        (WorkerConnection, ALL_YOURS, ()),
    ],
)
def test_asking_for_what_is_not_ones_own_is_refused(
    column: type[AskingConnection], number: int, args: tuple[bytes, ...]
) -> None:
    asking = column()
    with pytest.raises(LocalProtocolError, match="is no request of a"):
        asking.ask(number, *args)
    assert asking.take() == []
    assert asking.outstanding == 0


@BOTH
def test_every_request_of_the_table_can_be_asked(column: type[AskingConnection]) -> None:
    for packet in PACKETS.values():
        if packet.asked_by & column.side and packet.served:
            asking = column()
            args = tuple(b"x" for _ in packet.args)
            asking.ask(packet.number, *args)
            assert asking.take() == [request(packet.number, *args)]
            assert asking.outstanding == (1 if packet.replies else 0)


def test_arguments_must_be_as_many_as_the_table_says() -> None:
    with pytest.raises(LocalProtocolError, match=r"3 arguments \(function, unique, workload\)"):
        ClientConnection().ask(SUBMIT_JOB, b"f", b"w")


def test_only_the_last_argument_may_hold_nul() -> None:
    client = ClientConnection()
    client.submit(b"f", b"a\0b")
    with pytest.raises(LocalProtocolError, match="NUL in the unique"):
        client.submit(b"f", b"", unique=b"a\0b")
    assert len(client.take()) == 1


def test_a_packet_larger_than_a_header_can_say_is_refused() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return SIZE_LIMIT

    with pytest.raises(LocalProtocolError, match="larger than a packet can be"):
        ClientConnection().echo(Huge())


def test_nothing_can_be_asked_after_the_end() -> None:
    client = ClientConnection()
    client.close(CloseReason.MALFORMED)
    with pytest.raises(LocalProtocolError, match="ECHO_REQ on a connection that is over"):
        client.echo(b"")
    with pytest.raises(LocalProtocolError, match="text command on a connection that is over"):
        client.command(b"status")


@pytest.mark.parametrize("name", [b"", b"two words", b"line\n", b"nul\0", b"del\x7f"])
def test_a_client_id_is_one_printable_word(name: bytes) -> None:
    with pytest.raises(LocalProtocolError, match="client id"):
        WorkerConnection().set_client_id(name)


def test_setting_a_client_id_has_no_reply() -> None:
    worker = WorkerConnection()
    worker.set_client_id("größe".encode())
    assert worker.take() == [request(SET_CLIENT_ID, "größe".encode())]
    assert worker.outstanding == 0


# Text commands


def test_a_list_ends_at_its_dot() -> None:
    client = ClientConnection()
    token = client.command(b"status")
    assert client.take() == [b"status\r\n"]
    client.receive(b"a\t1\t0\t2\nOK\t0\t0\t0\n")
    assert client.events() == []
    client.receive(b".\n")
    assert client.events() == [Answer(token, [b"a\t1\t0\t2", b"OK\t0\t0\t0"])]


def test_an_empty_list_is_an_answer() -> None:
    client = ClientConnection()
    token = client.command(b"show unique jobs")
    client.receive(b".\n")
    assert client.events() == [Answer(token, [])]


def test_a_list_may_hold_empty_lines() -> None:
    client = ClientConnection()
    token = client.command(b"show unique jobs")
    client.receive(b"\nu1\n.\n")
    assert client.events() == [Answer(token, [b"", b"u1"])]


def test_a_line_answers_a_command_that_has_one() -> None:
    client = ClientConnection()
    token = client.command(b"version")
    client.receive(b"1.0.6\n")
    assert client.events() == [Answer(token, [b"1.0.6"])]


def test_an_err_line_refuses_in_place_of_a_list() -> None:
    client = ClientConnection()
    token = client.command(b"jobs")
    client.receive(b"ERR UNKNOWN_COMMAND Unknown+server+commandjobs\r\n")
    assert client.events() == [Refused(token, "UNKNOWN_COMMAND", "Unknown server commandjobs")]


def test_an_err_line_may_have_no_code() -> None:
    client = ClientConnection()
    token = client.command(b"drop function f")
    client.receive(b"ERR function not found\r\n")
    assert client.events() == [Refused(token, "ERR", "function not found")]


def test_an_err_line_may_be_a_code_alone() -> None:
    client = ClientConnection()
    token = client.command(b"cancel job H:1")
    client.receive(b"ERR UNKNOWN_JOB\r\n")
    assert client.events() == [Refused(token, "UNKNOWN_JOB", "")]


def test_a_function_called_err_is_no_refusal() -> None:
    client = ClientConnection()
    token = client.command(b"status")
    client.receive(b"ERR me\t0\t0\t1\n.\n")
    assert client.events() == [Answer(token, [b"ERR me\t0\t0\t1"])]


@pytest.mark.parametrize(
    ("answer", "lines"),
    [
        (b"OK\r\n", [b"OK"]),
        (b"OK later\n", [b"OK later"]),
        (b"a\nOK\n.\n", [b"a", b"OK"]),
        (b".\n", []),
    ],
)
def test_the_answer_to_an_unknown_command_tells_its_own_shape(
    answer: bytes, lines: list[bytes]
) -> None:
    client = ClientConnection()
    token = client.command(b"gladiator all")
    client.receive(answer)
    assert client.events() == [Answer(token, lines)]


def test_an_abandoned_command_absorbs_its_whole_list() -> None:
    client = ClientConnection()
    lost, kept = client.command(b"workers"), client.echo(b"x")
    client.abandon(lost)
    client.receive(b"1 ::1 - :\n2 ::1 - :\n.\n" + response(ECHO_RES, b"x"))
    assert client.events() == [Echoed(kept, b"x")]


def test_text_and_packets_answer_in_one_order() -> None:
    client = ClientConnection()
    tokens = client.echo(b"1"), client.command(b"getpid"), client.echo(b"2")
    client.receive(response(ECHO_RES, b"1") + b"OK 77\n" + response(ECHO_RES, b"2"))
    assert client.events() == [
        Echoed(tokens[0], b"1"),
        Answer(tokens[1], [b"OK 77"]),
        Echoed(tokens[2], b"2"),
    ]


def test_text_where_a_packet_is_due_breaks_the_connection() -> None:
    client = ClientConnection()
    client.echo(b"x")
    client.receive(b"OK\n")
    assert broken_by(client).text == "the server sent the text b'OK' where a packet is due"


def test_a_packet_where_text_is_due_breaks_the_connection() -> None:
    client = ClientConnection()
    client.command(b"status")
    client.receive(response(ECHO_RES, b"x"))
    assert broken_by(client).text == "the server sent ECHO_RES in answer to a text command"


def test_error_may_refuse_a_text_command() -> None:
    client = ClientConnection()
    token = client.command(b"status")
    client.receive(response(ERROR, b"NOT_ALLOWED", b"log in first"))
    assert client.events() == [Refused(token, "NOT_ALLOWED", "log in first")]


def test_a_line_of_a_list_may_be_longer_than_a_command() -> None:
    client = ClientConnection()
    token = client.command(b"workers")
    line = b"5 ::1 - : " + b"function " * 2000
    client.receive(line + b"\n.\n")
    assert client.events() == [Answer(token, [line])]


@pytest.mark.parametrize("line", [b"status\nversion", b"\0REQ", b"x" * 8191])
def test_a_text_command_is_one_short_line(line: bytes) -> None:
    client = ClientConnection()
    with pytest.raises(LocalProtocolError, match="text command"):
        client.command(line)
    assert client.take() == []


def test_requests_show_what_they_are() -> None:
    client = ClientConnection()
    submission, command = client.submit(b"f", b""), client.command(b"status")
    client.abandon(command)
    assert repr(submission).startswith("<SUBMIT_JOB at 0x")
    assert repr(command).startswith("<a text command (abandoned) at 0x")


# Numbers in status packets


@pytest.mark.parametrize(
    ("raw", "number"),
    [(b"7", 7), (b"-7", -7), (b" 7 of 9", 7), (b"0.5", 0.5), (b"", 0), (b"nan", 0), (b"x", 0)],
)
def test_numbers_are_read_as_far_as_they_go(raw: bytes, number: float) -> None:
    assert number_in(raw) == number


@given(st.binary())
def test_no_bytes_make_reading_a_number_fail(raw: bytes) -> None:
    number_in(raw)
    number_in(b"9" * 5000 + raw)


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(
                response,
                st.sampled_from(sorted(PACKETS)),
                st.binary(max_size=8),
                st.sampled_from([b"", b"1", b"0\0000\0001\0002"]),
            ),
        )
    ),
    st.sampled_from([Side.CLIENT, Side.WORKER]),
)
def test_no_bytes_from_the_peer_raise(chunks: list[bytes], side: Side) -> None:
    if side is Side.CLIENT:
        client = ClientConnection(max_packet=64)
        client.submit(b"f", b"")
        client.get_status_unique(b"u")
        client.command(b"status")
        asking: AskingConnection = client
    else:
        worker = WorkerConnection(max_packet=64)
        worker.grab()
        worker.echo(b"")
        asking = worker
    for chunk in chunks:
        asking.receive(chunk)
        broken = [event for event in asking.events() if isinstance(event, Broken)]
        assert len(broken) <= 1
        assert asking.stopped or not broken
