"""Logins as tests need them: users, channels, and clients that play by the rules."""

from __future__ import annotations

from tests.security.chance import dice
from trigear.model import Now
from trigear.security.mechs import Authenticator, Challenge, Channel, Done, LoginSettings, Verify
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
