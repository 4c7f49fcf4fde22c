"""Text commands: the words of a line, the command they name, and the bytes of the answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trigear.wire.commands import (
    COMMANDS,
    END,
    OK,
    Command,
    err,
    find,
    invalid_arguments,
    ok,
    table,
    unknown_command,
    words_of,
)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"status", [b"status"]),
        (b"cancel job H:a:1", [b"cancel", b"job", b"H:a:1"]),
        (b"cancel   job  H:a:1", [b"cancel", b"job", b"H:a:1"]),
        (b"status ", [b"status"]),
        (b"status   ", [b"status"]),
        (b" status", [b"", b"status"]),
        (b"", [b""]),
        (b" ", [b""]),
        (b"drop function prefix\tname", [b"drop", b"function", b"prefix\tname"]),
        (b"maxqueue \xff\x00\x0b 3", [b"maxqueue", b"\xff\x00\x0b", b"3"]),
    ],
)
def test_blanks_and_nothing_else_separate_words(line: bytes, words: list[bytes]) -> None:
    assert words_of(line) == words


@given(st.binary(max_size=60))
def test_any_line_has_a_first_word(line: bytes) -> None:
    words = words_of(line)
    assert words
    assert all(b" " not in word for word in words)
    assert b"".join(words) == line.replace(b" ", b"")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_every_command_is_found_by_its_words_in_any_case(command: Command) -> None:
    words = [word.encode() for word in command.words]
    more = [b"x"] * len(command.args)
    assert find(words) is command
    assert find(words + more) is command
    assert find([word.upper() for word in words] + more) is command
    assert find([word.title() for word in words] + more) is command
    assert find(words[:-1]) is None
    assert find([b"", *words]) is None


def test_the_longest_command_is_meant() -> None:
    found = find([b"show", b"unique", b"jobs"])
    assert found is not None
    assert found.name == "show unique jobs"
    assert find([b"show", b"unique"]) is None
    assert find([b"show"]) is None
    assert find([b"session"]) is None


def test_no_command_is_the_beginning_of_another() -> None:
    """Else it would depend on the arguments which of the two is meant."""
    for one in COMMANDS:
        for other in COMMANDS:
            if one is not other:
                assert other.words[: len(one.words)] != one.words


def test_lists_are_known_by_their_end() -> None:
    assert [command.name for command in COMMANDS if command.is_list] == [
        "status",
        "prioritystatus",
        "workers",
        "show jobs",
        "show unique jobs",
        "jobs",
        "clients",
        "show job",
        "show functions",
        "result",
        "schedule list",
        "schedule show",
        "functions",
        "tenants",
        "dead list",
        "dead show",
        "sessions",
    ]


def test_answers_have_the_line_ends_of_gearmand() -> None:
    assert OK == b"OK\r\n"
    assert END == b".\n"
    assert ok(b"1.0") == b"OK 1.0\n"
    assert err("UNKNOWN_JOB") == b"ERR UNKNOWN_JOB\r\n"
    assert err("X", "two words") == b"ERR X two+words\r\n"


def test_a_command_that_is_none_is_named_without_separator() -> None:
    assert unknown_command(b"bogus") == b"ERR UNKNOWN_COMMAND Unknown+server+commandbogus\r\n"


def test_a_wrong_number_of_words_is_told_with_the_first() -> None:
    assert invalid_arguments(b"drop") == (
        b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+drop\r\n"
    )


def test_tables_are_tabs_and_newlines_and_end_in_a_dot() -> None:
    assert table([]) == b".\n"
    assert table([(b"f", 1, 0, 12), (b"g", 0, 0, 0)]) == b"f\t1\t0\t12\ng\t0\t0\t0\n.\n"
    assert table([(b"",)]) == b"\n.\n"
