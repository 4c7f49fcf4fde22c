"""Talks about schedules: what is said, by packet or by line, and how the answers are understood."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.protocol.test_talks import hold
from trigear.errors import LocalProtocolError, Refused, RemoteProtocolError
from trigear.model import Priority
from trigear.protocol import schedule_talks as talks
from trigear.protocol.schedule_talks import ScheduleDetails, ScheduleOrder, ScheduleStatus
from trigear.wire.commands import LINE_LIMIT

PLAIN: dict[str, Any] = {
    "function": b"f",
    "when": "0 3 * * mon",
    "workload": b"w",
    "unique": b"",
    "timezone": "UTC",
    "missed": "once",
    "priority": Priority.NORMAL,
}
MIDNIGHT = (b"0", b"0", b"*", b"*", b"*")


def order(**changes: object) -> ScheduleOrder:
    return ScheduleOrder(**{**PLAIN, **changes})


# By packet


def test_the_packet_suffices_for_cron_in_utc() -> None:
    assert order().fields() == (b"0", b"3", b"*", b"*", b"mon")
    assert order(when="@daily", unique=b"u", workload=b"x" * 99999).fields() == MIDNIGHT


@pytest.mark.parametrize(
    "changes",
    [
        {"when": "@every 5m"},
        {"timezone": "Europe/Berlin"},
        {"missed": "skip"},
        {"priority": Priority.HIGH},
    ],
)
def test_for_everything_else_it_does_not(changes: dict[str, object]) -> None:
    assert order(**changes).fields() is None


def test_days_that_make_no_sense_are_found_before_anything_is_sent() -> None:
    with pytest.raises(LocalProtocolError, match="day of week '9' makes no sense"):
        order(when="0 0 * * 9").fields()


@pytest.mark.parametrize("when", ["", " ", "0 0\n* * *", "0 0 * * *\0", "a=b"])
def test_what_cannot_be_sent_is_no_time(when: str) -> None:
    with pytest.raises(LocalProtocolError, match="five fields of cron"):
        order(when=when)


def test_there_are_two_policies() -> None:
    with pytest.raises(ValueError, match="missed='never': once or skip is needed"):
        order(missed="never")


# By line


def test_a_line_says_what_is_not_the_default() -> None:
    assert order(workload=b"").line() == "schedule add f 0 3 * * mon"
    assert order(
        when=" @every  5m ",
        unique=b"night shift",
        timezone="Europe/Berlin",
        missed="skip",
        priority=Priority.LOW,
        workload=b"a b\0\xff%",
    ).line() == (
        "schedule add f @every 5m unique=night%20shift timezone=Europe/Berlin missed=skip"
        " priority=low workload=a%20b%00%FF%25"
    )


def test_a_line_has_room_for_so_much() -> None:
    room = LINE_LIMIT - 2 - len("schedule add f @every 5m workload=")
    assert len(order(when="@every 5m", workload=b"x" * room).line()) == LINE_LIMIT - 2
    with pytest.raises(LocalProtocolError, match=f"workload of {room + 1} bytes: it does not fit"):
        order(when="@every 5m", workload=b"x" * (room + 1)).line()
    with pytest.raises(LocalProtocolError, match="function 'two words' cannot stand"):
        order(function=b"two words").line()


MISUSED = Refused("INVALID_ARGUMENTS", "An incomplete set of arguments")


def test_a_schedule_is_added_by_line() -> None:
    found = hold(
        talks.add(order(when="@every 5m", workload=b"")),
        ("schedule", MISUSED),
        ("schedule add f @every 5m", ["OK H:here:1"]),
    )
    assert found == b"H:here:1"


def test_a_server_without_schedules_is_not_given_the_line() -> None:
    with pytest.raises(Refused):
        hold(talks.add(order()), ("schedule", Refused("UNKNOWN_COMMAND", "x")))


@pytest.mark.parametrize("answer", [[], ["OK"], ["H:here:1"], ["YES H:here:1"]])
def test_an_answer_without_a_handle_is_not_understood(answer: list[str]) -> None:
    with pytest.raises(RemoteProtocolError, match="the server said"):
        hold(talks.run("u"), ("schedule run u", answer))


# Lists


def test_schedules_are_listed() -> None:
    assert hold(
        talks.schedules(),
        (
            "schedule list",
            [
                "H:1\tf\tu\t0 3 * * mon\tEurope/Berlin\tactive\t1800000000\t-\t0",
                "H:2\tg\t\t@every 5m\tUTC\tpaused\t-\t1700000000\t17",
            ],
        ),
    ) == [
        ScheduleStatus(
            *("H:1", "f", "u", "0 3 * * mon", "Europe/Berlin", False),
            datetime(2027, 1, 15, 8, tzinfo=UTC),
            None,
            0,
        ),
        ScheduleStatus(
            *("H:2", "g", None, "@every 5m", "UTC", True),
            None,
            datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
            17,
        ),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "H:1\tf\tu",
        "H:1\tf\tu\tw\tz\tactive\tsoon\t-\t0",
        "H:1\tf\tu\tw\tz\tactive\t99999999999999999999\t-\t0",
        "H:1\tf\tu\tw\tz\tactive\t-\t-\toften",
    ],
)
def test_lines_that_make_no_sense_are_the_servers_fault(line: str) -> None:
    with pytest.raises(RemoteProtocolError, match="the server said"):
        hold(talks.schedules(), ("schedule list", [line]))


SHOWN = [
    "handle\tH:1",
    "function\tf",
    "unique\t",
    "when\t0 3 * * *",
    "timezone\tUTC",
    "missed\tskip",
    "priority\thigh",
    "state\tactive",
    "since\t1700000000",
    "runs\t2",
    "ran\t-",
    "run\t-",
    "size\t3",
    "workload\ta%00b",
    "next\t1800000000",
    "next\t1800086400",
]


def test_one_schedule_is_shown() -> None:
    found = hold(talks.details("u"), ("schedule show u", SHOWN))
    first, second = (datetime(2027, 1, day, 8, tzinfo=UTC) for day in (15, 16))
    assert found == ScheduleDetails(
        handle="H:1",
        function="f",
        unique=None,
        when="0 3 * * *",
        timezone="UTC",
        missed="skip",
        priority=Priority.HIGH,
        paused=False,
        since=datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        runs=2,
        ran=None,
        run=None,
        size=3,
        workload=b"a\0b",
        times=(first, second),
    )
    assert found.next == first


def test_a_paused_schedule_with_a_large_workload_is_shown() -> None:
    lines = [line for line in SHOWN if not line.startswith(("next", "workload"))]
    lines = ["run\tH:9" if line == "run\t-" else line for line in lines]
    found = hold(talks.details(b"u"), ("schedule show u", lines))
    assert found is not None
    assert (found.workload, found.times, found.next, found.run) == (None, (), None, "H:9")


def test_a_schedule_that_is_not_there_is_none() -> None:
    line = "schedule show u"
    assert hold(talks.details("u"), (line, Refused("UNKNOWN_SCHEDULE", ""))) is None
    with pytest.raises(Refused):
        hold(talks.details("u"), (line, Refused("AMBIGUOUS_SCHEDULE", "")))


@pytest.mark.parametrize("lost", range(13))
def test_what_is_missing_is_noticed(lost: int) -> None:
    lines = [line for number, line in enumerate(SHOWN) if number != lost]
    with pytest.raises(RemoteProtocolError, match="the server said"):
        hold(talks.details("u"), ("schedule show u", lines))


def test_a_priority_that_is_none_is_noticed() -> None:
    lines = [line.replace("high", "royal") for line in SHOWN]
    with pytest.raises(RemoteProtocolError, match="the server said"):
        hold(talks.details("u"), ("schedule show u", lines))


def test_schedules_are_steered() -> None:
    assert hold(talks.pause("u"), ("schedule pause u", ["OK"])) is None
    assert hold(talks.resume(b"u"), ("schedule resume u", ["OK"])) is None
    assert hold(talks.remove("u"), ("schedule remove u", ["OK"])) is None
    assert hold(talks.run("u"), ("schedule run u", ["OK H:9"])) == b"H:9"
    with pytest.raises(LocalProtocolError, match="schedule 'a b' cannot stand"):
        hold(talks.run("a b"))
