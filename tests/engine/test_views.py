"""What operators see of every tenant, what they do for one, and who is connected."""

from __future__ import annotations

import pytest

from tests.engine.test_logins import REQUIRED, TLS, Guarded, scram
from tests.engine.world import Caller, World
from tests.security.logins import PENCIL
from trigear.engine.doors import Door, Networks, Way
from trigear.engine.wishes import Wish
from trigear.model import CloseReason
from trigear.security.mechs import Channel
from trigear.security.policy import Role, network_identity
from trigear.security.users import Users

TEXT = f"""
version = 1
[users.root]
roles = ["operator"]
scram = ["{PENCIL.text()}"]
[users.ann]
tenant = "acme"
roles = ["submit", "work", "admin"]
scram = ["{PENCIL.text()}"]
[users.ben]
tenant = "labs"
roles = ["submit", "work", "admin"]
scram = ["{PENCIL.text()}"]
unix_uids = [1001]
"""
DENIED = b"ERR PERMISSION_DENIED Permission+denied\r\n"


@pytest.fixture
def world() -> Guarded:
    return Guarded(TEXT)


@pytest.fixture
def root(world: Guarded) -> Caller:
    return world.user("root", extended=False)


def stocked(world: Guarded) -> tuple[Caller, Caller]:
    """Both tenants have a function ``f``: of ann's one job runs, of ben's one waits."""
    ann, ben = world.user("ann"), world.user("ben")
    ann.tell("SET_CLIENT_ID", b"ann")
    ann.submit("SUBMIT_JOB", b"f", b"key", b"")
    ben.submit("SUBMIT_JOB", b"f", b"key", b"")
    ann.tell("CAN_DO", b"f")
    ann.grab()
    return ann, ben


def test_an_operator_sees_every_tenant_with_its_name_in_front(world: Guarded, root: Caller) -> None:
    stocked(world)
    world.caller()  # who has not logged in belongs to no tenant
    assert root.command(b"status") == b"acme/f\t1\t1\t1\nlabs/f\t1\t0\t0\n.\n"
    assert root.command(b"prioritystatus") == b"acme/f\t0\t0\t0\t1\nlabs/f\t0\t1\t0\t0\n.\n"
    assert root.command(b"show functions").splitlines()[1].startswith(b"labs/f\t1\t0\t0\t0\t0\t0")
    assert root.command(b"workers") == (
        b"3 127.0.0.1 - :\n2 127.0.0.1 ann : acme/f\n1 127.0.0.1 - :\n.\n"
    )
    one, other = (b"%s/H:memory:%020d" % pair for pair in ((b"acme", 1), (b"labs", 2)))
    assert root.command(b"show jobs") == b"%s\t0\t0\t0\n%s\t0\t0\t0\n.\n" % (one, other)
    assert root.command(b"show unique jobs") == b"acme/key\nlabs/key\n.\n"
    assert root.command(b"jobs") == b"%s\tkey\t127.0.0.1\t1\n%s\tkey\t-\t1\n.\n" % (one, other)
    assert b"\t%s\tkey\t-\n" % other in root.command(b"clients")
    settings = root.command(b"functions")
    assert settings.startswith(b"acme/f\t")
    assert b"\nlabs/f\t" in settings


def test_an_operator_finds_a_job_with_and_without_its_tenant(world: Guarded, root: Caller) -> None:
    stocked(world)
    handle = b"H:memory:%020d" % 2
    for name in (handle, b"labs/" + handle):
        lines = root.command(b"show job " + name).splitlines()
        assert lines[:2] == [b"handle\tlabs/" + handle, b"function\tlabs/f"]
    for name in (b"acme/" + handle, b"nobody/" + handle, b"H:x"):
        assert root.command(b"show job " + name) == b"ERR UNKNOWN_JOB\r\n"
    assert root.command(b"functions labs/f").startswith(b"labs/f\t")
    assert root.command(b"functions f") == b".\n"


def test_an_operator_changes_nothing_without_saying_for_whom(world: Guarded, root: Caller) -> None:
    stocked(world)
    handle = b"H:memory:%020d" % 2
    for command in (b"cancel job " + handle, b"create function g", b"dead list", b"pause f"):
        assert root.command(command) == DENIED
    assert root.command(b"tenant labs") == b"OK\r\n"
    assert root.command(b"whoami") == b"OK default/root labs admin,operator SCRAM-SHA-256\r\n"
    assert root.command(b"status") == b"f\t1\t0\t0\n.\n"
    assert root.command(b"cancel job " + handle) == b"OK\r\n"
    assert root.command(b"getpid") == b"OK 7\n", "what is the server's is an operator's still"
    assert root.ask("SUBMIT_JOB", b"f", b"", b"")[0][1] == b"PERMISSION_DENIED"
    assert root.command(b"tenant") == b"OK\r\n"
    assert root.command(b"status") == b"acme/f\t1\t1\t1\nlabs/f\t0\t0\t0\n.\n"
    assert root.command(b"pause f") == DENIED


def test_packets_say_by_an_option_for_whom(world: Guarded) -> None:
    stocked(world)
    root, ann, stranger = world.user("root"), world.user("ann"), world.caller()
    assert root.ask("OPTION_REQ", b"tenant=labs") == [("OPTION_RES", b"tenant=labs")]
    assert root.command(b"show job H:memory:%020d" % 2) != b"ERR UNKNOWN_JOB\r\n"
    assert root.ask("OPTION_REQ", b"tenant=") == [("OPTION_RES", b"tenant=")]
    ((_, code, _),) = root.ask("OPTION_REQ", b"tenant=lab")
    assert code == b"UNKNOWN_TENANT"
    ((_, code, _),) = ann.ask("OPTION_REQ", b"tenant=labs")
    assert code == b"PERMISSION_DENIED"
    assert stranger.ask("OPTION_REQ", b"tenant=labs") == [REQUIRED]


def test_nobody_else_acts_for_a_tenant(world: Guarded) -> None:
    ann = world.user("ann")
    assert ann.command(b"tenant labs") == DENIED
    assert ann.command(b"tenant acme") == DENIED
    assert ann.command(b"status") == b".\n"


def test_a_tenant_has_to_be_there(world: Guarded, root: Caller) -> None:
    unknown = b"ERR UNKNOWN_TENANT No+such+tenant\r\n"
    for name in (b"lab", b"Labs", b"\xff"):
        assert root.command(b"tenant " + name) == unknown
    for name in (b"labs", b"acme", b"default"):
        assert root.command(b"tenant " + name) == b"OK\r\n", "users belong to it"
    believing = Networks({"::1": network_identity("::1", "far", [Role.SUBMIT])})
    world.logins._doors += (Door(networks=believing),)
    assert root.command(b"tenant far") == b"OK\r\n"
    assert not world.engine.knows_tenant("")
    assert not World().engine.knows_tenant("labs")


def test_who_is_at_work_for_a_tenant_does_not_change_it() -> None:
    everything = 'roles = ["operator", "submit", "work"]'
    world = Guarded(TEXT.replace('roles = ["operator"]', everything))
    root = world.user("root")
    assert root.command(b"tenant labs") == b"OK\r\n"
    root.tell("CAN_DO", b"f")
    said = b"ERR CONNECTION_IN_USE The+connection+is+at+work+for+a+tenant\r\n"
    assert root.command(b"tenant acme") == said
    assert root.command(b"tenant labs") == b"OK\r\n", "it does already"
    root.tell("RESET_ABILITIES")
    assert root.command(b"tenant acme") == b"OK\r\n"
    root.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    assert root.command(b"tenant") == said
    assert world.engine.broker.tenant("acme").functions[b"f"].total == 1
    assert scram(root, "root")[0] == "SASL_OK", "logging in again leaves it there"
    assert root.command(b"status") == b"f\t1\t0\t0\n.\n"


def test_who_still_owes_an_answer_to_a_tenant_does_not_change_it() -> None:
    world = Guarded(TEXT.replace('roles = ["operator"]', 'roles = ["operator", "work"]'))
    root, ann = world.user("root"), world.user("ann")
    assert root.command(b"tenant acme") == b"OK\r\n"
    handle = ann.submit()
    root.tell("CAN_DO_TIMEOUT", b"f", b"1000")
    assert root.grab() == handle
    root.tell("RESET_ABILITIES")
    world.pass_time(1.5)
    assert root.heard() == [("JOB_CANCELLED", handle, b"timeout")]
    assert root.command(b"tenant labs").startswith(b"ERR CONNECTION_IN_USE")
    root.tell("WORK_FAIL", handle)
    assert root.command(b"tenant labs") == b"OK\r\n"


def test_who_is_no_operator_any_more_does_not_act_for_anybody(world: Guarded) -> None:
    root, other = world.user("root"), world.user("root")
    assert root.command(b"tenant labs") == b"OK\r\n"
    users = Users.parse(TEXT.replace('roles = ["operator"]', 'roles = ["admin"]'))
    world.logins.authenticator.users = users
    assert scram(root, "root") == ()
    world.logins.authenticator.users = Users.parse(TEXT)
    again = world.user("root")
    assert again.command(b"tenant labs") == b"OK\r\n"
    assert world.engine.renew_users(users, world.time()) == 2
    world.flush()
    assert again.end() is CloseReason.NOT_LOGGED_IN
    assert other.command(b"whoami") == b"OK default/root default admin SCRAM-SHA-256\r\n"


# Sessions


def test_an_operator_sees_every_session(world: Guarded, root: Caller) -> None:
    stocked(world)
    world.caller(Channel("198.51.100.7", tls=True, version="TLSv1.3"))
    local = world.caller(Channel("-", unix=True, uid=1001))
    world.time.advance(5)
    assert local.command(b"sessions") == (
        b"1\tlabs/ben\tlabs\tSCRAM-SHA-256\t127.0.0.1\t-\t5\t-\t0\t0\t1\t-\n"
        b"2\tlabs/ben\tlabs\tpeer\t-\t-\t5\t-\t0\t0\t0\t-\n"
        b".\n"
    )
    assert root.command(b"sessions") == (
        b"1\tdefault/root\tdefault\tSCRAM-SHA-256\t127.0.0.1\t-\t5\t-\t0\t0\t0\t-\n"
        b"2\tacme/ann\tacme\tSCRAM-SHA-256\t127.0.0.1\t-\t5\t-\t1\t1\t1\tann\n"
        b"3\tlabs/ben\tlabs\tSCRAM-SHA-256\t127.0.0.1\t-\t5\t-\t0\t0\t1\t-\n"
        b"4\t-\t-\t-\t198.51.100.7\tTLSv1.3\t5\t-\t0\t0\t0\t-\n"
        b"5\tlabs/ben\tlabs\tpeer\t-\t-\t5\t-\t0\t0\t0\t-\n"
        b".\n"
    )


def test_the_time_that_is_left_is_told() -> None:
    world = Guarded(TEXT, lifetime=100.0)
    root = world.user("root", extended=False)
    world.time.advance(40)
    assert root.command(b"sessions").split(b"\t")[6:8] == [b"40", b"60"]


def test_a_session_is_ended_by_who_sees_it(world: Guarded, root: Caller) -> None:
    ann, ben = stocked(world)
    stranger = world.caller()
    unknown = b"ERR UNKNOWN_SESSION No+such+session\r\n"
    assert ann.command(b"session end 3") == unknown, "its own tenant has one only"
    assert ann.command(b"session end x") == unknown
    assert root.command(b"session end 3") == b"OK\r\n"
    assert ben.heard() == [("ERROR", b"SESSION_ENDED", b"Ended by an operator")]
    assert ben.end() is CloseReason.DISMISSED
    assert root.command(b"session end 4") == b"OK\r\n"
    assert stranger.end() is CloseReason.DISMISSED
    assert ann.command(b"session end 1") != unknown, "it may end itself"
    assert ann.end() is CloseReason.DISMISSED
    assert root.command(b"session end") == (
        b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+session\r\n"
    )
    assert world.user("ben").command(b"session end 1") == unknown, "numbers are not used again"
    eve = Guarded(TEXT.replace(', "admin"]', "]", 1)).user("ann")
    assert eve.command(b"sessions") == DENIED
    assert eve.command(b"session end 1") == DENIED


def test_a_server_that_asks_nobody_tells_of_its_sessions_as_well(world: Guarded) -> None:
    plain = World()
    one, other = plain.caller(), plain.caller("10.0.0.1")
    assert one.command(b"sessions") == (
        b"1\tdefault/anonymous\tdefault\tnone\t127.0.0.1\t-\t0\t-\t0\t0\t0\t-\n"
        b"2\tdefault/anonymous\tdefault\tnone\t10.0.0.1\t-\t0\t-\t0\t0\t0\t-\n"
        b".\n"
    )
    assert one.command(b"session end 2") == b"OK\r\n"
    assert other.end() is CloseReason.DISMISSED


# What is asked of the process


def test_operators_ask_the_server_to_stop_and_to_read_its_files(
    world: Guarded, root: Caller
) -> None:
    ann = world.user("ann")
    for line in (b"shutdown", b"shutdown graceful", b"drain", b"reload"):
        assert ann.command(line) == DENIED
        assert root.command(line) == b"OK\r\n"
    assert world.engine.wishes == [Wish.STOP, Wish.DRAIN, Wish.DRAIN, Wish.RELOAD]
    assert root.command(b"shutdown now").startswith(b"ERR INVALID_ARGUMENT write+shutdown")


@pytest.mark.parametrize(
    "line", ["shutdown", "drain", "reload", "whoami", "auth", "auth PLAIN", "tenant default"]
)
def test_where_nobody_is_asked_there_are_no_commands_for_users(line: str) -> None:
    word = line.split()[0].encode()
    unknown = b"ERR UNKNOWN_COMMAND Unknown+server+command" + word + b"\r\n"
    plain = World()
    assert plain.caller().command(line.encode()) == unknown
    assert plain.engine.wishes == []


def test_there_is_no_login_where_none_is_asked_for() -> None:
    world = Guarded(TEXT)
    believing = network_identity("127.0.0.0/8", "acme", [Role.SUBMIT])
    world.logins.door = Door(frozenset([Way.NETWORK]), Networks({"127.0.0.0/8": believing}))
    said = b"ERR UNKNOWN_COMMAND Unknown+server+commandauth\r\n"
    assert world.caller().command(b"auth") == said
    assert b"AUTHENTICATION_REQUIRED" in world.caller(TLS).command(b"auth")
