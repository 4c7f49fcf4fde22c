"""Logging in, as the server sees it: what is offered where, and what comes of it."""

from __future__ import annotations

import dataclasses
import re

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from tests.security.certificates import CLIENT, DAY, Authority
from tests.security.chance import dice
from tests.security.logins import (
    BINDINGS,
    EVERYWHERE,
    LONG,
    LOOPBACK,
    NOW,
    PENCIL,
    PLAIN_TCP,
    SALT,
    TLS,
    UNBOUND,
    UNIX,
    USERS,
    authenticator,
    by_plain,
    by_scram,
)
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
from trigear.security.scram import HASHES, ScramClient, Verifier
from trigear.security.throttle import Throttle
from trigear.security.users import Users

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
