"""Text commands as talks: what is said, and how the answers of different servers are understood."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest

from trigear.errors import LocalProtocolError, Refused, RemoteProtocolError
from trigear.protocol import talks
from trigear.protocol.talks import (
    ConnectionStatus,
    FunctionStatus,
    ListedJob,
    PriorityStatus,
)

if TYPE_CHECKING:
    from trigear.protocol.talks import Talk

Value = TypeVar("Value")

Answer = list[str] | Refused


def hold(talk: Talk[Value], *script: tuple[str, Answer]) -> Value:
    """Hold a talk with a server that is asked this, and answers so."""
    left = list(script)
    try:
        line = next(talk)
        while True:
            expected, answer = left.pop(0)
            assert line == expected
            line = talk.throw(answer) if isinstance(answer, Refused) else talk.send(answer)
    except StopIteration as end:
        assert not left
        return end.value


def test_functions_are_told_with_their_counters() -> None:
    found = hold(talks.status(), ("status", ["mail\t5\t2\t3"]))
    assert found == [FunctionStatus("mail", 5, 2, 3)]
    found = hold(talks.priority_status(), ("prioritystatus", ["mail\t1\t2\t0\t3"]))
    assert found == [PriorityStatus("mail", 1, 2, 0, 3)]


def test_prefix_and_function_with_a_tab_between_are_one_name() -> None:
    """Perl's client asks for such functions, and gearmand lists them as they are."""
    assert hold(talks.status(), ("status", ["shop\tmail\t5\t2\t3"])) == [
        FunctionStatus("shop\tmail", 5, 2, 3)
    ]


@pytest.mark.parametrize("line", ["mail\t5", "mail\t5\tmany\t0", "mail\t5\t\N{SUPERSCRIPT TWO}\t0"])
def test_line_that_makes_no_sense_is_the_servers_fault(line: str) -> None:
    with pytest.raises(RemoteProtocolError, match="the server said"):
        hold(talks.status(), ("status", [line]))


@pytest.mark.parametrize(
    ("line", "connection"),
    [
        ("31 127.0.0.1 - : a b", ConnectionStatus(31, "127.0.0.1", None, ("a", "b"))),
        ("31 127.0.0.1 - :", ConnectionStatus(31, "127.0.0.1", None, ())),
        ("31 ::1 two words : a", ConnectionStatus(31, "::1", "two words", ("a",))),
        ("- - x :", ConnectionStatus(None, "-", "x", ())),
    ],
)
def test_line_of_workers_is_taken_apart(line: str, connection: ConnectionStatus) -> None:
    assert hold(talks.workers(), ("workers", [line])) == [connection]


def test_line_of_workers_that_is_none_is_the_servers_fault() -> None:
    with pytest.raises(RemoteProtocolError, match=r"'what\\x07 is this'"):
        hold(talks.workers(), ("workers", ["what\a is this"]))


def test_jobs_are_told_from_both_lists() -> None:
    found = hold(
        talks.jobs(),
        ("show jobs", ["H:1\t0\t0\t1", "H:2\t3\t0\t0"]),
        ("jobs", ["H:2\tu\t127.0.0.1\t1", "H:3\t\t-\t0"]),
    )
    assert found == [
        ListedJob("H:1", True, 0, None, None, None),
        ListedJob("H:2", False, 3, "u", "127.0.0.1", 1),
        ListedJob("H:3", None, None, None, None, 0),
    ]


def test_jobs_of_a_server_that_has_one_list_are_told_from_that() -> None:
    found = hold(
        talks.jobs(),
        ("show jobs", ["H:1\t0\t0\t1"]),
        ("jobs", Refused("UNKNOWN_COMMAND", "jobs")),
    )
    assert found == [ListedJob("H:1", True, 0, None, None, None)]


def test_server_that_loads_its_jobs_says_so() -> None:
    assert hold(talks.loading(), ("loading", ["OK yes"]))
    assert not hold(talks.loading(), ("loading", ["OK no"]))
    with pytest.raises(RemoteProtocolError, match="'OK perhaps'"):
        hold(talks.loading(), ("loading", ["OK perhaps"]))


def test_job_that_is_not_there_is_no_error() -> None:
    assert hold(talks.cancel("H:1"), ("cancel job H:1", ["OK"]))
    assert not hold(talks.cancel(b"H:1"), ("cancel job H:1", Refused("UNKNOWN_JOB", "")))
    with pytest.raises(Refused):
        hold(talks.cancel("H:1"), ("cancel job H:1", Refused("PERMISSION_DENIED", "")))


def test_functions_are_made_limited_and_dropped() -> None:
    hold(talks.create_function("f"), ("create function f", ["OK"]))
    hold(talks.max_queue("f", ()), ("maxqueue f", ["OK"]))
    hold(talks.max_queue("f", (1, 2, 0)), ("maxqueue f 1 2 0", ["OK"]))
    hold(talks.drop_function("f"), ("drop function f", ["OK"]))
    with pytest.raises(Refused):
        hold(talks.drop_function("f"), ("drop function f", Refused("ERR", "function not found")))


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "a\0b", "a\rb"])
def test_name_that_is_not_one_word_is_refused(name: str) -> None:
    with pytest.raises(LocalProtocolError, match="cannot stand in a text command"):
        talks.create_function(name)
