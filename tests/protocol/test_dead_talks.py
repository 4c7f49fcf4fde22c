"""Talks about dead letters, and about what steers functions and jobs."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime

import pytest

from tests.protocol.test_talks import hold
from trigear.errors import LocalProtocolError, Refused, RemoteProtocolError
from trigear.model import Priority
from trigear.protocol import dead_talks, talks
from trigear.protocol.dead_talks import DeadLetterDetails, DeadLetterStatus
from trigear.protocol.talks import FunctionSetting

UNKNOWN = Refused("UNKNOWN_JOB", "")
BROKEN = Refused("QUEUE_ERROR", "The store does not answer")
DIED = datetime(2026, 11, 23, 8, 0, 0, 250_000, UTC)
STAMP = f"{DIED.timestamp():.3f}"

LINES = [
    "handle\tH:1",
    "function\tf",
    "unique\tu",
    "priority\tlow",
    "reducer\t",
    "reason\tattempts",
    "attempts\t3",
    f"submitted\t{STAMP}",
    f"died\t{STAMP}",
    "worker\t10.0.0.1",
    "text\tout of paper",
    "size\t5",
    f"workload\t{b64encode(b'one').decode()}",
    f"workload\t{b64encode(bytes([0, 255])).decode()}",
]


# Dead letters


def test_dead_letters_are_listed() -> None:
    line = f"H:1\tf\tattempts\t3\t{STAMP}\t7\tu"
    bare = f"H:2\tf\texpired\t0\t{STAMP}\t0\t"
    assert hold(dead_talks.listed(), ("dead list", [line, bare])) == [
        DeadLetterStatus("H:1", "f", "u", "attempts", 3, DIED, 7),
        DeadLetterStatus("H:2", "f", None, "expired", 0, DIED, 0),
    ]
    assert hold(dead_talks.listed("f"), ("dead list f", [])) == []


@pytest.mark.parametrize(
    "line",
    [
        "H:1",
        "H:1\tf\tattempts\tmany\t1.0\t7\tu",
        "H:1\tf\tattempts\t3\tsoon\t7\tu",
        "H:1\tf\tattempts\t3\tnan\t7\tu",
        "H:1\tf\tattempts\t3\t1e99\t7\tu",
    ],
)
def test_line_that_is_no_dead_letter_is_the_servers_fault(line: str) -> None:
    with pytest.raises(RemoteProtocolError, match="the server said"):
        hold(dead_talks.listed(), ("dead list", [line]))


def test_all_of_a_dead_letter_is_told() -> None:
    assert hold(dead_talks.details("H:1"), ("dead show H:1", LINES)) == DeadLetterDetails(
        handle="H:1",
        function="f",
        unique="u",
        priority=Priority.LOW,
        reducer=None,
        reason="attempts",
        attempts=3,
        submitted=DIED,
        died=DIED,
        worker="10.0.0.1",
        text="out of paper",
        workload=b"one\x00\xff",
    )


def test_what_a_server_does_not_know_of_a_dead_letter_is_left_open() -> None:
    lines = [
        {"submitted": "submitted\t-", "worker": "worker\t-", "unique": "unique\t"}.get(
            line.partition("\t")[0], line
        )
        for line in LINES
    ]
    found = hold(dead_talks.details("H:1"), ("dead show H:1", lines))
    assert found is not None
    assert (found.submitted, found.worker, found.unique) == (None, None, None)


@pytest.mark.parametrize(
    "lines",
    [
        LINES[1:],
        LINES[:-1],
        [*LINES, "workload\tx"],
        [*LINES[:3], "priority\turgent", *LINES[4:]],
    ],
)
def test_dead_letter_with_something_missing_is_the_servers_fault(lines: list[str]) -> None:
    with pytest.raises(RemoteProtocolError, match="the server said"):
        hold(dead_talks.details("H:1"), ("dead show H:1", lines))


def test_dead_letter_that_is_not_there_is_no_error() -> None:
    assert hold(dead_talks.details("H:1"), ("dead show H:1", UNKNOWN)) is None
    with pytest.raises(Refused):
        hold(dead_talks.details("H:1"), ("dead show H:1", BROKEN))
    assert not hold(dead_talks.retry("H:1"), ("dead retry H:1", UNKNOWN))
    assert hold(dead_talks.retry("H:1"), ("dead retry H:1", ["OK"]))
    assert not hold(dead_talks.delete("H:1"), ("dead delete H:1", UNKNOWN))
    assert hold(dead_talks.delete("H:1"), ("dead delete H:1", ["OK"]))


def test_all_are_changed_however_many_commands_that_takes() -> None:
    line = "dead retry all"
    assert hold(dead_talks.retry_all(), (line, ["OK 0 0"])) == 0
    script = [(line, ["OK 1000 1500"]), (line, ["OK 1000 500"]), (line, ["OK 500 0"])]
    assert hold(dead_talks.retry_all(), *script) == 2500
    assert hold(dead_talks.delete_all("f"), ("dead delete all f", ["OK 3 0"])) == 3


def test_jobs_that_die_again_meanwhile_are_left_alone() -> None:
    line = "dead retry all"
    script = [(line, ["OK 2 1"]), (line, ["OK 2 5"])]
    assert hold(dead_talks.retry_all(), *script) == 4


@pytest.mark.parametrize("answer", [[], ["OK"], ["OK 1"], ["OK a b"], ["NO 1 2"]])
def test_answer_without_numbers_is_the_servers_fault(answer: list[str]) -> None:
    with pytest.raises(RemoteProtocolError):
        hold(dead_talks.retry_all(), ("dead retry all", answer))


# Steering


def test_jobs_are_steered() -> None:
    assert hold(talks.requeue("H:1"), ("requeue H:1", ["OK"]))
    assert not hold(talks.requeue("H:1"), ("requeue H:1", UNKNOWN))
    assert hold(talks.set_priority("H:1", Priority.HIGH), ("priority H:1 high", ["OK"]))
    assert not hold(talks.set_priority("H:1", Priority.LOW), ("priority H:1 low", UNKNOWN))


def test_settings_of_functions_are_told_with_their_origin() -> None:
    lines = ["a b\tattempts\t3\tcommand", "f\tmaxqueue\t1 2 3\tfile"]
    assert hold(talks.functions(), ("functions", lines)) == [
        FunctionSetting("a b", "attempts", "3", "command"),
        FunctionSetting("f", "maxqueue", "1 2 3", "file"),
    ]
    assert hold(talks.functions("f"), ("functions f", [])) == []


def test_functions_are_steered() -> None:
    hold(talks.pause("f"), ("pause f", ["OK"]))
    hold(talks.resume(b"f"), ("resume f", ["OK"]))
    hold(talks.reset("f"), ("reset f", ["OK"]))
    hold(talks.reset("f", "attempts"), ("reset f attempts", ["OK"]))


@pytest.mark.parametrize(
    ("value", "text"),
    [("30s", "30s"), (3, "3"), (1.5, "1.5"), (True, "yes"), (False, "no"), ((1, 2, 3), "1 2 3")],
)
def test_values_are_written_as_in_a_file(value: object, text: str) -> None:
    hold(talks.set_value("f", "x", value), (f"set f x {text}", ["OK"]))  # type: ignore[arg-type]


def test_names_that_are_no_words_are_refused() -> None:
    for make in (
        lambda: dead_talks.listed("a b"),
        lambda: dead_talks.retry_all("a b"),
        lambda: talks.functions("a b"),
    ):
        with pytest.raises(LocalProtocolError):
            next(make())
