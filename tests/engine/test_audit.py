"""The audit log's entries: what they say, and what they never say."""

from __future__ import annotations

import json

import pytest

from trigear.engine import audit
from trigear.engine.audit import READING, Audit
from trigear.model import Now
from trigear.wire.commands import COMMANDS, find

NOW = Now(100.0, 1_800_000_000.25)


def later(seconds: float) -> Now:
    return Now(NOW.monotonic + seconds, NOW.wall + seconds)


@pytest.fixture
def entries() -> list[dict[str, object]]:
    return []


@pytest.fixture
def log(entries: list[dict[str, object]]) -> Audit:
    return Audit(entries.append)


def test_an_entry_has_its_time_in_utc_and_what_is_known(log, entries) -> None:
    log.note("auth.ok", NOW, {"peer": "10.0.0.1", "cipher": ""}, identity="acme/a", reason=None)
    assert entries == [
        {
            "time": "2027-01-15T08:00:00.250Z",
            "event": "auth.ok",
            "peer": "10.0.0.1",
            "identity": "acme/a",
        }
    ]


def test_without_a_sink_nothing_is_made() -> None:
    log = Audit(None)
    assert not log.on
    log.note("acl.denied", NOW, {})
    assert not any(map(log.enters, COMMANDS))
    log.flush(NOW)
    assert not log._peers


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[31m\nb", "a\\x1b[31m\\x0ab"),
        (b"\xff\x00", "\\xff\\x00"),
        ("x" * 128, "x" * 128),
        ("x" * 129, "x" * 125 + "..."),
        ("\x00" * 100, "\\x00" * 31 + "\\..."),
        ("\u00e4" * 100, "\u00e4" * 62 + "..."),
        ("\udc80", "\\udc80"),
    ],
)
def test_names_do_nothing_and_are_not_long(log, entries, name: str | bytes, shown: str) -> None:
    log.note("auth.fail", NOW, {}, authcid=name)
    assert entries[0]["authcid"] == shown
    assert len(shown.encode()) <= 128


def test_reasons_are_ours_and_may_be_longer(log, entries) -> None:
    log.note("auth.reload", NOW, {}, reason="x" * 600)
    assert entries[0]["reason"] == "x" * 509 + "..."


# Limits


def test_who_is_refused_in_a_circle_fills_no_disk(log, entries) -> None:
    for number in range(1000):
        log.note("acl.denied", later(number / 1000), {"peer": "a"}, what=str(number))
    assert len(entries) == audit.BURST
    log.note("acl.denied", later(1), {"peer": "b"})
    assert "left_out" not in entries[-1]
    log.note("acl.denied", later(audit.INTERVAL + 1), {"peer": "a"})
    assert entries[-1]["left_out"] == 1000 - audit.BURST
    log.note("quota.exceeded", later(1), {"peer": "a"})
    log.note("auth.ok", later(1), {"peer": "a"})
    assert len(entries) == audit.BURST + 4


def test_what_was_left_out_is_told_when_it_is_asked_for(log, entries) -> None:
    for number in range(audit.BURST + 5):
        log.note("auth.fail", NOW, {"peer": "a"}, what=number)
    log.flush(later(1))
    log.flush(later(1))
    assert len(entries) == audit.BURST + 1
    assert entries[-1]["left_out"] == 5
    assert entries[-1]["what"] == audit.BURST + 4
    assert entries[-1]["peer"] == "a"


def test_many_peers_together_are_limited_as_well(log, entries, monkeypatch) -> None:
    monkeypatch.setattr(audit, "BURST_OF_ALL", 10)
    for number in range(50):
        log.note("auth.fail", NOW, {"peer": str(number)})
    assert len(entries) == 10
    log.note("auth.fail", later(1), {"peer": "x"})
    assert len(entries) == 11


def test_only_so_many_peers_are_told_apart(log, entries, monkeypatch) -> None:
    monkeypatch.setattr(audit, "MOST_PEERS", 2)
    for _ in range(audit.BURST + 3):
        log.note("auth.fail", NOW, {"peer": "first"})
    log.note("auth.fail", NOW, {"peer": "second"})
    log.note("auth.fail", NOW, {"peer": "third"})
    assert [entry["peer"] for entry in entries[audit.BURST :]] == ["second", "first", "third"]
    assert entries[-2]["left_out"] == 3
    assert len(log._peers) == 2


# Commands


def command(log: Audit, line: bytes, answer: bytes | None) -> None:
    words = line.split()
    found = find(words)
    assert found is not None
    if log.enters(found):
        log.command(found, words[len(found.words) :], answer, NOW, {"peer": "a"})


@pytest.mark.parametrize(
    ("line", "answer", "told"),
    [
        (b"cancel job H:1", b"OK\r\n", ("cancel job", ["H:1"], "done")),
        (
            b"drop function f",
            b"ERR function not found\r\n",
            ("drop function", ["f"], "ERR function"),
        ),
        (b"set f timeout 3", None, ("set", ["f", "timeout", "3"], "begun")),
        (
            b"schedule add f @hourly workload=secret",
            b"OK H:2\n",
            ("schedule add", ["f"], "done"),
        ),
        (b"dead delete all f", b"OK 3 0\n", ("dead delete", ["all", "f"], "done")),
        (b"maxqueue f 1 2 3", b"OK\r\n", ("maxqueue", ["f", "1", "2", "3"], "done")),
    ],
)
def test_commands_that_change_something_are_entered(log, entries, line, answer, told) -> None:
    command(log, line, answer)
    (entry,) = entries
    assert entry["event"] == "admin"
    assert (entry["command"], entry.get("arguments"), entry["outcome"]) == told
    assert "secret" not in json.dumps(entry)


def test_commands_that_only_read_are_not(log, entries) -> None:
    command(log, b"status", b".\n")
    assert entries == []


def test_every_command_that_is_not_entered_only_reads() -> None:
    changing = {each.name for each in COMMANDS} - READING
    assert changing == {
        *("create function", "drop function", "cancel job", "maxqueue", "drop result"),
        *("schedule add", "schedule pause", "schedule resume", "schedule run", "schedule remove"),
        *("requeue", "priority", "pause", "resume", "set", "reset", "dead retry", "dead delete"),
        *("session end", "shutdown", "drain", "reload"),
    }
