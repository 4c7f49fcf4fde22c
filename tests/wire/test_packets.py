"""The packet table against a second writing of the protocol: two columns that may not drift."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trigear.wire import packets
from trigear.wire.packets import ERROR, EXTENSIONS, LOGINS, PACKETS, REPLIES, Packet, Side, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable

# number, name, who sends it, arguments (the last one raw), what answers it
PROTOCOL = """
 1 CAN_DO                       W>  function
 2 CANT_DO                      W>  function
 3 RESET_ABILITIES              W>
 4 PRE_SLEEP                    W>
 6 NOOP                         >W
 7 SUBMIT_JOB                   C>  function unique workload = JOB_CREATED
 8 JOB_CREATED                  >C  handle
 9 GRAB_JOB                     W>  = JOB_ASSIGN NO_JOB
10 NO_JOB                       >W
11 JOB_ASSIGN                   >W  handle function workload
12 WORK_STATUS                  W>C handle numerator denominator
13 WORK_COMPLETE                W>C handle result
14 WORK_FAIL                    W>C handle
15 GET_STATUS                   C>  handle = STATUS_RES
16 ECHO_REQ                     A>  data = ECHO_RES
17 ECHO_RES                     >A  data
18 SUBMIT_JOB_BG                C>  function unique workload = JOB_CREATED
19 ERROR                        >A  code text
20 STATUS_RES                   >C  handle known running numerator denominator
21 SUBMIT_JOB_HIGH              C>  function unique workload = JOB_CREATED
22 SET_CLIENT_ID                A>  id
23 CAN_DO_TIMEOUT               W>  function timeout
24 ALL_YOURS                    W>
25 WORK_EXCEPTION               W>C handle exception
26 OPTION_REQ                   A>  option = OPTION_RES
27 OPTION_RES                   >A  option
28 WORK_DATA                    W>C handle data
29 WORK_WARNING                 W>C handle warning
30 GRAB_JOB_UNIQ                W>  = JOB_ASSIGN_UNIQ NO_JOB
31 JOB_ASSIGN_UNIQ              >W  handle function unique workload
32 SUBMIT_JOB_HIGH_BG           C>  function unique workload = JOB_CREATED
33 SUBMIT_JOB_LOW               C>  function unique workload = JOB_CREATED
34 SUBMIT_JOB_LOW_BG            C>  function unique workload = JOB_CREATED
35 SUBMIT_JOB_SCHED             C>  function unique minute hour day_of_month month day_of_week
                                    workload = JOB_CREATED
36 SUBMIT_JOB_EPOCH             C>  function unique epoch workload = JOB_CREATED
37 SUBMIT_REDUCE_JOB            C>  function unique reducer aggregator workload = JOB_CREATED
38 SUBMIT_REDUCE_JOB_BACKGROUND C>  function unique reducer aggregator workload = JOB_CREATED
39 GRAB_JOB_ALL                 W>  = JOB_ASSIGN_ALL JOB_ASSIGN_UNIQ NO_JOB
40 JOB_ASSIGN_ALL               >W  handle function unique reducer workload
41 GET_STATUS_UNIQUE            C>  unique = STATUS_RES_UNIQUE
42 STATUS_RES_UNIQUE            >C  unique known running numerator denominator client_count
"""

EXTENSION = """
108 JOB_RELEASE                 W>  handle reason
109 JOB_DETACH                  C>  handle
110 GET_RESULT                  C>  handle = RESULT
111 RESULT                      >C  handle state attempts ended kept data
112 HEARTBEAT                   W>  interval
113 JOB_CANCELLED               >W  handle reason
"""

LOGIN = """
101 SASL_MECHANISMS             >A  mechanisms bindings required identity
102 SASL_START                  A>  start = SASL_CHALLENGE SASL_OK
103 SASL_CHALLENGE              >A  data
104 SASL_RESPONSE               A>  data = SASL_CHALLENGE SASL_OK
105 SASL_OK                     >A  identity tenant roles lifetime data
106 SASL_ABORT                  A>
107 SASL_EXPIRING               >A  left
"""

EVERY = [*PACKETS.values(), *EXTENSIONS.values(), *LOGINS.values()]

SIDES = {"": Side.NONE, "C": Side.CLIENT, "W": Side.WORKER, "A": Side.ANY}


def written(table: str) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for line in table.replace("\n                                    ", " ").strip().split("\n"):
        left, _, replies = line.partition("=")
        number, name, way, *args = left.split()
        asked, _, sent = way.partition(">")
        rows.append((int(number), name, SIDES[asked], SIDES[sent], tuple(args), replies.split()))
    return rows


def kept(packets: Iterable[Packet]) -> list[tuple[object, ...]]:
    return [
        (p.number, p.name, p.asked_by, p.sent_to, p.args, [name_of(n) for n in p.replies])
        for p in packets
    ]


def test_the_table_says_what_the_protocol_says() -> None:
    assert kept(PACKETS.values()) == written(PROTOCOL)


def test_the_extensions_are_those_that_are_written_down() -> None:
    assert kept(EXTENSIONS.values()) == written(EXTENSION)
    assert kept(LOGINS.values()) == written(LOGIN)
    assert not EXTENSIONS.keys() & PACKETS.keys()
    assert not LOGINS.keys() & EXTENSIONS.keys()
    assert min(EXTENSIONS) > 100, "out of the way of what Gearman may still define"


def test_every_packet_has_a_constant_of_its_name() -> None:
    for packet in EVERY:
        assert getattr(packets, packet.name) == packet.number


def test_text_and_the_unused_number_are_no_packets() -> None:
    assert 0 not in PACKETS
    assert 5 not in PACKETS
    assert name_of(5) == "type 5"
    assert name_of(7) == "SUBMIT_JOB"
    assert name_of(108) == "JOB_RELEASE"


def test_replies_are_packets_that_a_server_sends() -> None:
    assert ERROR in REPLIES
    for number in REPLIES:
        assert (PACKETS.get(number) or EXTENSIONS.get(number) or LOGINS[number]).sent_to
    work = {n for n, p in PACKETS.items() if p.name.startswith("WORK_")}
    assert not work & REPLIES


def test_the_request_that_no_server_implements_is_marked() -> None:
    assert [p.name for p in EVERY if not p.served] == ["ALL_YOURS"]


def test_what_may_be_missing_stands_last() -> None:
    lenient = {p.name: p.args[p.least :] for p in EVERY if p.least < len(p.args)}
    assert lenient == {
        "WORK_STATUS": ("denominator",),
        "WORK_COMPLETE": ("result",),
        "WORK_EXCEPTION": ("exception",),
        "WORK_DATA": ("data",),
        "WORK_WARNING": ("warning",),
        "ERROR": ("text",),
    }


def test_a_stray_nul_is_only_dropped_where_a_name_stands_alone() -> None:
    """Names never end in NUL; results, workloads and echoed bytes may."""
    assert {p.name for p in EVERY if p.strip_nul} == {
        "WORK_FAIL",
        "GET_STATUS",
        "GET_STATUS_UNIQUE",
        "OPTION_REQ",
        "SET_CLIENT_ID",
    }
    for packet in EVERY:
        if packet.strip_nul:
            assert len(packet.args) == 1


def test_a_row_needs_all_its_arguments_unless_it_says_otherwise() -> None:
    assert Packet(99, "X", ("a", "b"), Side.ANY, Side.NONE, "").least == 2
    assert Packet(99, "X", ("a", "b"), Side.ANY, Side.NONE, "", least=1).least == 1


@pytest.mark.parametrize("packet", EVERY, ids=lambda p: p.name)
def test_every_packet_has_a_sender_and_is_described(packet: Packet) -> None:
    assert packet.asked_by or packet.sent_to
    assert packet.about.endswith(".")
