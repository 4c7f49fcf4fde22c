"""Logging in, as the server sees it: what is offered where, what succeeds, and that all failures
look the same."""

from __future__ import annotations

import dataclasses
import re

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from tests.security.certificates import CLIENT, DAY, Authority
from tests.security.chance import dice
from trigear.errors import ConfigError
from trigear.model import Now
from trigear.security import mechs
from trigear.security.mechs import (
    Authenticator,
    Challenge,
    Channel,
    ChannelBinding,
    Done,
    Failed,
    LoginSettings,
    Refusal,
    ScramWithoutTLS,
    Verify,
)
from trigear.security.scram import HASHES, SHA_512, ScramClient, Verifier
from trigear.security.throttle import Throttle
from trigear.security.users import Users

SALT = bytes(range(16))
PENCIL = Verifier.derive("pencil", SALT, 4096)
OLD = Verifier.derive("old pencil", SALT, 4096)
LONG = Verifier.derive("pencil", SALT, 4096, SHA_512)
NOW = Now(1000.0, 1_800_000_000.0)  # 2027-01-15

USERS = f"""
version = 1
[users.alice]
tenant = "acme"
roles = ["submit"]
scram = ["{PENCIL.text()}", "{OLD.text()}"]
old_until = 2027-06-30T00:00:00Z
certs = ["cn:alice"]
unix_uids = [1001]
may_act_as = ["bob"]
[users.bob]
tenant = "acme"
scram = ["{PENCIL.text()}"]
[users.disabled]
scram = ["{PENCIL.text()}"]
disabled = true
certs = ["cn:disabled"]
unix_uids = [1002]
[users.passwordless]
"""
BINDINGS = {"tls-server-end-point": b"hash of a certificate"}
TLS = Channel("198.51.100.7", tls=True, bindings=BINDINGS)
UNBOUND = Channel("198.51.100.7", tls=True)
PLAIN_TCP = Channel("198.51.100.7")
LOOPBACK = Channel("127.0.0.1", loopback=True)
UNIX = Channel("unix", unix=True, uid=1001)
EVERYWHERE = {"TLS": TLS, "unbound": UNBOUND, "TCP": PLAIN_TCP, "loopback": LOOPBACK}

SECRETS = ("pencil", "old pencil", "wrong guess")


def authenticator(text=USERS, *, seed="", **settings):
    return Authenticator(
        Users.parse(text), LoginSettings(**settings), Throttle(()), bytes(32), dice(seed)
    )


def by_scram(server, name="alice", password="pencil", mechanism="SCRAM-SHA-256", *, now=NOW, **how):
    """The last outcome of an exchange, by a client that plays by the rules."""
    channel = how.pop("channel", TLS if mechanism.endswith("-PLUS") else UNBOUND)
    if mechanism.endswith("-PLUS"):
        how = {"flag": "p=tls-server-end-point", "binding": BINDINGS["tls-server-end-point"]} | how
    hash = HASHES[mechanism.removesuffix("-PLUS")]
    client = ScramClient(hash, name, password.encode(), b"clientnonce", **how)
    exchange = server.begin(mechanism, channel, now)
    outcome = exchange.step(client.first(), now)
    if isinstance(outcome, Challenge):
        outcome = exchange.step(client.final(outcome.data), now)
    if isinstance(outcome, Done):
        client.check(outcome.data)
    return outcome


def by_plain(server, name="alice", password="pencil", authzid="", *, now=NOW, channel=UNBOUND):
    exchange = server.begin("PLAIN", channel, now)
    outcome = exchange.step(f"{authzid}\0{name}\0{password}".encode(), now)
    if isinstance(outcome, Verify):
        outcome = exchange.verified(outcome.work(), now)
    return outcome


# What is offered


@pytest.mark.parametrize(
    ("channel", "settings", "offered"),
    [
        (TLS, {}, "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN"),
        (UNBOUND, {}, "SCRAM-SHA-256 PLAIN"),
        (LOOPBACK, {}, "SCRAM-SHA-256"),
        (PLAIN_TCP, {}, ""),
        (UNIX, {}, "EXTERNAL SCRAM-SHA-256 PLAIN"),
        (dataclasses.replace(UNIX, uid=1), {}, "SCRAM-SHA-256 PLAIN"),
        (dataclasses.replace(UNIX, uid=1002), {}, "SCRAM-SHA-256 PLAIN"),
        (TLS, {"binding": ChannelBinding.OFF}, "SCRAM-SHA-256 PLAIN"),
        (TLS, {"binding": ChannelBinding.REQUIRED}, "SCRAM-SHA-256-PLUS"),
        (UNBOUND, {"binding": ChannelBinding.REQUIRED}, ""),
        (UNIX, {"binding": ChannelBinding.REQUIRED}, "EXTERNAL SCRAM-SHA-256 PLAIN"),
        (LOOPBACK, {"binding": ChannelBinding.REQUIRED}, "SCRAM-SHA-256"),
        (PLAIN_TCP, {"without_tls": ScramWithoutTLS.ALWAYS}, "SCRAM-SHA-256"),
        (LOOPBACK, {"without_tls": ScramWithoutTLS.NEVER}, ""),
        (UNIX, {"without_tls": ScramWithoutTLS.NEVER}, "EXTERNAL SCRAM-SHA-256 PLAIN"),
        (TLS, {"hashes": ("sha256", "sha512")}, "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN"),
    ],
)
def test_each_channel_is_offered_what_is_safe_on_it(channel, settings, offered):
    server = authenticator(**settings)
    assert server.offered(channel, NOW) == tuple(offered.split())


def test_t11_what_is_not_offered_cannot_be_begun():
    server = authenticator()
    everything = {"EXTERNAL", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512"}
    everything |= {"ANONYMOUS", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "", "plain"}
    for channel in EVERYWHERE.values():
        offered = server.offered(channel, NOW)
        for mechanism in everything - set(offered):
            refused = server.begin(mechanism, channel, NOW)
            assert isinstance(refused, Failed)
            assert refused.refusal is Refusal.UNAVAILABLE


def test_sha_512_is_offered_once_everybody_has_it():
    both = USERS.replace(f'["{PENCIL.text()}"', f'["{LONG.text()}", "{PENCIL.text()}"')
    server = authenticator(both, hashes=("sha512", "sha256"))
    assert server.offered(TLS, NOW) == (
        *("SCRAM-SHA-512-PLUS", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"),
    )
    assert isinstance(by_scram(server, mechanism="SCRAM-SHA-512-PLUS"), Done)
    only = authenticator(both, hashes=("sha512",))
    assert only.offered(UNBOUND, NOW) == ("SCRAM-SHA-512", "PLAIN")


def test_the_types_of_binding_are_told_where_there_are_any():
    both = dataclasses.replace(TLS, bindings=BINDINGS | {"tls-unique": b"x"})
    assert authenticator().binding_types(both) == ("tls-server-end-point", "tls-unique")
    assert authenticator(binding=ChannelBinding.OFF).binding_types(both) == ()
    assert authenticator().binding_types(dataclasses.replace(both, tls=False)) == ()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"hashes": ("sha1",)}, "scram_hashes: 'sha1' is no hash of SCRAM; write sha256 or sha512"),
        ({"hashes": ()}, "scram_hashes: '' is no hash"),
        ({"lifetime": -1}, "session_lifetime: -1 s is negative"),
        (
            {"binding": ChannelBinding.REQUIRED, "without_tls": ScramWithoutTLS.ALWAYS},
            "channel_binding: it is required, and scram_without_tls is always",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, complaint):
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        LoginSettings(**settings)


# SCRAM


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"])
def test_a_user_logs_in_by_scram(mechanism):
    done = by_scram(authenticator(), mechanism=mechanism)
    assert isinstance(done, Done)
    assert done.identity.principal == "acme/alice"
    assert done.identity.method == mechanism
    assert done.identity.authcid == ""
    assert done.identity.expires_at is None
    assert done.remark == ""


def test_the_log_hears_when_the_replaced_password_was_used():
    assert by_scram(authenticator(), password="old pencil").remark == (
        "by the password that was replaced"
    )
    assert by_plain(authenticator(), password="old pencil").remark == (
        "by the password that was replaced"
    )


def test_t6_a_list_from_which_plus_was_taken_makes_the_login_fail():
    server = authenticator()
    failed = by_scram(server, flag="y", channel=TLS)
    assert failed.reason == "the client was not shown the -PLUS mechanism that is offered"
    assert isinstance(by_scram(server, flag="y", channel=UNBOUND), Done)
    behind_proxy = authenticator(binding=ChannelBinding.OFF)
    assert isinstance(by_scram(behind_proxy, flag="y", channel=TLS), Done)


def test_a_user_who_changes_during_the_exchange_is_judged_as_at_its_end():
    for change in ("disabled = true", f"scram = ['{Verifier.derive('x', SALT, 4096).text()}']"):
        server = authenticator()
        client = ScramClient(HASHES["SCRAM-SHA-256"], "bob", b"pencil", b"clientnonce")
        exchange = server.begin("SCRAM-SHA-256", UNBOUND, NOW)
        answer = client.final(exchange.step(client.first(), NOW).data)
        server.users = Users.parse(f"version = 1\n[users.bob]\n{change}")
        outcome = exchange.step(answer, NOW)
        assert outcome == Failed(Refusal.FAILED, "the user changed during the exchange")


def test_a_finished_exchange_says_nothing_more():
    server = authenticator()
    exchange = server.begin("SCRAM-SHA-256", TLS, NOW)
    assert isinstance(exchange.step(b"nonsense", NOW), Failed)
    again = exchange.step(b"n,,n=alice,r=clientnonce", NOW)
    assert again == Failed(Refusal.FAILED, "a message after the end of the exchange")


def test_nothing_comes_of_results_that_were_not_asked_for():
    exchange = authenticator().begin("SCRAM-SHA-256", TLS, NOW)
    assert isinstance(exchange.verified(0, NOW), Failed)
    assert isinstance(exchange.step(b"n,,n=alice,r=clientnonce", NOW), Failed)


# PLAIN


def test_a_user_logs_in_by_plain_with_the_work_done_elsewhere(calls_of):
    server = authenticator()
    exchange = server.begin("PLAIN", UNBOUND, NOW)
    found = []
    calls = calls_of(lambda: found.append(exchange.step(b"\0alice\0pencil", NOW)))
    assert isinstance(found[0], Verify)
    assert not [call for call in calls if "pbkdf2" in call]
    assert exchange.username == "alice"
    done = exchange.verified(found[0].work(), NOW)
    assert done.identity.principal == "acme/alice"
    assert done.identity.method == "PLAIN"
    assert done.data == b""


def test_a_password_that_was_right_is_not_stretched_again_for_a_while():
    server = authenticator()

    def step(password, now):
        exchange = server.begin("PLAIN", UNBOUND, now)
        outcome = exchange.step(b"\0alice\0" + password, now)
        if isinstance(outcome, Verify):
            exchange.verified(outcome.work(), now)
        return type(outcome)

    later = Now(NOW.monotonic + 3599.0, NOW.wall)
    over = Now(NOW.monotonic + 3600.0, NOW.wall)
    assert step(b"pencil", NOW) is Verify
    assert step(b"pencil", NOW) is Done
    # Using it makes it last no longer.
    assert step(b"pencil", later) is Done
    assert step(b"pencil", over) is Verify
    assert step(b"pencil", over) is Done
    assert step(b"wrong", NOW) is Verify
    assert step(b"wrong", NOW) is Verify


def test_a_replaced_password_is_worth_nothing_whatever_is_remembered():
    server = authenticator()
    assert isinstance(by_plain(server, "bob"), Done)
    changed = Verifier.derive("other", SALT, 4096)
    server.users = Users.parse(f"version = 1\n[users.bob]\nscram = ['{changed.text()}']")
    assert isinstance(by_plain(server, "bob"), Failed)


def test_a_password_of_one_user_is_not_remembered_as_that_of_another():
    server = authenticator()  # alice and bob have the same verifier
    assert isinstance(by_plain(server, "alice"), Done)
    exchange = server.begin("PLAIN", UNBOUND, NOW)
    assert isinstance(exchange.step(b"\0bob\0pencil", NOW), Verify)


def test_the_memory_of_right_passwords_has_a_limit(monkeypatch):
    monkeypatch.setattr(mechs, "CACHED", 2)
    server = authenticator()
    cache = server.successes
    for password in (b"a", b"b", b"a", b"c"):
        cache.add("alice", PENCIL, password, 0.0)
    known = [cache.look_up("alice", [PENCIL], password, 1.0) for password in (b"a", b"b", b"c")]
    assert known == [0, -1, 0]


def test_a_user_who_changes_during_the_work_is_judged_as_at_its_end():
    server = authenticator()
    exchange = server.begin("PLAIN", UNBOUND, NOW)
    result = exchange.step(b"\0bob\0pencil", NOW).work()
    server.users = Users.parse("version = 1")
    assert exchange.verified(result, NOW) == Failed(
        Refusal.FAILED, "the user changed during the exchange"
    )


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"alice\0pencil",
        b"\0alice\0pencil\0",
        b"\0alice\0pen\0cil",
        b"\0alice\0",
        b"\0\xff\0pencil",
        b"\xff\0alice\0pencil",
        b"\0alice\0" + b"x" * 1025,
    ],
)
def test_t29_plain_is_three_fields_and_nothing_else(message):
    outcome = authenticator().begin("PLAIN", UNBOUND, NOW).step(message, NOW)
    assert isinstance(outcome, Failed)
    assert outcome.refusal is Refusal.FAILED


@given(st.lists(st.binary(max_size=12), max_size=5))
def test_t29_no_message_of_plain_gets_a_field_into_another(fields):
    message = b"\0".join(fields)
    exchange = SHARED.begin("PLAIN", LOCAL, NOW)
    outcome = exchange.step(message, NOW)
    if message.count(b"\0") == 2:
        _, name, password = message.split(b"\0")
        if isinstance(outcome, Verify):
            assert exchange.username.encode() == name
            assert password
    else:
        assert isinstance(outcome, Failed)


# Nobody has to wait here, however many examples fail.
SHARED = Authenticator(Users.parse(USERS), LoginSettings(), Throttle(), bytes(32), dice())
LOCAL = Channel("unix", unix=True)


# EXTERNAL, and identity without a word


@pytest.fixture(scope="module")
def authority():
    return Authority()


def with_certificate(issued):
    return dataclasses.replace(TLS, certificate=issued.der)


def by_external(server, channel, authzid=b"", now=NOW):
    return server.begin("EXTERNAL", channel, now).step(authzid, now)


def test_a_client_certificate_logs_in_its_user_until_it_expires(authority):
    issued = authority.client("alice", expires=500 * DAY)
    server = authenticator()
    channel = with_certificate(issued)
    assert server.offered(channel, NOW)[0] == "EXTERNAL"
    done = by_external(server, channel)
    assert done.identity.principal == "acme/alice"
    assert done.identity.method == "EXTERNAL"
    assert done.remark == "cn:alice"
    expires = issued.certificate.not_valid_after_utc.timestamp()
    assert done.identity.expires_at == expires
    implicit = server.by_certificate(channel, NOW)
    assert implicit == dataclasses.replace(done.identity, method="mtls")


@pytest.mark.parametrize("name", ["disabled", "nobody", "passwordless"])
def test_a_client_certificate_of_nobody_is_offered_nothing(authority, name):
    server = authenticator()
    channel = with_certificate(authority.client(name))
    assert "EXTERNAL" not in server.offered(channel, NOW)
    assert server.by_certificate(channel, NOW) is None


def test_a_client_certificate_may_have_to_say_what_it_is_for(authority):
    server = authenticator(client_usage=True)
    assert server.by_certificate(with_certificate(authority.issue("alice")), NOW) is None
    named = authority.issue("alice", names=[x509.DNSName("x")], usage=[CLIENT])
    assert server.by_certificate(with_certificate(named), NOW).principal == "acme/alice"


def test_a_system_user_logs_in_on_a_unix_socket():
    server = authenticator()
    done = by_external(server, UNIX)
    assert done.identity.principal == "acme/alice"
    assert done.remark == "uid 1001"
    assert server.by_uid(UNIX, NOW) == dataclasses.replace(done.identity, method="peer")
    for uid in (None, 1, 1002):
        channel = dataclasses.replace(UNIX, uid=uid)
        assert server.by_uid(channel, NOW) is None
        assert "EXTERNAL" not in server.offered(channel, NOW)


def test_without_certificate_and_uid_a_channel_says_nothing():
    server = authenticator()
    assert server.by_certificate(TLS, NOW) is None
    assert server.by_uid(TLS, NOW) is None


def test_a_user_who_is_shut_out_before_the_word_came_is_refused():
    server = authenticator()
    exchange = server.begin("EXTERNAL", UNIX, NOW)
    server.users = Users.parse("version = 1")
    assert exchange.step(b"", NOW) == Failed(Refusal.FAILED, "uid 1001")


# As whom

AUTHZIDS = {
    "": "acme/alice",
    "alice": "acme/alice",
    "acme/alice": "acme/alice",
    "bob": "acme/bob",
    "acme/bob": "acme/bob",
    "other/alice": None,
    "disabled": None,
    "nobody": None,
}


@pytest.mark.parametrize(("authzid", "principal"), AUTHZIDS.items())
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "PLAIN", "EXTERNAL"])
def test_t28_every_mechanism_lets_one_act_as_oneself_or_as_who_is_listed(
    mechanism, authzid, principal
):
    server = authenticator()
    if mechanism == "PLAIN":
        outcome = by_plain(server, authzid=authzid)
    elif mechanism == "EXTERNAL":
        outcome = by_external(server, UNIX, authzid.encode())
    else:
        outcome = by_scram(server, mechanism=mechanism, authzid=authzid)
    if principal is None:
        assert outcome == Failed(Refusal.FAILED, "alice may not act as whom it asks for")
    else:
        assert outcome.identity.principal == principal
        assert outcome.identity.authcid == ("alice" if principal == "acme/bob" else "")


def test_t28_an_empty_a_in_the_header_is_no_wish():
    server = authenticator()
    exchange = server.begin("SCRAM-SHA-256", UNBOUND, NOW)
    assert isinstance(exchange.step(b"n,a=,n=alice,r=clientnonce", NOW), Challenge)


@pytest.mark.parametrize("authzid", [b"\xff", b"a\0b"])
def test_t28_what_is_no_name_is_refused(authzid):
    assert isinstance(by_external(authenticator(), UNIX, authzid), Failed)


# Until when


def test_a_session_ends_when_the_first_reason_ends_it(authority):
    server = authenticator(lifetime=60.0)
    assert by_plain(server).identity.expires_at == NOW.wall + 60
    certificate = with_certificate(authority.client("alice", expires=500 * DAY))
    assert by_external(server, certificate).identity.expires_at == NOW.wall + 60
    # Who acts as another does so no longer than it may itself.
    text = USERS.replace("[users.alice]", "[users.alice]\nnot_after = 2027-01-15T08:00:30Z")
    server = authenticator(text, lifetime=600.0)
    assert by_plain(server, authzid="bob").identity.expires_at == NOW.wall + 30
    assert by_plain(server).identity.expires_at == NOW.wall + 30


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
