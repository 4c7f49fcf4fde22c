"""Attacks on a server that asks who is there, tried out on the whole server without sockets.

The numbers in the names are those of the page about threats.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.engine.test_logins import FAILED, Guarded
from tests.security.logins import BINDINGS
from trigear.engine import entering, logins
from trigear.engine.doors import Way
from trigear.model import CloseReason
from trigear.security.mechs import Channel
from trigear.security.scram import SHA_256, ScramClient
from trigear.wire.codec import request
from trigear.wire.commands import COMMANDS
from trigear.wire.packets import EXTENSIONS, LOGINS, PACKETS

if TYPE_CHECKING:
    from tests.engine.world import Caller

OPEN = {"ECHO_REQ", "OPTION_REQ", "SASL_START"}
"""Requests that are heard before a login, in the order in which they may come."""

EVERY = {**PACKETS, **EXTENSIONS, **LOGINS}

REQUESTS = [row for row in EVERY.values() if row.asked_by and row.name not in OPEN]

UNAVAILABLE = ("ERROR", b"SASL_MECHANISM_UNAVAILABLE", b"Mechanism not available")
LATER = ("ERROR", b"AUTHENTICATION_TEMPORARY_FAILURE", b"Try again later")


def from_(number: int, **more: object) -> Channel:
    """What is known of a peer with an address of its own."""
    return Channel(f"198.51.{number // 256}.{number % 256}", **more)  # type: ignore[arg-type]


def untouched(world: Guarded) -> bool:
    """Whether nothing that a peer said has reached the broker."""
    broker = world.engine.broker
    return not any(tenant.functions or tenant.books for tenant in broker.tenants.values())


@pytest.mark.parametrize("asked", [False, True])
def test_t1_of_all_types_of_packets_only_those_of_a_login_are_heard_before_one(asked: bool) -> None:
    world = Guarded()
    for number in range(121):
        caller = world.caller(from_(number))
        if asked:
            caller.ask("OPTION_REQ", b"sasl")
        caller.peer.send(request(number, b"f", b"u", b"f", b"", b"data"))
        heard = caller.heard()
        name = EVERY[number].name if number in EVERY else ""
        if name == "ECHO_REQ":
            assert [said for said, *_ in heard] == ["ECHO_RES"]
        elif name == "OPTION_REQ":
            assert heard[0][1] == b"UNKNOWN_OPTION"
        elif name == "SASL_START" and asked:
            assert heard == []
            assert world.wait(caller) == [UNAVAILABLE]
        else:
            ((said, code, _),) = heard
            assert said == "ERROR"
            assert code in (b"AUTHENTICATION_REQUIRED", b"SASL_PROTOCOL_ERROR")
            caller.tell("SUBMIT_JOB", b"f", b"", b"")
            world.pass_time(2)
            assert caller.heard() == []
            assert caller.end() is CloseReason.NOT_LOGGED_IN
    assert untouched(world)


def test_t1_no_command_is_heard_before_a_login_but_those_that_tell_nothing() -> None:
    world = Guarded()
    for command in COMMANDS:
        caller = world.caller()
        words = [*command.words, *("f" for _ in command.args)]
        answer = caller.command(" ".join(words).encode())
        if command.name == "version":
            assert answer == b"OK 1\n"
        elif command.name == "whoami":
            assert answer == b"OK - - - -\r\n"
        elif command.name != "auth":
            assert answer == b"ERR AUTHENTICATION_REQUIRED Authentication+required\r\n"
    assert untouched(world)


def fail(world: Guarded, mechanism: str, number: int) -> Caller:
    """Somebody whose login failed."""
    if mechanism == "EXTERNAL":
        caller = world.caller(Channel("-", unix=True, uid=1001))
        caller.ask("OPTION_REQ", b"sasl")
        caller.tell("SASL_START", b"EXTERNAL\0bob")
    elif mechanism == "PLAIN":
        caller = world.caller(from_(number, tls=True))
        caller.ask("OPTION_REQ", b"sasl")
        caller.tell("SASL_START", b"PLAIN\0\0alice\0guess")
        world.check()
    else:
        plus = mechanism.endswith("-PLUS")
        caller = world.caller(from_(number, tls=True, bindings=BINDINGS if plus else {}))
        caller.ask("OPTION_REQ", b"sasl")
        how = {"flag": "p=tls-server-end-point", "binding": b"of another"} if plus else {}
        client = ScramClient(SHA_256, "alice", b"pencil" if plus else b"guess", b"n" * 12, **how)
        start = mechanism.encode() + b"\0" + client.first()
        ((said, challenge),) = caller.ask("SASL_START", start)
        assert said == "SASL_CHALLENGE"
        caller.tell("SASL_RESPONSE", client.final(challenge))
    assert world.wait(caller) == [FAILED]
    return caller


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "EXTERNAL"])
def test_t2_after_a_failure_every_request_is_refused(mechanism: str) -> None:
    world = Guarded(ways=[Way.SASL])
    for number, row in enumerate(REQUESTS):
        caller = fail(world, mechanism, number)
        ((said, code, _),) = caller.ask(row.name, *[b"f"] * len(row.args))
        assert said == "ERROR"
        # No exchange is left over that an answer or an end could belong to.
        sasl = row.name.startswith("SASL_")
        assert code == (b"SASL_PROTOCOL_ERROR" if sasl else b"AUTHENTICATION_REQUIRED")
    assert untouched(world)


def login_shapes(name: str, number: int) -> list[tuple]:
    """What a peer can see of two logins with a wrong password as this user, at a server that was
    started for it; nonces are left out, which are never the same."""
    world = Guarded()
    shapes: list[tuple] = []
    for connection in range(2):
        caller = world.caller(from_(2 * number + connection, tls=True))
        shapes += caller.ask("OPTION_REQ", b"sasl")
        client = ScramClient(SHA_256, name, b"guess", b"n" * 12)
        ((said, challenge),) = caller.ask("SASL_START", b"SCRAM-SHA-256\0" + client.first())
        nonce, salt, cost = challenge.split(b",")
        shapes.append((said, len(nonce), re.sub(rb"[\w+/]", b".", salt[2:]), cost))
        assert caller.ask("SASL_RESPONSE", client.final(challenge)) == []
        shapes += world.wait(caller)
        caller.tell("SASL_START", b"PLAIN\0\0%s\0guess" % name.encode())
        assert caller.heard() == []
        world.check()
        shapes += world.wait(caller)
    return shapes


def salts(name: str) -> set[bytes]:
    """Of two servers that were started with the same secret, one after the other."""
    found = set()
    for number in range(2):
        caller = Guarded().caller(from_(number, tls=True))
        caller.ask("OPTION_REQ", b"sasl")
        client = ScramClient(SHA_256, name, b"guess", b"n" * 12)
        ((_, challenge),) = caller.ask("SASL_START", b"SCRAM-SHA-256\0" + client.first())
        found.add(challenge.split(b",")[1])
    return found


def test_t13_a_user_and_nobody_get_the_same_answers_before_and_after_a_restart() -> None:
    known = login_shapes("alice", 0)
    assert known == login_shapes("nobody", 1)
    assert known == login_shapes("somebody.else@example", 2)
    assert known.count(FAILED) == 4
    assert [len(salts(name)) for name in ("alice", "nobody")] == [1, 1]


def test_t17_passwords_are_checked_one_at_a_time_while_others_are_served() -> None:
    world = Guarded()
    inside = world.user()
    callers = [world.caller(from_(number, tls=True)) for number in range(500)]
    for number, caller in enumerate(callers):
        caller.ask("OPTION_REQ", b"sasl")
        caller.tell("SASL_START", b"PLAIN\0\0nobody%d\0guess" % number)
    assert inside.submit(), "nothing was computed yet"
    one = world.logins.next_check(world.time())
    assert one is not None
    world.pass_time(1.3)
    for caller in callers:
        world.receive(caller.peer, b"")
    heard = [caller.heard() for caller in callers]
    assert heard.count([]) == logins.CHECKS
    assert heard.count([LATER]) == 500 - logins.CHECKS


def test_t17_who_guesses_too_often_is_refused_without_a_check() -> None:
    world = Guarded()
    checked = 0
    for _ in range(15):
        caller = world.caller(from_(1, tls=True))
        caller.ask("OPTION_REQ", b"sasl")
        caller.tell("SASL_START", b"PLAIN\0\0alice\0guess")
        if world.logins.has_check:
            checked += 1
            world.check()
        world.wait(caller, 0.1)
    assert 5 <= checked <= 11


@pytest.mark.parametrize("size", [entering.MOST_BODY + 1, 1 << 20, 1 << 31, (1 << 32) - 1])
@pytest.mark.parametrize("name", ["SASL_START", "SASL_RESPONSE", "SUBMIT_JOB", "ECHO_REQ"])
def test_t20_a_length_that_nobody_may_send_ends_the_connection_at_once(
    name: str, size: int
) -> None:
    world = Guarded()
    caller = world.caller()
    number = next(row.number for row in EVERY.values() if row.name == name)
    caller.peer.send(b"\0REQ" + number.to_bytes(4, "big") + size.to_bytes(4, "big"))
    assert caller.end() is CloseReason.TOO_LARGE
    assert untouched(world)


@pytest.mark.parametrize("step", [0, 1, 20])
def test_t21_neither_silence_nor_a_trickle_keeps_a_connection_open(step: int) -> None:
    world = Guarded()
    stream = request(16, b"12345678") * 14
    callers = [world.caller(from_(number)) for number in range(300)]
    for second in range(14):
        world.pass_time(1.0)
        for caller in callers[:20]:
            caller.peer.send(stream[second * step : (second + 1) * step])
    assert world.engine.statistics().connections == 300
    newcomer = world.user()
    world.pass_time(logins.DEADLINE - 14 + 0.1)
    assert {caller.end() for caller in callers} == {CloseReason.LOGIN_LATE}
    assert newcomer.submit()
    assert world.engine.statistics().connections == 1
