"""Who asks for what is in a store: turns, limits, a store that fails or does not answer."""

from __future__ import annotations

import pytest

from trigear.engine import reads
from trigear.engine.config import EngineConfig
from trigear.engine.engine import Engine
from trigear.engine.reads import READ_SECONDS, STALLED, Reads
from trigear.model import Now

RED, BLUE = ("result", "red"), ("result", "blue")


class Desk:
    """Reads, a clock, and what everybody heard."""

    def __init__(self) -> None:
        self.reads = Reads()
        self.now = Now(100.0, 1_800_000_000.0)
        self.heard: list[tuple[object, object, str]] = []

    def ask(self, key: object, what: tuple[str, ...] = RED, size: int = 10) -> None:
        self.reads.ask(
            what, key, size, self.now, lambda found, why: self.heard.append((key, found, why))
        )

    def pass_time(self, seconds: float) -> None:
        self.now = Now(self.now.monotonic + seconds, self.now.wall + seconds)
        self.reads.tick(self.now)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_one_fetch_at_a_time_takes_what_gathered(desk):
    assert desk.reads.idle
    assert desk.reads.next_fetch() is None
    desk.ask(b"1")
    first = desk.reads.next_fetch()
    assert (first.what, first.keys) == (RED, (b"1",))
    desk.ask(b"2")
    desk.ask(b"3")
    assert not desk.reads.has_fetch
    assert desk.reads.next_fetch() is None
    desk.reads.done(first, {b"1": "one"}, "")
    assert desk.heard == [(b"1", "one", "")]
    second = desk.reads.next_fetch()
    assert second.keys == (b"2", b"3")
    desk.reads.done(second, {b"3": "three"}, "")
    assert desk.heard[1:] == [(b"2", None, ""), (b"3", "three", "")]
    assert desk.reads.idle


def test_those_who_ask_for_the_same_share_it(desk):
    desk.ask(b"1")
    desk.ask(b"1")
    fetch = desk.reads.next_fetch()
    assert fetch.keys == (b"1",)
    desk.reads.done(fetch, {b"1": "one"}, "")
    assert desk.heard == [(b"1", "one", "")] * 2


@pytest.mark.pure
def test_a_fetch_has_its_limits_and_tenants_take_turns(desk, monkeypatch):
    monkeypatch.setattr(reads, "FETCH_KEYS", 3)
    monkeypatch.setattr(reads, "FETCH_BYTES", 100)
    for number in range(5):
        desk.ask(b"%d" % number, RED)
    desk.ask(b"large", BLUE, 1000)
    desk.ask(b"small", BLUE, 50)
    taken = []
    while (fetch := desk.reads.next_fetch()) is not None:
        taken.append((fetch.what, fetch.keys))
        desk.reads.done(fetch, {}, "")
    assert taken == [
        (RED, (b"0", b"1", b"2")),
        (BLUE, (b"large",)),
        (RED, (b"3", b"4")),
        (BLUE, (b"small",)),
    ]


def test_why_something_cannot_be_read_is_told_to_everybody(desk):
    desk.ask(b"1")
    desk.ask(b"2")
    desk.reads.done(desk.reads.next_fetch(), {}, "burnt")
    assert desk.heard == [(b"1", None, "burnt"), (b"2", None, "burnt")]
    desk.ask(b"1")
    assert desk.reads.has_fetch


def test_nobody_waits_longer_than_for_a_while(desk):
    desk.ask(b"1")
    hanging = desk.reads.next_fetch()
    desk.pass_time(3)
    desk.ask(b"2")
    assert desk.reads.next_deadline() == 100 + READ_SECONDS
    desk.pass_time(1.9)
    assert desk.heard == []
    desk.pass_time(0.1)
    assert desk.heard == [(b"1", None, STALLED), (b"2", None, STALLED)]
    assert desk.reads.next_deadline() == float("inf")
    assert desk.reads.idle
    desk.ask(b"3")
    assert desk.heard[2:] == [(b"3", None, STALLED)], "told at once"
    desk.reads.done(hanging, {b"1": "late"}, "")
    assert len(desk.heard) == 3
    desk.ask(b"4")
    desk.reads.done(desk.reads.next_fetch(), {b"4": "four"}, "")
    assert desk.heard[3:] == [(b"4", "four", "")]


def test_what_nobody_took_counts_as_waiting(desk):
    desk.ask(b"1")
    desk.pass_time(READ_SECONDS)
    assert desk.heard == [(b"1", None, STALLED)]
    assert desk.reads.stalled


def test_an_engine_knows_its_deadline_and_waits_for_its_reader():
    now = Now(100.0, 1_800_000_000.0)
    engine = Engine(EngineConfig(), lambda *_: b"H:1", now, durable=True)
    heard = []
    assert not engine.waits
    engine.reads.ask(RED, b"1", 1, now, lambda *what: heard.append(what))
    assert engine.next_deadline() == 100 + READ_SECONDS
    assert engine.waits
    assert not engine.drained
    later = Now(101.0, 1_800_000_001.0)
    engine.fetched(engine.reads.next_fetch(), {b"1": "one"}, "", later)
    assert (heard, engine.now) == ([("one", "")], later)
    assert engine.drained
    engine.reads.ask(RED, b"1", 1, later, lambda *what: heard.append(what))
    engine.tick(Now(200.0, 1_800_000_100.0))
    assert heard[1:] == [(None, STALLED)]
