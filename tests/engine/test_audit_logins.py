"""What the audit log tells of connections; and that neither it nor the log tells a secret."""

from __future__ import annotations

import base64
import json
import logging
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

import trigear
from tests.engine.test_logins import HERE, TLS, UNIX, Guarded, scram
from tests.engine.world import Caller, packet
from tests.security.logins import BINDINGS, SALT
from trigear.broker.quotas import Quotas
from trigear.engine.audit import BURST, Audit
from trigear.engine.config import EngineConfig, TenantSettings
from trigear.engine.doors import Door, Networks, Way
from trigear.model import CloseReason
from trigear.security.policy import Role, network_identity
from trigear.security.scram import HASHES, ScramClient, Verifier
from trigear.security.users import Users

NEAR = replace(HERE, listener="127.0.0.1:4730")
SECURE = replace(TLS, version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", certificate=b"DER")


class Watched(Guarded):
    """A server with users and an audit log."""

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)
        self.entries: list[dict[str, object]] = []
        self.engine.audit = Audit(self.entries.append)

    def take(self) -> list[dict[str, object]]:
        """The entries since the last look, without their times."""
        entries, self.entries[:] = list(self.entries), []
        assert all(str(entry.pop("time")).endswith("Z") for entry in entries)
        return entries

    def events(self) -> list[object]:
        return [entry["event"] for entry in self.take()]


@pytest.fixture
def world() -> Watched:
    return Watched()


def test_a_login_and_its_end(world: Watched) -> None:
    caller = world.caller(replace(NEAR, version="TLSv1.3", cipher="AES", certificate=b"DER"))
    scram(caller)
    known = {
        "connection": 1,
        "peer": "127.0.0.1",
        "tenant": "acme",
        "listener": "127.0.0.1:4730",
        "tls": "TLSv1.3",
        "cipher": "AES",
        "certificate": "sha256:" + sha256(b"DER").hexdigest(),
        "identity": "acme/alice",
        "authcid": "alice",
        "method": "SCRAM-SHA-256",
    }
    roles = ("submit", "work", "admin", "operator")
    assert world.take() == [{"event": "auth.ok", **known, "roles": roles}]
    caller.tell("CAN_DO", b"f")
    caller.submit()
    caller.grab()
    world.time.advance(2.5)
    caller.leave()
    counts = {"seconds": 2.5, "jobs": 1, "waiting": 1}
    reason = CloseReason.PEER_CLOSED.value
    assert world.take() == [{"event": "session.ended", **known, "reason": reason, **counts}]


def test_who_is_known_without_a_login(world: Watched) -> None:
    world.caller(UNIX)
    (entry,) = world.take()
    assert (entry["event"], entry["method"], entry["identity"]) == ("auth.ok", "peer", "acme/alice")


def test_who_comes_from_a_network_has_proved_nothing(world: Watched) -> None:
    lan = network_identity("192.0.2.0/24", "lan", [Role.SUBMIT])
    world.logins.door = Door(frozenset({Way.NETWORK}), Networks({"192.0.2.0/24": lan}))
    world.caller(replace(NEAR, address="192.0.2.7"))
    (entry,) = world.take()
    assert (entry["identity"], entry["method"]) == ("net:192.0.2.0/24", "network")
    assert "authcid" not in entry


def test_the_reason_of_a_failure_is_here_and_not_on_the_wire(world: Watched) -> None:
    caller, other = world.caller(NEAR), world.caller(NEAR)
    scram(caller, "nobody\x1b")
    scram(other, "bob", "wrong")
    failed, also = world.take()
    assert (failed["event"], failed["authcid"]) == ("auth.fail", "nobody\\x1b")
    assert (also["event"], also["authcid"]) == ("auth.fail", "bob")
    assert failed["reason"] == "the proof is wrong"
    assert (failed["known"], also["known"]) == (False, True)
    assert failed["listener"] == "127.0.0.1:4730"
    said = [caller_said(world, each) for each in (caller, other)]
    assert said[0] == said[1]
    assert str(failed["reason"]).encode() not in said[0]


def caller_said(world: Watched, caller: Caller) -> bytes:
    world.pass_time(2)
    return b" ".join(part for said in caller.heard() for part in said[1:] if part)


def test_who_is_throttled(world: Watched) -> None:
    far = replace(TLS, address="192.0.2.1")
    for _ in range(5):
        scram(world.caller(far), "bob", "wrong")
    assert world.events() == ["auth.fail"] * 5
    caller = world.caller(far)
    caller.ask("OPTION_REQ", b"sasl")
    caller.tell("SASL_START", b"SCRAM-SHA-256\0n,,n=bob,r=clientnonce")
    (entry,) = world.take()
    assert (entry["event"], entry["authcid"]) == ("auth.throttled", "bob")
    assert str(entry["reason"]).startswith("throttled for")


def test_who_asks_before_a_login_and_who_never_logs_in(world: Watched) -> None:
    world.caller(NEAR).tell("GRAB_JOB")
    world.caller(NEAR)
    world.pass_time(20)
    told = [(entry["event"], entry.get("reason")) for entry in world.take()]
    assert told == [("auth.fail", "Authentication required"), ("auth.fail", "no login in time")]


def test_who_becomes_somebody_else(world: Watched) -> None:
    caller = world.user()
    world.take()
    scram(caller, "bob")
    (entry,) = world.take()
    assert (entry["event"], entry["reason"]) == ("auth.fail", "cannot become acme/bob")
    assert entry["identity"] == "acme/alice"


def test_a_login_that_has_run_out() -> None:
    world = Watched(lifetime=60.0)
    world.user()
    world.take()
    world.pass_time(61)
    assert world.events() == ["auth.expired", "session.ended"]


def test_what_is_denied_is_told_and_a_circle_is_cut_short(world: Watched) -> None:
    bob = world.user("bob")
    world.take()
    bob.command(b"shutdown")
    bob.ask("SUBMIT_JOB", b"g", b"", b"")
    command, submission = world.take()
    assert (command["event"], command["command"]) == ("acl.denied", "shutdown")
    assert (submission["event"], submission["packet"]) == ("acl.denied", "SUBMIT_JOB")
    for _ in range(500):
        bob.ask("SUBMIT_JOB", b"g", b"", b"")
    assert len(world.take()) == BURST - 2
    world.pass_time(61)
    (entry,) = world.take()
    assert (entry["event"], entry["left_out"]) == ("acl.denied", 500 - BURST + 2)


def test_quotas_that_are_exceeded(world: Watched) -> None:
    quotas = TenantSettings(Quotas(max_connections=1, max_queued_jobs=1))
    world.engine.reload(EngineConfig(tenants={"acme": quotas}))
    assert world.take() == [{"event": "config.reload", "tenants": ["acme"]}]
    bob = world.user("bob")
    bob.submit("SUBMIT_JOB", b"f", b"", b"")
    bob.ask("SUBMIT_JOB", b"f", b"", b"")
    scram(world.caller(NEAR), "bob")
    _, job, login = world.take()
    assert (job["event"], job["quota"]) == ("quota.exceeded", "max-queued-jobs")
    assert (login["event"], login["quota"]) == ("quota.exceeded", "max-connections")
    assert (login["identity"], login["tenant"]) == ("acme/bob", "acme")


def test_other_users(world: Watched) -> None:
    world.user()
    world.take()
    world.engine.renew_users(Users(()), world.time())
    world.flush()
    reload, ended = world.take()
    assert reload == {"event": "auth.reload", "users": 0, "ended": 1}
    assert ended["event"] == "session.ended"


def test_operators_and_what_they_change(world: Watched) -> None:
    alice, bob = world.user(), world.user("bob")
    world.take()
    alice.command(b"tenant acme")
    alice.command(b"create function f")
    alice.command(b"tenant")
    alice.command(b"session end 2")
    world.flush()
    acting, created, back, ends, ended = world.take()
    assert (acting["event"], acting["tenant"], acting["acting"]) == ("auth.acting", "acme", True)
    assert (created["event"], created["command"]) == ("admin", "create function")
    assert created["identity"] == "acme/alice"
    assert (back["event"], back["acting"]) == ("auth.acting", False)
    assert (ends["event"], ends["command"], ends["arguments"]) == ("admin", "session end", ["2"])
    assert (ended["event"], ended["identity"]) == ("session.ended", "acme/bob")
    assert bob.end() is CloseReason.DISMISSED


# Secrets


PASSWORD = "correct horse battery staple"
WRONG = "incorrect donkey battery"


def secrets_of(message: bytes) -> list[bytes]:
    """How a message, or a part of it, might be shown."""
    found = []
    for part in {message, message.rpartition(b"\0")[2], message.rpartition(b",p=")[2]} - {b""}:
        found += [part, base64.b64encode(part), part.hex().encode(), repr(part).encode()]
    return found


class Spoken:
    """Logins by every mechanism, in packets or in lines; gathers what must not be seen."""

    def __init__(self, world: Watched) -> None:
        self.world = world
        self.secrets = [PASSWORD.encode(), WRONG.encode()]
        self.shown: list[object] = []

    def start(self, caller: Caller, mechanism: str, first: bytes, *, text: bool) -> bytes:
        self.look(caller)
        if text:
            line = b"auth %s %s" % (mechanism.encode(), base64.b64encode(first) or b"=")
            return caller.command(line)
        caller.ask("OPTION_REQ", b"sasl")
        return packets(caller.ask("SASL_START", mechanism.encode() + b"\0" + first))

    def respond(self, caller: Caller, data: bytes, *, text: bool) -> None:
        self.look(caller)
        if text:
            caller.command(base64.b64encode(data))
        else:
            caller.ask("SASL_RESPONSE", data)
        self.look(caller)

    def look(self, caller: Caller) -> None:
        session = caller.peer.session
        exchange = session._exchange
        self.shown += [session, session._login, session._check, exchange, session.decoder]
        if exchange is not None:
            for kind in type(exchange).__mro__:
                for slot in getattr(kind, "__slots__", ()):
                    if slot == "username":
                        self.shown.append(exchange.username)

    def scram(self, mechanism: str, password: str, *, text: bool) -> None:
        caller = self.world.caller(SECURE)
        flag = {"flag": "p=tls-server-end-point", "binding": BINDINGS["tls-server-end-point"]}
        plus = mechanism.endswith("-PLUS")
        client = ScramClient(
            HASHES[mechanism.removesuffix("-PLUS")],
            "alice",
            password.encode(),
            b"clientnonce",
            **(flag if plus else {}),
        )
        said = self.start(caller, mechanism, client.first(), text=text)
        challenge = base64.b64decode(said[2:]) if text else said
        final = client.final(challenge)
        self.secrets += secrets_of(final)
        self.respond(caller, final, text=text)
        self.world.pass_time(2)

    def plain(self, password: str, *, text: bool) -> None:
        caller = self.world.caller(SECURE)
        message = b"\0alice\0" + password.encode()
        self.secrets += secrets_of(message)
        self.start(caller, "PLAIN", message, text=text)
        self.look(caller)
        if self.world.logins.has_check:  # else it is remembered as right
            self.world.check()
        self.look(caller)
        self.world.pass_time(2)


def packets(heard: list) -> bytes:
    return heard[-1][1] if heard else b""


def test_no_log_at_any_level_tells_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    verifiers = [
        Verifier.derive(PASSWORD, SALT, 4096, HASHES[name]).text()
        for name in ("SCRAM-SHA-256", "SCRAM-SHA-512")
    ]
    users = (
        'version = 1\n[users.alice]\ntenant = "acme"\nroles = ["submit"]\nunix_uids = [1001]\n'
        f"scram = {json.dumps(verifiers)}\n"
    )
    world = Watched(users, hashes=("sha256", "sha512"))
    spoken = Spoken(world)
    for text in (False, True):
        for password in (PASSWORD, WRONG):
            for mechanism in HASHES:
                spoken.scram(mechanism, password, text=text)
                spoken.scram(f"{mechanism}-PLUS", password, text=text)
            spoken.plain(password, text=text)
        caller = world.caller(UNIX)
        spoken.start(caller, "EXTERNAL", b"", text=text)
        # What comes where nobody expects it.
        odd = world.caller(SECURE)
        odd.peer.send(packet("SASL_RESPONSE", PASSWORD.encode()))
        odd = world.caller(SECURE)
        odd.command(b"auth PLAIN not-base64-" + PASSWORD.encode().replace(b" ", b"-"))
        odd = world.caller(SECURE)
        odd.command(b"auth PLAIN " + base64.b64encode(PASSWORD.encode()) + b" more")
        world.pass_time(2)
    spoken.secrets += secrets_of(PASSWORD.encode())
    spoken.secrets.append(PASSWORD.encode().replace(b" ", b"-"))
    for verifier in verifiers:
        spoken.secrets += verifier.rpartition("$")[2].encode().split(b":")
    assert {entry["method"] for entry in world.entries if entry["event"] == "auth.ok"} == {
        *(f"{name}{plus}" for name in HASHES for plus in ("", "-PLUS")),
        *("PLAIN", "peer", "EXTERNAL"),
    }
    seen = caplog.text + json.dumps(world.entries) + repr(spoken.shown)
    seen += repr([world.logins, world.logins.authenticator, world.logins.authenticator.users])
    seen += repr([user for user in world.logins.authenticator.users])
    assert "acme/alice" in seen
    assert [secret for secret in spoken.secrets if secret.decode("latin-1") in seen] == []


def test_every_event_has_its_line_in_the_documentation() -> None:
    root = Path(__file__).parent.parent.parent
    page = (root / "docs" / "security.md").read_text(encoding="utf-8")
    part = page.partition("\n## Audit log\n")[2].partition("\n## ")[0]
    told = set(re.findall(r"^\| `([a-z]+(?:\.[a-z]+)?)` \|", part, re.MULTILINE))
    package = Path(trigear.__file__).parent
    source = "".join(path.read_text("utf-8") for path in package.rglob("*.py"))
    made = set(re.findall(r"note\(\s*\"([a-z]+(?:\.[a-z]+)?)\"", source))
    made |= {"auth.throttled", "audit.lost"}
    assert told == made
