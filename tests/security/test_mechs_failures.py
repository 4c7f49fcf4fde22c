"""Logins that fail: within limits, all alike, slowed down, and silent about what was secret."""

from __future__ import annotations

import dataclasses
import re

import pytest

from tests.security.logins import (
    NOW,
    SECRETS,
    TLS,
    UNBOUND,
    UNIX,
    authenticator,
    by_plain,
    by_scram,
)
from trigear.model import Now
from trigear.security.mechs import Done, Failed, Refusal
from trigear.security.scram import HASHES, ScramClient

# Limits


@pytest.mark.parametrize(
    ("mechanism", "limit"),
    [("SCRAM-SHA-256", 2048), ("SCRAM-SHA-256-PLUS", 2048), ("PLAIN", 2048), ("EXTERNAL", 255)],
)
def test_t18_a_message_beyond_its_limit_ends_the_connection_unread(mechanism, limit, calls_of):
    server = authenticator()
    channel = UNIX if mechanism == "EXTERNAL" else TLS

    def outcome_of(size):
        exchange = server.begin(mechanism, channel, NOW)
        found = []
        calls = calls_of(lambda: found.append(exchange.step(b"x" * size, NOW)))
        return found[0], calls

    failed, calls = outcome_of(limit + 1)
    assert failed == Failed(Refusal.TOO_LARGE, f"more than {limit} bytes")
    assert failed.refusal.closes
    assert not [call for call in calls if call in ("bytes.split", "bytes.decode", "mechs._step")]
    at_limit, _ = outcome_of(limit)
    assert at_limit.refusal is Refusal.FAILED


# All failures look the same


NOBODIES = ["nobody", "disabled", "passwordless", "", "x" * 1000, "söhne"]


@pytest.mark.parametrize("name", ["alice", *NOBODIES])
def test_t13_names_cannot_be_told_apart_by_what_is_answered(name):
    shapes = set()
    for number in range(2):  # as on two connections, and after a restart
        server = authenticator(seed=str(number))
        client = ScramClient(HASHES["SCRAM-SHA-256"], name, b"wrong", b"clientnonce")
        exchange = server.begin("SCRAM-SHA-256", UNBOUND, NOW)
        challenge = exchange.step(client.first(), NOW)
        failed = exchange.step(client.final(challenge.data), NOW)
        assert failed.refusal is Refusal.FAILED
        assert failed.reason == "the proof is wrong"
        salt = re.search(rb"s=([^,]*)", challenge.data).group(1)
        shapes.add((re.sub(rb"r=[^,]*,s=[^,]*", b"", challenge.data), len(challenge.data), salt))
    ((rest, size, salt),) = shapes
    assert rest == b",i=4096"
    assert size == len(b"r=clientnonce,s=,i=4096") + 24 + 24
    assert by_plain(authenticator(), name, "wrong") == Failed(
        Refusal.FAILED, "no such user, or another password"
    )


@pytest.mark.parametrize("name", NOBODIES[:3])
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "PLAIN"])
def test_t14_a_wrong_password_and_a_wrong_name_take_the_same_steps(mechanism, name, calls_of):
    def login(who):
        server = authenticator()
        if mechanism == "PLAIN":
            return calls_of(lambda: by_plain(server, who, "wrong guess"))
        return calls_of(lambda: by_scram(server, who, "wrong guess", mechanism))

    known, unknown = login("bob"), login(name)
    assert any("pbkdf2" in call for call in known)
    assert known == unknown
    # One who has an old password as well takes no more steps than one who has not.
    assert login("alice") == known


def test_t14_the_current_password_takes_the_same_steps_as_the_one_before(calls_of):
    def login(password):
        server = authenticator()
        return calls_of(lambda: by_scram(server, "alice", password))

    assert login("pencil") == login("old pencil")


# Guessing


def test_t15_guesses_are_refused_before_anything_is_computed_for_them(calls_of):
    server = authenticator()
    for _ in range(5):
        assert by_plain(server, password="wrong guess").refusal is Refusal.FAILED
    one_second_early = Now(NOW.monotonic + 0.5, NOW.wall)
    outcomes = []
    calls = calls_of(
        lambda: outcomes.append(by_plain(server, password="pencil", now=one_second_early))
    )
    assert outcomes == [Failed(Refusal.LATER, "throttled for 0 s more")]
    assert not [call for call in calls if "pbkdf2" in call or "credentials" in call]
    assert by_scram(server, now=one_second_early).refusal is Refusal.LATER
    # Another name, and another place, do not wait; and neither does this one when it is time.
    assert isinstance(by_plain(server, "bob", now=one_second_early), Done)
    elsewhere = dataclasses.replace(UNBOUND, address="203.0.113.9")
    assert isinstance(by_plain(server, now=one_second_early, channel=elsewhere), Done)
    assert isinstance(by_plain(server, now=Now(NOW.monotonic + 1, NOW.wall)), Done)


def test_t15_exchanges_that_began_together_are_not_free_guesses():
    server = authenticator()
    begun = []
    for _ in range(20):
        client = ScramClient(HASHES["SCRAM-SHA-256"], "alice", b"wrong guess", b"clientnonce")
        exchange = server.begin("SCRAM-SHA-256", UNBOUND, NOW)
        begun.append((exchange, client.final(exchange.step(client.first(), NOW).data)))
    outcomes = [exchange.step(answer, NOW).refusal for exchange, answer in begun]
    assert outcomes == [Refusal.FAILED] * 5 + [Refusal.LATER] * 15


def test_t16_a_user_whom_others_guess_at_logs_in_from_elsewhere():
    server = authenticator()
    outcomes = {by_plain(server, password="wrong guess").refusal for _ in range(100)}
    assert outcomes == {Refusal.FAILED, Refusal.LATER}
    elsewhere = dataclasses.replace(UNBOUND, address="203.0.113.9")
    assert isinstance(by_plain(server, channel=elsewhere), Done)


def test_nonsense_counts_as_guessing():
    server = authenticator()
    for _ in range(10):
        server.begin("PLAIN", UNBOUND, NOW).step(b"nonsense", NOW)
    assert by_plain(server).refusal is Refusal.LATER


def test_two_thousand_who_know_their_password_do_not_wait_for_each_other():
    server = authenticator()
    for _ in range(2000):
        assert isinstance(by_plain(server), Done)


# Secrets


def test_t37_no_secret_is_in_anything_that_may_be_shown():
    server = authenticator()
    client = ScramClient(HASHES["SCRAM-SHA-256"], "alice", b"pencil", b"clientnonce")
    scram = server.begin("SCRAM-SHA-256", UNBOUND, NOW)
    challenge = scram.step(client.first(), NOW)
    answer = client.final(challenge.data)
    done = scram.step(answer, NOW)
    plain = server.begin("PLAIN", UNBOUND, NOW)
    verify = plain.step(b"\0alice\0pencil", NOW)
    failed = by_plain(server, password="wrong guess")
    broken = server.begin("PLAIN", UNBOUND, NOW).step(b"\0alice\0old pencil\0", NOW)
    things = (server, client, scram, challenge, done, plain, verify, failed, broken, TLS)
    shown = " ".join(repr(thing) + str(thing) for thing in things)
    proof = answer.rpartition(b"p=")[2].decode()
    for secret in (*SECRETS, proof, challenge.data.decode(), done.data.decode()):
        assert secret not in shown
    assert "hash of a certificate" not in shown
    assert "acme/alice" in shown


def test_refusals_are_words_that_tell_nothing():
    assert {refusal.name: refusal.value for refusal in Refusal} == {
        "FAILED": ("AUTHENTICATION_FAILED", "Authentication failed", False),
        "LATER": ("AUTHENTICATION_TEMPORARY_FAILURE", "Try again later", False),
        "UNAVAILABLE": ("SASL_MECHANISM_UNAVAILABLE", "Mechanism not available", False),
        "TOO_LARGE": ("SASL_PROTOCOL_ERROR", "Message too large", True),
    }
