"""Who is turned away and comes back at once is told so later: programs that know nothing of
being refused would otherwise go on as fast as they can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.test_logins import HERE, REQUIRED, Guarded
from trigear.engine import doors
from trigear.engine.doors import COMES_BACK, TurnedAway
from trigear.model import CloseReason, Now
from trigear.security.mechs import Channel

if TYPE_CHECKING:
    import pytest

ELSEWHERE = Channel("127.0.0.2", loopback=True)
REFUSED_IN_TEXT = b"ERR AUTHENTICATION_REQUIRED Authentication+required\r\n"


def test_t36_who_comes_back_without_a_login_is_told_later_and_heard_no_more() -> None:
    world = Guarded()
    assert world.caller().ask("CAN_DO", b"f") == [REQUIRED]
    again = world.caller()
    assert again.ask("CAN_DO", b"f") == []
    assert again.ask("GRAB_JOB_ALL") == []
    world.pass_time(1.5)
    assert again.heard() == []
    world.pass_time(1)
    assert again.heard() == [REQUIRED]
    assert again.end() is CloseReason.NOT_LOGGED_IN
    assert world.caller(ELSEWHERE).ask("CAN_DO", b"f") == [REQUIRED]
    world.pass_time(COMES_BACK)
    assert world.caller().ask("CAN_DO", b"f") == [REQUIRED]


def test_who_is_at_a_keyboard_or_knows_of_logins_is_told_at_once() -> None:
    world = Guarded()
    for _ in range(2):
        assert world.caller().command(b"status") == REFUSED_IN_TEXT
        caller = world.caller()
        caller.ask("OPTION_REQ", b"sasl")
        assert caller.ask("CAN_DO", b"f") == [REQUIRED]


def test_who_goes_away_before_being_told_is_forgotten() -> None:
    world = Guarded()
    world.caller().ask("CAN_DO", b"f")
    again = world.caller()
    again.ask("CAN_DO", b"f")
    again.leave()
    world.pass_time(3)
    assert world.caller(HERE).ask("ECHO_REQ", b"x") == [("ECHO_RES", b"x")]


def test_only_so_many_addresses_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "MOST_REMEMBERED", 2)
    turned_away = TurnedAway()
    now = Now(0.0, 0.0)
    assert [turned_away.again(name, now) for name in "aba"] == [False, False, True]
    assert [turned_away.again(name, now) for name in "cab"] == [False, True, False]
    assert not turned_away.again("b", Now(COMES_BACK, 0.0))
