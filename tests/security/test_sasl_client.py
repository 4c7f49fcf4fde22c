"""Logging in, as the client sees it: it takes the best that is safe, or nothing."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from itertools import product

import puresasl
import puresasl.client
import puresasl.mechanisms
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.security.chance import dice
from trigear.errors import ConfigError, LoginFailed
from trigear.model import Now
from trigear.security.mechs import (
    Authenticator,
    Challenge,
    Channel,
    ChannelBinding,
    Done,
    Failed,
    LoginSettings,
    Verify,
)
from trigear.security.sasl_client import PREFERENCE, Auth, ClientChannel, TrigearSASL
from trigear.security.scram import SHA_512, Verifier
from trigear.security.throttle import Throttle
from trigear.security.users import Users

SALT = bytes(range(16))
NOW = Now(1000.0, 1_800_000_000.0)
BINDINGS = {"tls-server-end-point": b"hash of a certificate"}

TLS = ClientChannel(tls=True, verified=True, bindings=BINDINGS)
UNBOUND = ClientChannel(tls=True, verified=True)
UNVERIFIED = ClientChannel(tls=True, bindings=BINDINGS)
CERTIFIED = ClientChannel(tls=True, verified=True, certificate=True, bindings=BINDINGS)
UNIX = ClientChannel(unix=True)
LOOPBACK = ClientChannel(loopback=True)
TCP = ClientChannel()

EVERYTHING = (*PREFERENCE, "ANONYMOUS", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "GSSAPI")


def alice(**options):
    return Auth("alice", "pencil", **options)


def client(channel=TLS, login=None):
    return TrigearSASL("jobs.example", login or alice(), channel, dice())


def chosen(offered, channel, login=None):
    sasl = client(channel, login)
    sasl.choose_mechanism(offered)
    return sasl.mechanism


# The choice


@pytest.mark.parametrize(
    ("channel", "mechanism"),
    [
        (TLS, "SCRAM-SHA-512-PLUS"),
        (UNBOUND, "SCRAM-SHA-512"),
        (UNVERIFIED, "SCRAM-SHA-512-PLUS"),
        (CERTIFIED, "SCRAM-SHA-512-PLUS"),
        (UNIX, "SCRAM-SHA-512"),
        (LOOPBACK, "SCRAM-SHA-512"),
    ],
    ids=["TLS", "unbound", "unverified", "certificate", "Unix socket", "loopback"],
)
def test_the_best_that_is_offered_and_safe_is_taken_whatever_pure_sasl_prefers(channel, mechanism):
    assert chosen(EVERYTHING, channel) == mechanism
    assert chosen(reversed(EVERYTHING), channel) == mechanism


@pytest.mark.parametrize(
    ("offered", "channel", "options", "mechanism"),
    [
        (["PLAIN", "SCRAM-SHA-256"], TLS, {}, "SCRAM-SHA-256"),
        (["PLAIN"], TLS, {}, "PLAIN"),
        (["PLAIN"], UNIX, {}, "PLAIN"),
        (["EXTERNAL", "PLAIN"], UNIX, {"external": False}, "PLAIN"),
        (["SCRAM-SHA-256"], TCP, {"allow_plaintext_scram": True}, "SCRAM-SHA-256"),
        (EVERYTHING, TLS, {"require_binding": True}, "SCRAM-SHA-512-PLUS"),
        (EVERYTHING, CERTIFIED, {"require_binding": True, "external": True}, "EXTERNAL"),
        (EVERYTHING, TLS, {"mechanisms": ["SCRAM-SHA-256-PLUS", "PLAIN"]}, "SCRAM-SHA-256-PLUS"),
        (EVERYTHING, TLS, {"mechanisms": ["SCRAM-SHA-256"]}, "SCRAM-SHA-256"),
    ],
)
def test_what_the_login_says_is_heeded(offered, channel, options, mechanism):
    assert chosen(offered, channel, alice(**options)) == mechanism


@pytest.mark.parametrize(
    ("offered", "channel", "login", "complaint"),
    [
        ([], TLS, alice(), "it offers none"),
        (["CRAM-MD5", "ANONYMOUS"], TLS, alice(), "it offers ANONYMOUS, CRAM-MD5"),
        (["PLAIN"], TCP, alice(), "PLAIN: it would tell the password to a server that has not"),
        (["PLAIN"], LOOPBACK, alice(), "PLAIN: it would tell the password to a server"),
        (["PLAIN"], UNVERIFIED, alice(), "PLAIN: it would tell the password to a server"),
        (["SCRAM-SHA-256"], TCP, alice(), "SCRAM-SHA-256: the connection is neither TLS nor on"),
        (["SCRAM-SHA-256-PLUS"], UNBOUND, alice(), "SCRAM-SHA-256-PLUS: there is nothing to bind"),
        (["SCRAM-SHA-256"], TLS, alice(require_binding=True), "it is not bound to the connection"),
        (["PLAIN"], TLS, alice(require_binding=True), "PLAIN: it cannot be bound to the conn"),
        (["EXTERNAL"], TLS, Auth(), "EXTERNAL: there is neither a client certificate nor a Unix"),
        (["EXTERNAL"], CERTIFIED, Auth(external=False), "EXTERNAL: it is switched off"),
        (
            ["PLAIN", "SCRAM-SHA-256"],
            CERTIFIED,
            Auth(),
            "SCRAM-SHA-256: there is no password; PLAIN: there is no password",
        ),
        (
            ["SCRAM-SHA-512-PLUS", "SCRAM-SHA-256"],
            TLS,
            alice(mechanisms=["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]),
            "SCRAM-SHA-256: a mechanism that is bound to the connection is offered too",
        ),
    ],
)
def test_where_nothing_is_safe_nothing_is_sent_and_the_reasons_are_told(
    offered, channel, login, complaint
):
    sasl = client(channel, login)
    with pytest.raises(LoginFailed, match=re.escape(complaint)):
        sasl.choose_mechanism(offered)
    assert sasl.mechanism is None
    with pytest.raises(puresasl.SASLError, match="not been chosen"):
        sasl.process(None)


def test_t5_a_server_that_offers_only_plain_without_tls_is_told_nothing(calls_of):
    sasl = client(TCP)

    def choose():
        with pytest.raises(LoginFailed, match="tell the password"):
            sasl.choose_mechanism(["PLAIN"])

    assert not [call for call in calls_of(choose) if "plain" in call or "process" in call]


LISTS = [{name} for name in EVERYTHING] + [set(EVERYTHING), {"PLAIN", "SCRAM-SHA-256"}]
BOUND_TO = [{}, BINDINGS, {"tls-unique": b"x"}, {"tls-exporter": b"x"}]


def test_t5_no_list_of_mechanisms_gets_a_client_below_its_floor():
    flags = (False, True)
    channels = [ClientChannel(*row) for row in product(*[flags] * 5, BOUND_TO)]
    logins = [
        alice(external=external, require_binding=binding, allow_plaintext_scram=plaintext)
        for external, binding, plaintext in product(flags, repeat=3)
    ]
    taken = [
        above_the_floor(offered, channel, login)
        for offered, channel, login in product(LISTS, channels, logins)
    ]
    assert 1000 < sum(taken) < len(taken) - 1000


def above_the_floor(offered, channel, login):
    """Whether something was taken; then it was safe."""
    sasl = client(channel, login)
    try:
        sasl.choose_mechanism(offered)
    except LoginFailed:
        return False
    name = sasl.mechanism
    assert name in offered
    opening = sasl.process(None)
    if b"pencil" in opening:
        assert name == "PLAIN"
        assert channel.unix or (channel.tls and channel.verified)
        assert not login.require_binding
    if name.startswith("SCRAM"):
        local = channel.unix or channel.loopback
        assert channel.tls or channel.bindings or local or login.allow_plaintext_scram
        can_bind = bool(channel.bindings.keys() & {"tls-server-end-point", "tls-unique"})
        expected = b"p=" if name.endswith("-PLUS") else b"y," if can_bind else b"n,"
        assert opening.startswith(expected)
        assert name.endswith("-PLUS") or not login.require_binding
    return True


def test_the_table_of_pure_sasl_stays_as_it_is():
    # In a process of its own: who imports first must not matter.
    code = (
        "import puresasl.mechanisms as theirs; before = dict(theirs.mechanisms)\n"
        "from trigear.security.sasl_client import TrigearSASL\n"
        "assert theirs.mechanisms == before\n"
        "assert not [name for name in before if name.startswith('SCRAM')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_inner_names_of_pure_sasl_that_we_use_are_still_there():
    theirs = puresasl.client.SASLClient("host", "service", username="x")
    assert theirs._chosen_mech is None
    assert theirs._mech_props == {"username": "x"}
    theirs._chosen_mech = puresasl.mechanisms.PlainMechanism(theirs, username="a", password="b")
    assert theirs.process() == b"\0a\0b" or theirs.authorization_id is None
    assert theirs.complete
    assert puresasl.__version__ == "0.6.2"


# With our server


VERIFIERS = [
    Verifier.derive("pencil", SALT, 4096).text(),
    Verifier.derive("pencil", SALT, 4096, SHA_512).text(),
]
USERS = f"""
version = 1
[users.alice]
tenant = "acme"
scram = {VERIFIERS}
unix_uids = [7]
may_act_as = ["bob"]
[users.bob]
tenant = "acme"
"""


SERVER_SIDE = {
    "TLS": (TLS, Channel("198.51.100.7", tls=True, bindings=BINDINGS)),
    "unbound": (UNBOUND, Channel("198.51.100.7", tls=True)),
    "Unix socket": (UNIX, Channel("unix", unix=True, uid=7)),
    "loopback": (LOOPBACK, Channel("127.0.0.1", loopback=True)),
}


def logged_in(near, far, login=None, **settings):
    """The identity that the server gives after a whole login, and the client's object."""
    server = Authenticator(
        Users.parse(USERS),
        LoginSettings(hashes=("sha256", "sha512"), **settings),
        Throttle(),
        bytes(32),
        dice("server"),
    )
    sasl = client(near, login)
    sasl.choose_mechanism(server.offered(far, NOW))
    exchange = server.begin(sasl.mechanism, far, NOW)
    outcome = exchange.step(sasl.process(None), NOW)
    while not isinstance(outcome, Done | Failed):
        if isinstance(outcome, Verify):
            outcome = exchange.verified(outcome.work(), NOW)
        elif isinstance(outcome, Challenge):
            outcome = exchange.step(sasl.process(outcome.data), NOW)
    if isinstance(outcome, Failed):
        return outcome, sasl
    sasl.finish(outcome.data)
    return outcome.identity, sasl


@pytest.mark.parametrize("where", SERVER_SIDE)
@pytest.mark.parametrize("mechanism", PREFERENCE)
def test_client_and_server_agree_by_every_mechanism_that_both_would_use(where, mechanism):
    near, far = SERVER_SIDE[where]
    login = alice(mechanisms=[mechanism])
    try:
        identity, sasl = logged_in(near, far, login)
    except LoginFailed:
        safe = {"TLS": PREFERENCE[1:], "unbound": PREFERENCE[3:], "Unix socket": PREFERENCE[3:]}
        safe |= {"loopback": PREFERENCE[3:5]}
        assert mechanism not in safe[where]
        return
    assert identity.principal == "acme/alice"
    assert identity.method == mechanism
    assert sasl.complete


@pytest.mark.parametrize("mechanism", ["EXTERNAL", "SCRAM-SHA-256", "PLAIN"])
def test_a_client_acts_as_somebody_else(mechanism):
    near, far = SERVER_SIDE["Unix socket"]
    identity, _ = logged_in(
        near, far, alice(mechanisms=[mechanism], authzid="acme/bob", external=True)
    )
    assert (identity.principal, identity.authcid) == ("acme/bob", "alice")


def test_behind_a_proxy_that_ends_tls_the_flag_says_that_we_could_have_bound():
    near, far = SERVER_SIDE["TLS"]
    identity, sasl = logged_in(near, far, binding=ChannelBinding.OFF)
    assert identity.method == sasl.mechanism == "SCRAM-SHA-512"


def test_t6_a_list_without_plus_is_found_out_by_the_server():
    near, far = SERVER_SIDE["TLS"]
    server = Authenticator(
        Users.parse(USERS), LoginSettings(), Throttle(), bytes(32), dice("server")
    )
    sasl = client(near)
    sasl.choose_mechanism(name for name in server.offered(far, NOW) if not name.endswith("-PLUS"))
    outcome = server.begin(sasl.mechanism, far, NOW).step(sasl.process(None), NOW)
    assert outcome.reason == "the client was not shown the -PLUS mechanism that is offered"


def test_t9_a_relay_with_another_certificate_is_found_out_by_the_server():
    near = ClientChannel(tls=True, verified=True, bindings={"tls-server-end-point": b"another"})
    outcome, _ = logged_in(near, SERVER_SIDE["TLS"][1])
    assert outcome.reason == "the channel is bound to something else"


def test_another_password_is_refused():
    outcome, sasl = logged_in(*SERVER_SIDE["TLS"], Auth("alice", "pencils"))
    assert isinstance(outcome, Failed)
    assert not sasl.complete


def test_connecting_again_stretches_nothing(calls_of):
    login = alice(mechanisms=["SCRAM-SHA-256"])
    near, far = SERVER_SIDE["unbound"]
    assert any("pbkdf2" in call for call in calls_of(lambda: logged_in(near, far, login)))
    assert not any("pbkdf2" in call for call in calls_of(lambda: logged_in(near, far, login)))


def test_a_server_that_invents_salts_fills_no_memory():
    login = alice()
    for number in range(50):
        sasl = client(UNBOUND, login)
        sasl.choose_mechanism(["SCRAM-SHA-256"])
        opening = sasl.process(None)
        salt = Verifier.derive("x", number.to_bytes(16), 4096).text().split("$")[1].split(":")[1]
        nonce = opening.rpartition(b"r=")[2]
        sasl.process(b"r=" + nonce + b"servernonce,s=" + salt.encode() + b",i=4096")
    assert len(login._salted) < 12


# Servers that are not what they seem


def begun(mechanism="SCRAM-SHA-256", channel=UNBOUND):
    sasl = client(channel)
    sasl.choose_mechanism([mechanism])
    return sasl


def server_first(sasl, iterations=4096):
    nonce = sasl.process(None).rpartition(b"r=")[2]
    return b"r=%bservernonce,s=AAECAwQFBgcICQoLDA0ODw==,i=%d" % (nonce, iterations)


@pytest.mark.parametrize("data", [b"", b"v=", b"v=AAAA", b"e=other-error"])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_t8_a_server_that_only_claims_success_is_not_believed(data, steps):
    sasl = begun()
    if steps:
        challenge = server_first(sasl)
        if steps == 2:
            sasl.process(challenge)
    with pytest.raises(LoginFailed, match=r"^jobs\.example"):
        sasl.finish(data)
    assert not sasl.complete


def test_t8_success_without_a_word_after_the_proof_is_none():
    sasl = begun()
    sasl.process(server_first(sasl))
    with pytest.raises(LoginFailed, match="says that the login is done and has not proved who"):
        sasl.finish(b"")


def test_the_proof_may_come_as_a_last_challenge_or_with_the_success():
    _, far = SERVER_SIDE["unbound"]
    for as_challenge in (False, True):
        server = Authenticator(
            Users.parse(USERS), LoginSettings(), Throttle(), bytes(32), dice("server")
        )
        sasl = begun()
        exchange = server.begin("SCRAM-SHA-256", far, NOW)
        answer = sasl.process(exchange.step(sasl.process(None), NOW).data)
        proof = exchange.step(answer, NOW).data
        if as_challenge:
            assert sasl.process(proof) == b""
            sasl.finish(b"")
        else:
            sasl.finish(proof)
        assert sasl.complete


def test_t19_a_server_that_asks_for_too_many_iterations_gets_none(calls_of):
    sasl = begun()
    challenge = server_first(sasl, 10_000_000)

    def give():
        with pytest.raises(LoginFailed, match="asks for 10000000 iterations; 4096 to 1000000"):
            sasl.process(challenge)

    assert not [call for call in calls_of(give) if "pbkdf2" in call]
    generous = client(UNBOUND, alice(min_iterations=8192))
    generous.choose_mechanism(["SCRAM-SHA-256"])
    with pytest.raises(LoginFailed, match="asks for 4096 iterations; 8192 to 1000000"):
        generous.process(server_first(generous))


def test_a_server_that_speaks_out_of_turn_is_left():
    sasl = begun()
    with pytest.raises(LoginFailed, match="speaks first"):
        sasl.process(b"r=x")
    sasl = begun()
    sasl.process(b"")  # an empty challenge asks for the first message
    with pytest.raises(LoginFailed, match="too few attributes"):
        sasl.process(None)
    with pytest.raises(LoginFailed, match="no attribute v"):
        sasl.process(None)
    with pytest.raises(LoginFailed, match="after the end"):
        sasl.process(b"v=AAAA")


def test_a_login_that_is_over_has_let_go_of_its_secrets():
    sasl = begun()
    sasl.process(None)
    sasl.dispose()
    with pytest.raises(LoginFailed, match="after the end"):
        sasl.process(b"r=x")


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_no_server_makes_the_client_raise_anything_else(challenges):
    sasl = begun()
    for challenge in challenges:
        with contextlib.suppress(LoginFailed):
            sasl.process(challenge)
    assert not sasl.complete


# A login


@pytest.mark.parametrize(
    ("arguments", "options", "complaint"),
    [
        (("alice",), {}, "user: a name alone is of no use; give both, or neither"),
        (("", "pencil"), {}, "password: a password alone is of no use"),
        (("alice", ""), {}, "password: the password is empty"),
        (("alice", "x" * 1025), {}, "password: the password is longer than 1024"),
        (("alice", "pen\0cil"), {}, "password: the password has a NUL in it"),
        (("al\0ice", "pencil"), {}, "user: 'al\\x00ice' has characters that no name has"),
        (("al\udcffice", "pencil"), {}, "has characters that no name has"),
        ((), {"authzid": "a\0b"}, "authzid: 'a\\x00b' has characters"),
        ((), {"mechanisms": ["PLAIN", "LOGIN"]}, "mechanisms: 'LOGIN' is none that this client"),
    ],
)
def test_a_login_that_cannot_be_meant_is_refused(arguments, options, complaint):
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        Auth(*arguments, **options)


@pytest.mark.parametrize(
    ("password", "sent"),
    [("pencil", b"pencil"), ("\u2168", "\u2168".encode()), (b"\xff", b"\xff"), ("\udcff", b"\xff")],
)
def test_t29_plain_carries_names_and_password_as_they_are(password, sent):
    sasl = client(UNBOUND, Auth("alice", password, authzid="acme/bob"))
    sasl.choose_mechanism(["PLAIN"])
    assert sasl.process(None) == b"acme/bob\0alice\0" + sent
    sasl.finish(b"")


def test_what_is_sent_after_the_login_is_not_changed():
    sasl = begun("PLAIN")
    assert sasl.wrap(b"packet") == sasl.unwrap(b"packet") == b"packet"


def test_t37_no_secret_is_in_anything_that_may_be_shown():
    login = alice()
    sasl = client(TLS, login)
    sasl.choose_mechanism(["SCRAM-SHA-256-PLUS"])
    sasl.process(server_first(sasl))
    things = (login, sasl, TLS, sasl._chosen_mech, sasl._chosen_mech._exchange)
    shown = " ".join(repr(thing) + str(thing) for thing in things)
    assert "alice" in shown
    assert "pencil" not in shown
    assert "hash of a certificate" not in shown
