"""Transcripts: reading them, and that playing them fails where the server does something else."""

from __future__ import annotations

import re

import pytest

from trigear.engine.config import OnTimeout
from trigear.testing.backends import EngineBackend, engine_config, gearmand_options
from trigear.testing.transcript import (
    Name,
    TranscriptError,
    TranscriptFailure,
    play,
    read,
    shown,
)
from trigear.wire.codec import REQ, RES, request, response
from trigear.wire.packets import ECHO_REQ, JOB_CREATED, NOOP, SUBMIT_JOB


def played(script: str, *, side: str = "trigear") -> None:
    transcript = read("title: test\n" + script, "test.txt")
    backend = EngineBackend(transcript.settings)
    backend.side = side
    play(transcript, backend)


def failure_of(script: str) -> str:
    with pytest.raises(TranscriptFailure) as caught:
        played(script)
    return str(caught.value)


# Reading


def test_a_packet_is_read_from_its_name_and_arguments() -> None:
    transcript = read('title: t\nclient > SUBMIT_JOB f "u 1" "a\\0b\\x41\\n\\"\\$"*2\n', "t.txt")
    (step,) = transcript.steps
    assert (step.line, step.who, step.do, step.kind) == (2, "client", ">", "packet")
    assert (step.magic, step.number) == (REQ, SUBMIT_JOB)
    pieces = [piece for piece in step.pieces if isinstance(piece, bytes)]
    assert b"".join(pieces) == b"f\0u 1\0" + b'a\0bA\n"$' * 2


def test_directions_choose_the_magic() -> None:
    sent, wrong, received = read("title: t\na > NOOP\na > RES NOOP\na < NOOP\n", "t.txt").steps
    assert [sent.magic, wrong.magic, received.magic] == [REQ, RES, RES]


def test_names_may_stand_anywhere() -> None:
    (step,) = read('title: t\na < text "x${H}" \n'.replace("${H}", "$H"), "t.txt").steps
    assert step.pieces == (b"x", Name("H"), b"\n")


def test_headings_and_settings_are_read() -> None:
    transcript = read(
        "# nothing\n\ntitle: t: with colon\nserver: exceptions attempts=2\n"
        "only: engine: it has no clock\nwhole: it is short\nnote: well\n",
        "t.txt",
    )
    assert transcript.title == "t: with colon"
    assert transcript.settings == {"exceptions": "", "attempts": "2"}
    assert (transcript.only, transcript.whole, transcript.steps) == ("engine", True, [])


def test_lines_of_one_side_are_left_out_on_the_other() -> None:
    transcript = read(
        "title: t\na > NOOP\ndiffers: they do\n    1.1: a < NOOP\n    trigear: a < NO_JOB\n"
        "a closes\n",
        "t.txt",
    )
    assert [step.source for step in transcript.steps_on("1.1")] == [
        "a > NOOP",
        "a < NOOP",
        "a closes",
    ]
    assert [step.source for step in transcript.steps_on("trigear")] == [
        "a > NOOP",
        "a < NO_JOB",
        "a closes",
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a > NO_SUCH_PACKET", "there is no packet NO_SUCH_PACKET"),
        ("a = NOOP", "is no step"),
        ("a opens now", "nothing follows here"),
        ("a > text one two", "one argument is needed"),
        ("a > text", "one argument is needed"),
        ('a > ECHO_REQ "open', "cannot read"),
        ('a > ECHO_REQ "\\q"', "unknown escape"),
        ("clock +soon", "seconds are a number"),
        ("    1.1: a > NOOP", "belongs to no `differs:` block"),
        ("differs: yes\n    2.0: a > NOOP", "belongs to no `differs:` block"),
        ("differs: yes\na > NOOP\n    1.1: a > NOOP", "belongs to no `differs:` block"),
        ("only: engine", "write `only:"),
        ("only: gearmand: why", "write `only:"),
    ],
)
def test_a_line_that_means_nothing_is_named(line: str, says: str) -> None:
    with pytest.raises(TranscriptError, match=re.escape(says)) as caught:
        read(f"title: t\n{line}\n", "t.txt")
    assert f"t.txt:{1 + len(line.splitlines())}: " in str(caught.value)


def test_a_transcript_has_a_title() -> None:
    with pytest.raises(TranscriptError, match="no title"):
        read("a > NOOP\n", "t.txt")


# Playing


def test_what_was_received_can_be_sent() -> None:
    played(
        """
        a > SUBMIT_JOB f "" w
        a < JOB_CREATED $H
        b > GET_STATUS $H
        b < STATUS_RES $H 1 0 0 0
        b > text "cancel job $H"
        a < WORK_FAIL $H
        b < text "OK\\r"
    """.replace("        ", "")
    )


def test_two_sends_can_go_out_in_one_piece() -> None:
    played(
        "a >> ECHO_REQ 1\na >> ECHO_REQ 2\na > ECHO_REQ 3\n"
        "a < ECHO_RES 1\na < ECHO_RES 2\na < ECHO_RES 3\n"
    )


def test_time_passes_by_what_is_due_first() -> None:
    played(
        "worker > CAN_DO f\nworker > PRE_SLEEP\n"
        'client > SUBMIT_JOB_EPOCH f "" @+3600 w\nclient < JOB_CREATED $H\n'
        "clock +3599\nworker < nothing\nclock +1\nworker < NOOP\n"
    )


def test_a_transcript_without_steps_is_played() -> None:
    played("")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("a > ECHO_REQ 1\na < ECHO_RES 2", "test.txt:3: `a < ECHO_RES 2`, but: ECHO_RES b'1'"),
        ("a > ECHO_REQ 1\na < NO_JOB", "but: ECHO_RES b'1'"),
        ("a > ECHO_REQ 1\na < ECHO_RES 1\na < NOOP", "but: nothing came"),
        ("a > ECHO_REQ 1", "before `a > ECHO_REQ 1`: a received ECHO_RES b'1'"),
        ("a > ECHO_REQ 1\na < nothing", "a received ECHO_RES b'1'"),
        ("a > ECHO_REQ 1\nb > ECHO_REQ 2", "before `b > ECHO_REQ 2`: a received ECHO_RES b'1'"),
        ("a > ECHO_REQ 1\nclock +1", "a received ECHO_RES b'1'"),
        ("a > ECHO_REQ 1\na closes", "a received ECHO_RES b'1'"),
        ("a > text version\na < text nonsense", "but: text b'OK 0\\n'"),
        ("a > text version\na < NOOP", "but: text b'OK 0\\n'"),
        ("a > ECHO_REQ 1\na < closed", "but: ECHO_RES b'1'"),
        ("a opens\na < closed", "but: nothing came"),
        ('a > bytes "\\0BAD"\na < NOOP', "but: ERROR b'INVALID_MAGIC'"),
        (
            'a > bytes "\\0BAD"\na < ERROR INVALID_MAGIC "Neither a packet nor a text command"\n'
            "a < nothing",
            "but: the server closed the connection",
        ),
        (
            'a > bytes "\\0BAD"\na < ERROR INVALID_MAGIC "Neither a packet nor a text command"\n'
            "a < NOOP",
            "but: the server closed the connection",
        ),
        (
            'a > bytes "\\0BAD"\na < ERROR INVALID_MAGIC "Neither a packet nor a text command"\n'
            "a > NOOP",
            "could not be sent",
        ),
        ("a > GET_STATUS $H", "$H was not received yet"),
        ("a > ECHO_REQ x\na < ECHO_RES @+1", "a time from now can only be sent"),
        (
            "a > SUBMIT_JOB f u w\na < JOB_CREATED $H\na > SUBMIT_JOB f u w\na < JOB_CREATED $I",
            "$I and $H are both b'H:memory:",
        ),
        (
            'a > SUBMIT_JOB f "" w\na < JOB_CREATED $H\na > SUBMIT_JOB f "" w\na < JOB_CREATED $H',
            "but: JOB_CREATED b'H:memory:00000000000000000002'\n  $H is b'H:memory:",
        ),
    ],
)
def test_playing_fails_where_the_server_does_something_else(script: str, says: str) -> None:
    assert says in failure_of(script)


def test_names_with_an_underscore_may_stand_for_the_same() -> None:
    played('a > text version\na < text "OK $_one"\na > text version\na < text "OK $_two"\n')


def test_a_name_twice_in_one_line_is_the_same_twice() -> None:
    played("a > ECHO_REQ x-x\na < ECHO_RES $one-$one\n")
    assert "but: ECHO_RES b'x-y'" in failure_of("a > ECHO_REQ x-y\na < ECHO_RES $one-$one\n")


def test_messages_are_shown_as_a_transcript_would_have_them() -> None:
    assert shown(response(JOB_CREATED, b"H:1")) == "JOB_CREATED b'H:1'"
    assert shown(request(ECHO_REQ, b"a", b"b")) == "RES ECHO_REQ b'a' b'b'"
    assert shown(response(NOOP)) == "NOOP"
    assert shown(b"line\n") == "text b'line\\n'"


# Settings


def test_settings_reach_the_engine() -> None:
    config = engine_config(
        {
            "exceptions": "",
            "attempts": "3",
            "wakeup": "0",
            "on_timeout": "fail",
            "max_packet": "9999",
        }
    )
    assert (config.exceptions, config.attempts, config.wakeup) == (True, 3, 0)
    assert (config.on_timeout, config.max_packet) == (OnTimeout.FAIL, 9999)
    plain = engine_config({})
    assert (plain.exceptions, plain.attempts, plain.wakeup) == (False, 0, None)
    with pytest.raises(ValueError, match="unknown settings: color"):
        engine_config({"color": "red"})


def test_settings_reach_gearmand_where_it_has_them() -> None:
    assert gearmand_options({"exceptions": "", "attempts": "2", "wakeup": "0"}) == [
        "--exceptions",
        "--job-retries=2",
        "--worker-wakeup=0",
    ]
    assert gearmand_options({"max_packet": "9999"}) is None
