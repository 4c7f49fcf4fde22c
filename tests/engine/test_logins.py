"""Servers that ask who is there: logins, what may be said before one, and rights after it."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest

from tests.engine.world import Caller, World
from tests.security.chance import dice
from tests.security.logins import BINDINGS, PENCIL, SALT
from trigear.engine import entering, guarded, logins
from trigear.engine.config import EngineConfig
from trigear.engine.doors import Way
from trigear.engine.logins import Logins
from trigear.model import CloseReason
from trigear.security.mechs import Authenticator, Channel, Done, LoginSettings
from trigear.security.scram import SHA_256, ScramClient, Verifier
from trigear.security.throttle import Throttle
from trigear.security.users import Users
from trigear.testing.clock import SettableClock
from trigear.testing.memory import MemoryEngine
from trigear.wire.codec import request
from trigear.wire.commands import COMMANDS
from trigear.wire.packets import EXTENSIONS, PACKETS

SLOW = Verifier.derive("pencil", SALT, 4096)
USERS = f"""
version = 1
[users.alice]
tenant = "acme"
roles = ["submit", "work", "admin", "operator"]
scram = ["{PENCIL.text()}"]
unix_uids = [1001]
[users.bob]
tenant = "acme"
roles = ["submit", "work", "admin"]
submit = ["f*"]
work = ["f"]
scram = ["{PENCIL.text()}"]
[users.eve]
tenant = "other"
scram = ["{PENCIL.text()}"]
"""
HERE = Channel("127.0.0.1", loopback=True)
TLS = Channel("198.51.100.7", tls=True, bindings=BINDINGS)
UNIX = Channel("-", unix=True, uid=1001)
REQUIRED = ("ERROR", b"AUTHENTICATION_REQUIRED", b"Authentication required")
FAILED = ("ERROR", b"AUTHENTICATION_FAILED", b"Authentication failed")
DENIED = ("ERROR", b"PERMISSION_DENIED", b"Permission denied")
UNEXPECTED = ("ERROR", b"SASL_PROTOCOL_ERROR", b"Unexpected SASL packet")


class Guarded(World):
    """A server in memory with users."""

    def __init__(self, text: str = USERS, ways=tuple(Way), **settings) -> None:
        self.time = SettableClock()
        self.logins = Logins(
            Authenticator(
                Users.parse(text), LoginSettings(**settings), Throttle(), bytes(32), dice()
            ),
            ways,
        )
        config = EngineConfig(version="1", pid=7)
        MemoryEngine.__init__(self, self.time, config, logins=self.logins)

    def caller(self, channel: Channel = HERE) -> Caller:  # type: ignore[override]
        return Caller(self, self.connect(channel.address, channel))

    def check(self) -> None:
        """Check the next password."""
        check = self.logins.next_check(self.time())
        assert check is not None
        self.engine.checked(check, check.work(), self.time())
        self.flush()

    def wait(self, caller: Caller, seconds: float = 2.0) -> list:
        """Let time pass, and whatever was held go on."""
        self.pass_time(seconds)
        if caller.end() is None:
            self.receive(caller.peer, b"")
        return caller.heard()

    def user(self, name: str = "alice", *, extended: bool = True) -> Caller:
        """Somebody who has logged in."""
        caller = self.caller()
        scram(caller, name)
        caller.peer.session._extended = extended
        caller.peer.session._set_rows()
        return caller


def scram(caller: Caller, name: str = "alice", password: str = "pencil") -> tuple:
    """Log in; what the server says last."""
    client = ScramClient(SHA_256, name, password.encode(), b"clientnonce")
    caller.ask("OPTION_REQ", b"sasl")
    ((said, challenge),) = caller.ask("SASL_START", b"SCRAM-SHA-256\0" + client.first())
    assert said == "SASL_CHALLENGE"
    heard = caller.ask("SASL_RESPONSE", client.final(challenge))
    if not heard:
        return ()
    ((said, *rest),) = heard
    if said == "SASL_OK":
        client.check(rest[4])
    return (said, *rest)


@pytest.fixture
def world() -> Guarded:
    return Guarded()


# Before a login


def test_the_offer_follows_the_option_at_once(world: Guarded) -> None:
    heard = world.caller().ask("OPTION_REQ", b"SASL")
    assert heard == [
        ("OPTION_RES", b"SASL"),
        ("SASL_MECHANISMS", b"SCRAM-SHA-256", b"", b"1", b""),
    ]
    heard = world.caller(TLS).ask("OPTION_REQ", b"sasl")
    names = b"SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN"
    assert heard[1] == ("SASL_MECHANISMS", names, b"tls-server-end-point", b"1", b"")


@pytest.mark.parametrize(
    "name",
    [
        packet.name
        for packet in (*PACKETS.values(), *EXTENSIONS.values())
        if packet.name not in ("ECHO_REQ", "OPTION_REQ")
    ],
)
def test_t1_no_packet_reaches_the_core_before_a_login(name: str, world: Guarded) -> None:
    caller = world.caller()
    caller.ask("OPTION_REQ", b"trigear")
    assert caller.ask(name, b"f", b"", b"", b"", b"data") == [REQUIRED]
    caller.tell("ECHO_REQ", b"still there?")
    world.pass_time(2)
    assert caller.end() is CloseReason.NOT_LOGGED_IN
    assert caller.heard() == []
    assert world.engine.statistics().functions == 0


@pytest.mark.parametrize(
    "name",
    [c.name for c in COMMANDS if c.name not in ("version", "whoami", "auth")] + ["nonsense"],
)
def test_t1_no_text_command_reaches_the_core_before_a_login(name: str, world: Guarded) -> None:
    caller = world.caller()
    answer = caller.command(name.encode() + b" f")
    assert answer == b"ERR AUTHENTICATION_REQUIRED Authentication+required\r\n"
    world.pass_time(2)
    assert caller.end() is CloseReason.NOT_LOGGED_IN


def test_what_asks_for_nothing_is_answered_before_a_login(world: Guarded) -> None:
    caller = world.caller()
    assert caller.ask("ECHO_REQ", b"hello") == [("ECHO_RES", b"hello")]
    assert caller.ask("OPTION_REQ", b"exceptions") == [("OPTION_RES", b"exceptions")]
    ((said, code, _),) = caller.ask("OPTION_REQ", b"other")
    assert (said, code) == ("ERROR", b"UNKNOWN_OPTION")
    assert caller.command(b"version") == b"OK 1\n"
    assert caller.command(b"whoami") == b"OK - - - -\r\n"
    assert caller.command(b"auth") == b"OK SCRAM-SHA-256\r\n"


def test_packets_of_the_wrong_way_are_refused_before_a_login(world: Guarded) -> None:
    caller = world.caller()
    caller.peer.send(b"\0RES" + bytes(8))
    assert caller.heard() == [REQUIRED]
    known = world.user()
    known.peer.send(b"\0RES" + bytes(8))
    assert known.heard()[0][1] == b"INVALID_MAGIC"


def test_a_large_echo_needs_a_login(world: Guarded) -> None:
    caller = world.caller()
    assert caller.ask("ECHO_REQ", bytes(guarded.MOST_ECHO + 1)) == [REQUIRED]
    assert len(world.user().ask("ECHO_REQ", bytes(entering.MOST_BODY + 1))) == 1


def test_a_packet_that_is_too_large_before_a_login_ends_the_connection(world: Guarded) -> None:
    caller = world.caller()
    caller.peer.send(request(7, bytes(entering.MOST_BODY + 1))[:12])
    assert caller.end() is CloseReason.TOO_LARGE


def test_only_so_many_packets_and_bytes_are_heard_before_a_login(world: Guarded) -> None:
    caller = world.caller()
    for _ in range(entering.MOST_PACKETS):
        assert caller.ask("ECHO_REQ", b"") == [("ECHO_RES", b"")]
    assert caller.ask("ECHO_REQ", b"") == [REQUIRED]
    caller = world.caller(Channel("127.0.0.2", loopback=True))
    caller.peer.send(request(16, bytes(1000)))
    caller.peer.send(bytes(entering.MOST_BYTES))
    assert caller.heard()[-1] == REQUIRED
    caller.peer.send(bytes(entering.MOST_BYTES))
    assert caller.heard() == []


def test_who_does_not_log_in_in_time_is_told_and_left(world: Guarded) -> None:
    caller, text = world.caller(), world.caller()
    text.command(b"version")
    world.pass_time(logins.DEADLINE + 1)
    late = ("ERROR", b"AUTHENTICATION_TIMEOUT", b"Authentication timed out")
    assert caller.heard() == [late]
    assert caller.end() is CloseReason.LOGIN_LATE
    assert text.peer.take() == b"ERR AUTHENTICATION_TIMEOUT Authentication+timed+out\r\n"


def test_who_is_not_logged_in_is_no_tenants_connection(world: Guarded) -> None:
    world.caller()
    lines = world.user().command(b"workers").splitlines()
    assert len(lines) == 2


def test_a_connection_that_is_gone_leaves_nothing_behind(world: Guarded) -> None:
    world.caller().leave()
    world.user().leave()
    assert len(world.logins.timers) == 0


# Logging in


def test_a_login_tells_who_one_is_now(world: Guarded) -> None:
    caller = world.caller()
    said = scram(caller)
    assert said[:5] == ("SASL_OK", b"acme/alice", b"acme", b"submit,work,admin,operator", b"0")
    assert caller.command(b"whoami") == (
        b"OK acme/alice acme submit,work,admin,operator SCRAM-SHA-256\r\n"
    )
    assert caller.ask("OPTION_REQ", b"sasl")[1][-1] == b"acme/alice"


def test_what_comes_behind_a_login_is_heard_under_the_new_identity(world: Guarded) -> None:
    caller = world.caller()
    client = ScramClient(SHA_256, "alice", b"pencil", b"clientnonce")
    caller.ask("OPTION_REQ", b"sasl")
    ((_, challenge),) = caller.ask("SASL_START", b"SCRAM-SHA-256\0" + client.first())
    final = client.final(challenge)
    caller.peer.send(request(104, final) + request(7, b"f", b"", b"x"))
    assert [said[0] for said in caller.heard()] == ["SASL_OK", "JOB_CREATED"]
    assert world.engine.broker.tenant("acme").functions.keys() == {b"f"}


def test_t3_what_comes_behind_a_failure_is_not_heard(world: Guarded) -> None:
    caller = world.caller()
    caller.ask("OPTION_REQ", b"sasl")
    caller.peer.send(request(102, b"SCRAM-SHA-256\0junk") + request(7, b"f", b"", b"x") * 3)
    assert caller.heard() == []
    assert world.wait(caller) == [FAILED, REQUIRED]
    assert world.engine.statistics().functions == 0


def test_t2_a_wrong_password_is_told_after_a_while_and_the_third_is_the_end(
    world: Guarded,
) -> None:
    caller = world.caller()
    for _ in range(2):
        assert scram(caller, password="guess") == ()
        assert world.wait(caller) == [FAILED]
    assert scram(caller, "nobody") == ()
    assert world.wait(caller) == [FAILED]
    assert caller.end() is CloseReason.NOT_LOGGED_IN


def test_a_mechanism_that_is_not_offered_is_refused(world: Guarded) -> None:
    caller = world.caller()
    caller.ask("OPTION_REQ", b"sasl")
    assert caller.ask("SASL_START", b"PLAIN\0\0alice\0pencil") == []
    unavailable = ("ERROR", b"SASL_MECHANISM_UNAVAILABLE", b"Mechanism not available")
    assert world.wait(caller) == [unavailable]


def test_a_login_without_a_first_message_is_asked_for_one(world: Guarded) -> None:
    caller = world.caller()
    caller.ask("OPTION_REQ", b"sasl")
    assert caller.ask("SASL_START", b"SCRAM-SHA-256") == [("SASL_CHALLENGE", b"")]
    assert caller.ask("SASL_ABORT") == [("ERROR", b"SASL_ABORTED", b"Aborted")]
    assert scram(caller)[0] == "SASL_OK"


@pytest.mark.parametrize(
    ("name", "args"),
    [("SASL_START", (b"SCRAM-SHA-256",)), ("SASL_RESPONSE", (b"",)), ("SASL_ABORT", ())],
)
def test_t4_sasl_out_of_order_is_the_end(name: str, args: tuple, world: Guarded) -> None:
    caller = world.caller()
    assert caller.ask(name, *args) == [UNEXPECTED]
    caller = world.caller()
    caller.ask("OPTION_REQ", b"sasl")
    caller.ask("SASL_START", b"SCRAM-SHA-256")
    assert caller.ask("ECHO_REQ", b"") == [UNEXPECTED]
    world.pass_time(2)
    assert caller.end() is CloseReason.NOT_LOGGED_IN
    caller = world.caller()
    caller.ask("OPTION_REQ", b"sasl")
    caller.ask("SASL_START", b"SCRAM-SHA-256")
    assert caller.ask("OPTION_REQ", b"exceptions") == [UNEXPECTED]


def test_a_password_that_has_to_be_stretched_is_checked_elsewhere(world: Guarded) -> None:
    caller = world.caller(TLS)
    caller.ask("OPTION_REQ", b"sasl")
    message = b"PLAIN\0\0alice\0pencil"
    caller.peer.send(request(102, message) + request(16, b"behind"))
    assert caller.heard() == []
    assert world.logins.has_check
    world.check()
    world.receive(caller.peer, b"")
    heard = caller.heard()
    assert [said[0] for said in heard] == ["SASL_OK", "ECHO_RES"]
    other = world.caller(TLS)
    other.ask("OPTION_REQ", b"sasl")
    assert other.ask("SASL_START", message)[0][0] == "SASL_OK", "once is enough"


def test_a_wrong_password_that_was_checked_elsewhere_is_one(world: Guarded) -> None:
    caller = world.caller(TLS)
    caller.ask("OPTION_REQ", b"sasl")
    caller.tell("SASL_START", b"PLAIN\0\0alice\0guess")
    world.check()
    assert world.wait(caller) == [FAILED]


def test_who_leaves_does_not_have_its_password_checked(world: Guarded) -> None:
    callers = [world.caller(TLS) for _ in range(3)]
    for caller in callers:
        caller.ask("OPTION_REQ", b"sasl")
        caller.tell("SASL_START", b"PLAIN\0\0alice\0pencil")
    callers[0].leave()
    check = world.logins.next_check(world.time())
    assert check is not None
    callers[1].leave()
    world.engine.checked(check, 0, world.time())
    callers[2].leave()
    assert world.logins.next_check(world.time()) is None


def test_only_so_many_passwords_wait_to_be_checked(
    world: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logins, "CHECKS", 1)
    callers = [world.caller(TLS) for _ in range(2)]
    for caller in callers:
        caller.ask("OPTION_REQ", b"sasl")
        caller.tell("SASL_START", b"PLAIN\0\0alice\0pencil")
    later = ("ERROR", b"AUTHENTICATION_TEMPORARY_FAILURE", b"Try again later")
    assert world.wait(callers[1]) == [later]


def test_the_last_password_does_not_wait_for_longer_than_half_the_deadline(
    world: Guarded,
) -> None:
    first = world.caller(TLS)
    first.ask("OPTION_REQ", b"sasl")
    first.tell("SASL_START", b"PLAIN\0\0alice\0pencil")
    check = world.logins.next_check(world.time())
    assert check is not None
    world.time.advance(8.0)
    world.engine.checked(check, -1, world.time())
    answers = []
    for _ in range(2):
        caller = world.caller(TLS)
        caller.ask("OPTION_REQ", b"sasl")
        caller.tell("SASL_START", b"PLAIN\0\0bob\0pencil")
        answers.append(world.wait(caller))
    assert [len(heard) for heard in answers] == [0, 1]


# Without saying so


def test_a_system_user_is_known_without_a_word(world: Guarded) -> None:
    caller = world.caller(UNIX)
    assert caller.command(b"whoami").endswith(b" peer\r\n")
    assert caller.submit()
    assert Guarded(ways=[Way.SASL]).caller(UNIX).command(b"whoami") == b"OK - - - -\r\n"


def test_without_sasl_nobody_can_log_in() -> None:
    world = Guarded(ways=[Way.MTLS, Way.PEER])
    caller = world.caller()
    ((_, code, _),) = caller.ask("OPTION_REQ", b"sasl")
    assert code == b"UNKNOWN_OPTION"
    assert caller.ask("SASL_START", b"SCRAM-SHA-256") == [UNEXPECTED]
    assert b"AUTHENTICATION_REQUIRED" in world.caller().command(b"auth")


# Again


def test_logging_in_again_keeps_the_connection_and_serves_it_meanwhile(world: Guarded) -> None:
    caller = world.user()
    handle = caller.submit()
    caller.ask("OPTION_REQ", b"sasl")
    caller.ask("SASL_START", b"SCRAM-SHA-256")
    assert caller.ask("GET_STATUS", handle)[0][:3] == ("STATUS_RES", handle, b"1")
    caller.ask("SASL_ABORT")
    assert scram(caller)[0] == "SASL_OK"
    assert caller.ask("GET_STATUS", handle)[0][:3] == ("STATUS_RES", handle, b"1")


def test_a_connection_does_not_become_another_users(world: Guarded) -> None:
    caller = world.user()
    assert scram(caller, "eve") == ()
    assert world.wait(caller) == [FAILED]
    assert caller.end() is CloseReason.NOT_LOGGED_IN


def test_a_login_that_runs_out_is_announced_and_ends() -> None:
    world = Guarded(lifetime=100.0)
    caller, plain = world.user(), world.user(extended=False)
    world.pass_time(90)
    assert caller.heard() == [("SASL_EXPIRING", b"20000")]
    assert plain.heard() == []
    assert caller.submit()
    world.pass_time(11)
    assert caller.heard() == [("ERROR", b"AUTHENTICATION_EXPIRED", b"Session expired")]
    assert caller.end() is CloseReason.NOT_LOGGED_IN


def test_a_worker_whose_login_ran_out_may_finish_what_it_holds() -> None:
    world = Guarded(lifetime=100.0)
    client, worker = world.user(), world.user()
    assert scram(client)[4] == b"100000"
    client.submit()
    client.submit()
    worker.tell("CAN_DO", b"f")
    handle = worker.grab()
    world.pass_time(90)
    assert scram(client)[0] == "SASL_OK"
    world.pass_time(15)
    worker.heard()
    worker.tell("WORK_COMPLETE", handle, b"done")
    assert client.heard()[-1] == ("WORK_COMPLETE", handle, b"done")
    assert worker.ask("GRAB_JOB") == [("ERROR", b"AUTHENTICATION_EXPIRED", b"Session expired")]
    world.pass_time(2)
    assert worker.end() is CloseReason.NOT_LOGGED_IN


def test_a_worker_whose_login_ran_out_may_give_back_what_it_holds() -> None:
    world = Guarded(lifetime=100.0)
    worker, plain = world.user(), world.user(extended=False)
    for caller in (worker, plain):
        caller.submit()
        caller.tell("CAN_DO", b"f")
    handle = worker.grab()
    plain.grab()
    world.pass_time(101)
    worker.heard()
    assert worker.ask("HEARTBEAT", b"60000") == []
    assert worker.ask("JOB_RELEASE", handle, b"drain") == []
    assert world.engine.statistics().running == 1
    expired = ("ERROR", b"AUTHENTICATION_EXPIRED", b"Session expired")
    assert worker.ask("CAN_DO", b"g") == [expired]
    assert plain.ask("HEARTBEAT", b"60000") == [expired], "it does not know it"


def test_the_time_to_finish_is_bounded() -> None:
    world = Guarded(lifetime=100.0)
    worker = world.user()
    worker.submit()
    worker.tell("CAN_DO", b"f")
    worker.grab()
    world.pass_time(101)
    assert worker.end() is None
    world.pass_time(guarded.GRACE)
    assert worker.end() is CloseReason.NOT_LOGGED_IN
    assert world.engine.statistics().running == 0


# Rights


def test_t_globs_decide_of_which_functions_jobs_may_be_submitted(world: Guarded) -> None:
    bob = world.user("bob")
    assert bob.submit("SUBMIT_JOB", b"foo", b"", b"")
    assert bob.ask("SUBMIT_JOB", b"g", b"", b"") == [DENIED]
    assert bob.ask("SUBMIT_JOB_SCHED", b"g", b"", *[b"*"] * 5, b"") == [DENIED]
    reduce = (b"u", b"", b"")
    assert bob.ask("SUBMIT_REDUCE_JOB", b"f", b"", b"g", *reduce[1:]) == [DENIED]
    assert bob.submit("SUBMIT_REDUCE_JOB", b"f", b"", b"fr", *reduce[1:])


def test_globs_decide_of_which_functions_jobs_may_be_done(world: Guarded) -> None:
    bob, plain = world.user("bob"), world.user("bob", extended=False)
    assert bob.ask("CAN_DO", b"f") == []
    assert bob.ask("CAN_DO", b"g") == [DENIED]
    assert plain.ask("CAN_DO", b"g") == [], "an ERROR would set it out of step"
    assert [f.name for f in plain.peer.session.peer.abilities] == []


def test_a_user_without_roles_may_only_say_hello(world: Guarded) -> None:
    eve, plain = world.user("eve"), world.user("eve", extended=False)
    assert eve.ask("SUBMIT_JOB", b"f", b"", b"") == [DENIED]
    assert eve.ask("GET_RESULT", b"H:x") == [DENIED]
    assert plain.ask("GET_RESULT", b"H:x")[0][1] == b"INVALID_COMMAND"
    assert eve.ask("GRAB_JOB") == [("NO_JOB",)]
    assert plain.ask("CAN_DO", b"f") == []
    assert eve.command(b"status") == b"ERR PERMISSION_DENIED Permission+denied\r\n"
    assert eve.command(b"whoami") == b"OK other/eve other - SCRAM-SHA-256\r\n"
    assert eve.command(b"nonsense").startswith(b"ERR UNKNOWN_COMMAND")


def test_text_commands_need_their_roles(world: Guarded) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    assert alice.command(b"getpid") == b"OK 7\n"
    assert bob.command(b"getpid") == b"ERR PERMISSION_DENIED Permission+denied\r\n"
    assert bob.command(b"status") == b".\n"
    assert bob.command(b"schedule add").startswith(b"ERR INVALID_ARGUMENT")


def test_globs_hold_for_schedules_too(world: Guarded) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    mine = bob.command(b"schedule add f @hourly")
    hers = alice.command(b"schedule add g @hourly")
    denied = b"ERR PERMISSION_DENIED Permission+denied\r\n"
    assert bob.command(b"schedule add g @hourly") == denied
    assert bob.command(b"schedule run " + hers.split()[1]) == denied
    assert bob.command(b"schedule run " + mine.split()[1]).startswith(b"OK ")
    assert bob.command(b"schedule run none").startswith(b"ERR ")


def test_tenants_do_not_see_one_another(world: Guarded) -> None:
    text = USERS.replace('tenant = "other"', 'tenant = "other"\nroles = ["submit", "admin"]')
    world = Guarded(text)
    alice, eve = world.user("alice"), world.user("eve")
    handle = alice.submit("SUBMIT_JOB", b"f", b"key", b"secret")
    assert eve.ask("GET_STATUS", handle)[0][2] == b"0"
    assert eve.ask("GET_STATUS_UNIQUE", b"key")[0][2] == b"0"
    assert eve.command(b"status") == b".\n"
    assert eve.command(b"cancel job " + handle) == b"ERR UNKNOWN_JOB\r\n"


# In text


def encoded(data: bytes) -> bytes:
    return base64.b64encode(data)


def test_one_can_log_in_in_text(world: Guarded) -> None:
    caller = world.caller()
    client = ScramClient(SHA_256, "bob", b"pencil", b"clientnonce")
    answer = caller.command(b"auth SCRAM-SHA-256 " + encoded(client.first()))
    final = client.final(base64.b64decode(answer.removeprefix(b"+ ")))
    ok, who, tenant, roles, proof = caller.command(encoded(final)).split()
    assert (ok, who, tenant, roles) == (b"OK", b"acme/bob", b"acme", b"submit,work,admin")
    client.check(base64.b64decode(proof))
    assert caller.command(b"auth") == b"OK SCRAM-SHA-256\r\n"


def test_a_login_in_text_without_proof_says_who_one_is(world: Guarded) -> None:
    caller = world.caller(UNIX)
    world.engine.logins = world.logins
    assert caller.command(b"auth EXTERNAL =") == (
        b"OK acme/alice acme submit,work,admin,operator\r\n"
    )


def test_a_login_in_text_can_be_given_up(world: Guarded) -> None:
    caller = world.caller()
    assert caller.command(b"auth SCRAM-SHA-256") == b"+ \r\n"
    assert caller.command(b"*") == b"ERR SASL_ABORTED Aborted\r\n"


@pytest.mark.parametrize("line", [b"auth SCRAM-SHA-256 !", b"auth A = b"])
def test_text_that_is_no_base64_is_the_end(line: bytes, world: Guarded) -> None:
    words = b"ERR SASL_PROTOCOL_ERROR Unexpected+SASL+packet\r\n"
    assert world.caller().command(line) == words
    caller = world.caller()
    caller.command(b"auth SCRAM-SHA-256")
    assert caller.command(b"!") == words


def test_too_many_commands_without_a_login_are_the_end(world: Guarded) -> None:
    caller = world.caller()
    for _ in range(entering.MOST_PACKETS):
        caller.command(b"auth")
    assert caller.command(b"auth").startswith(b"ERR AUTHENTICATION_REQUIRED")


# Other users


def test_a_user_who_is_gone_or_has_another_password_is_put_out(world: Guarded) -> None:
    alice, bob, stranger = world.user("alice"), world.user("bob"), world.caller()
    local = world.caller(UNIX)
    eve = world.user("eve")
    changed = Verifier.derive("other", SALT, 4096).text()
    bob_table = USERS[USERS.index("[users.bob]") : USERS.index("[users.eve]")]
    text = USERS.replace(bob_table, "")
    text = text.replace(PENCIL.text(), changed, 1)
    assert world.engine.renew_users(Users.parse(text), world.time()) == 2
    world.flush()
    expired = ("ERROR", b"AUTHENTICATION_EXPIRED", b"Session expired")
    assert alice.heard() == bob.heard() == [expired]
    assert alice.end() is CloseReason.NOT_LOGGED_IN
    assert [one.end() for one in (stranger, local, eve)] == [None, None, None]
    assert scram(stranger, "alice", "other")[0] == "SASL_OK"


def test_other_rights_hold_at_once_and_for_what_was_announced_before(world: Guarded) -> None:
    bob, alice = world.user("bob"), world.user("alice")
    bob.tell("CAN_DO", b"f")
    alice.tell("CAN_DO", b"f")
    alice.tell("CAN_DO", b"g")
    text = USERS.replace('work = ["f"]', 'work = ["g"]').replace(
        "unix_uids = [1001]", 'work = ["f"]'
    )
    assert world.engine.renew_users(Users.parse(text), world.time()) == 0
    assert bob.ask("CAN_DO", b"f") == [DENIED]
    assert bob.ask("CAN_DO", b"g") == []
    assert [f.name for f in bob.peer.session.peer.abilities] == [b"g"]
    assert [f.name for f in alice.peer.session.peer.abilities] == [b"f"]
    nothing = text.replace('["submit", "work", "admin"]', '["submit"]')
    assert world.engine.renew_users(Users.parse(nothing), world.time()) == 0
    assert [f.name for f in bob.peer.session.peer.abilities] == []


def renewed(world: Guarded, text: str) -> int:
    """Put other users into service; how many connections end with that."""
    ended = world.engine.renew_users(Users.parse(text), world.time())
    world.flush()
    return ended


def test_t39_a_user_whose_time_is_over_by_the_new_file_is_put_out(world: Guarded) -> None:
    caller, other = world.user("bob"), world.user("alice")
    text = USERS.replace("[users.bob]", "[users.bob]\nnot_after = 1970-01-02T00:00:00Z")
    assert renewed(world, text) == 1
    assert caller.end() is CloseReason.NOT_LOGGED_IN
    assert other.submit()


def test_the_time_of_a_user_may_become_shorter_and_longer(world: Guarded) -> None:
    caller = world.user("bob")
    now = world.time().wall

    def until(seconds: float) -> str:
        moment = datetime.fromtimestamp(now + seconds, UTC).isoformat()
        return USERS.replace("[users.bob]", f"[users.bob]\nnot_after = {moment}")

    assert renewed(world, until(100)) == 0
    world.pass_time(90)
    assert caller.heard() == [("SASL_EXPIRING", b"20000")]
    assert renewed(world, until(1000)) == 0
    world.pass_time(100)
    assert caller.submit()
    assert renewed(world, USERS) == 0
    world.pass_time(10_000)
    assert caller.submit()
    assert renewed(world, until(20_000)) == 0
    world.pass_time(20_000)
    assert caller.end() is CloseReason.NOT_LOGGED_IN
    assert len(world.logins.timers) == 0


def test_a_login_that_ran_out_does_not_come_back_with_other_users() -> None:
    world = Guarded(lifetime=100.0)
    worker = world.user("alice")
    worker.submit()
    worker.tell("CAN_DO", b"f")
    worker.grab()
    world.pass_time(101)
    assert renewed(world, USERS.replace('"admin", "operator"', '"admin"')) == 0
    worker.heard()
    assert worker.ask("GRAB_JOB")[0][1] == b"AUTHENTICATION_EXPIRED"


def test_who_is_known_by_what_is_gone_from_the_file_is_put_out(world: Guarded) -> None:
    local, password = world.caller(UNIX), world.user("alice")
    external = world.caller(UNIX)
    assert external.command(b"auth EXTERNAL =").startswith(b"OK ")
    assert renewed(world, USERS + "[users.new]\nunix_uids = [7]\n") == 0, "somebody else's"
    assert renewed(world, USERS.replace("unix_uids = [1001]", "unix_uids = [1002]")) == 2
    assert local.end() is external.end() is CloseReason.NOT_LOGGED_IN
    assert password.submit()


def test_who_may_not_act_as_another_any_more_is_put_out() -> None:
    text = USERS.replace("[users.bob]", '[users.bob]\nmay_act_as = ["alice"]')
    world = Guarded(text)
    caller = world.caller(TLS)
    caller.ask("OPTION_REQ", b"sasl")
    caller.tell("SASL_START", b"PLAIN\0alice\0bob\0pencil")
    world.check()
    world.receive(caller.peer, b"")
    assert caller.heard()[0][:2] == ("SASL_OK", b"acme/alice")
    assert (
        renewed(world, text.replace('"submit", "work", "admin"]\nsubmit', '"work"]\nsubmit')) == 0
    )
    assert renewed(world, USERS) == 1
    assert caller.end() is CloseReason.NOT_LOGGED_IN


def test_another_password_puts_nobody_out_where_that_is_not_wanted(world: Guarded) -> None:
    world.logins.drop_on_password_change = False
    caller = world.user("bob")
    changed = Verifier.derive("other", SALT, 4096).text()
    assert renewed(world, USERS.replace(PENCIL.text(), changed)) == 0
    assert caller.submit()


def test_a_login_that_succeeds_for_a_user_who_is_gone_meanwhile_fails(world: Guarded) -> None:
    caller = world.caller(TLS)
    caller.ask("OPTION_REQ", b"sasl")
    caller.tell("SASL_START", b"PLAIN\0\0alice\0pencil")
    assert renewed(world, "version = 1\n") == 0
    world.check()
    assert world.wait(caller) == [FAILED]
    assert caller.command(b"whoami") == b"OK - - - -\r\n"


def test_who_is_removed_while_logging_in_is_not_let_in(world: Guarded) -> None:
    caller = world.caller()
    client = ScramClient(SHA_256, "alice", b"pencil", b"clientnonce")
    caller.ask("OPTION_REQ", b"sasl")
    ((_, challenge),) = caller.ask("SASL_START", b"SCRAM-SHA-256\0" + client.first())
    world.engine.renew_users(Users.parse(USERS.replace("users.alice", "users.carol")), world.time())
    caller.tell("SASL_RESPONSE", client.final(challenge))
    assert world.wait(caller) == [FAILED]
    assert caller.command(b"whoami") == b"OK - - - -\r\n"


def test_nobody_is_let_in_whom_a_mechanism_still_knows_and_the_users_do_not(world: Guarded) -> None:
    gone = world.user("alice").peer.session.identity
    caller = world.caller()
    caller.ask("OPTION_REQ", b"sasl")
    caller.ask("SASL_START", b"SCRAM-SHA-256")
    world.engine.renew_users(Users.parse(USERS.replace("users.alice", "users.carol")), world.time())
    caller.peer.session._succeed(Done(gone))
    world.flush()
    assert world.wait(caller) == [FAILED]
    assert caller.command(b"whoami") == b"OK - - - -\r\n"
