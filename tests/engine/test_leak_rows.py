"""Nothing of one tenant shows to another: a test for every row of the table of ways by which
something might. `test_leaks.py` compares what is heard with and without the other tenant.

Two tenants do the same: their functions, uniques and client ids have the same names. ``ann`` is of
`acme`, ``ben`` of `labs`; both may submit, work and steer. Each test names its row in the table of
ways by which a server may tell one tenant of another.
"""

from __future__ import annotations

import itertools
import logging
import re

import pytest

from tests.engine.test_logins import FAILED, Guarded, scram
from tests.engine.test_views import DENIED, TEXT
from tests.engine.world import Caller, packet
from tests.stores.places import job as stored_job
from trigear.broker.quotas import Quotas
from trigear.engine.config import EngineConfig, TenantSettings
from trigear.engine.engine import TURN
from trigear.engine.handles import HandleMint
from trigear.engine.views import out_of_reach
from trigear.model import CloseReason
from trigear.security.users import Users

ROWS = {
    *("handle guessing", "unique probing", "coalescing", "forged WORK", "handle counter"),
    *("status", "workers", "show jobs", "steering by anyone", "server facts", "stealing work"),
    *("wake-ups", "worker text", "full queues", "client ids", "error texts", "store", "metrics"),
    *("logs", "identity switch", "quotas", "contention"),
}
"""The rows of the table. That certificates, `version` and mechanisms tell of the server is
accepted."""


def row(name: str) -> pytest.MarkDecorator:
    """Which row a test is for."""
    assert name in ROWS
    return pytest.mark.parametrize("leak", [name])


@pytest.fixture
def world() -> Guarded:
    return Guarded(TEXT)


@pytest.fixture
def ann(world: Guarded) -> Caller:
    return world.user("ann")


@pytest.fixture
def ben(world: Guarded) -> Caller:
    return world.user("ben")


ABOUT_A_JOB = (
    *("show job", "result", "cancel job", "requeue", "drop result"),
    *("dead show", "dead retry", "dead delete"),
    *("schedule show", "schedule run", "schedule pause", "schedule resume", "schedule remove"),
)


@row("handle guessing")
def test_a_foreign_handle_is_answered_as_one_that_never_was(
    leak: str, world: Guarded, ann: Caller, ben: Caller
) -> None:
    """By every packet and every command that takes a handle."""
    handle = ann.submit("SUBMIT_JOB_BG", b"f", b"key", b"x")
    schedule = ann.command(b"schedule add f @hourly unique=key").split()[1]
    none = b"H:memory:%020d" % 999
    for foreign in (handle, schedule):
        for name in ("GET_STATUS", "GET_RESULT"):
            theirs = repr(ben.ask(name, foreign)).replace(foreign.decode(), "-")
            assert theirs == repr(ben.ask(name, none)).replace(none.decode(), "-"), name
        for words in (*ABOUT_A_JOB, "priority"):
            more = b" high" if words == "priority" else b""
            theirs = ben.command(words.encode() + b" " + foreign + more)
            assert theirs.startswith(b"ERR "), words
            ours = ben.command(words.encode() + b" " + none + more)
            assert theirs.replace(foreign, b"-") == ours.replace(none, b"-"), words
    assert ben.ask("JOB_DETACH", handle) == ben.ask("JOB_DETACH", none) == []
    assert ann.ask("GET_STATUS", handle)[0][2] == b"1", "nothing has happened to it"


@row("unique probing")
def test_a_foreign_unique_is_not_known(leak: str, ann: Caller, ben: Caller) -> None:
    ann.submit("SUBMIT_JOB", b"f", b"order-42", b"")
    assert ben.ask("GET_STATUS_UNIQUE", b"order-42") == [
        ("STATUS_RES_UNIQUE", b"order-42", b"0", b"0", b"0", b"0", b"0")
    ]
    assert ann.ask("GET_STATUS_UNIQUE", b"order-42")[0][2] == b"1"


@row("coalescing")
def test_equal_jobs_of_two_tenants_are_two(leak: str, ann: Caller, ben: Caller) -> None:
    mine = ann.submit("SUBMIT_JOB", b"f", b"key", b"same")
    theirs = ben.submit("SUBMIT_JOB", b"f", b"key", b"same")
    assert mine != theirs
    for caller, handle in ((ann, mine), (ben, theirs)):
        caller.tell("CAN_DO", b"f")
        assert caller.grab() == handle
    ann.tell("WORK_COMPLETE", mine, b"of acme")
    assert ann.heard() == [("WORK_COMPLETE", mine, b"of acme")]
    assert ben.heard() == []
    ben.tell("WORK_COMPLETE", theirs, b"of labs")
    assert ben.heard() == [("WORK_COMPLETE", theirs, b"of labs")]


@row("forged WORK")
@pytest.mark.parametrize(
    "name",
    [
        *("WORK_COMPLETE", "WORK_FAIL", "WORK_EXCEPTION", "WORK_DATA", "WORK_WARNING"),
        *("WORK_STATUS", "JOB_RELEASE"),
    ],
)
def test_a_worker_says_nothing_of_a_foreign_job(
    leak: str, name: str, ann: Caller, ben: Caller
) -> None:
    handle, none = ann.submit(), b"H:memory:%020d" % 999
    ann.tell("CAN_DO", b"f")
    ann.grab()
    more = (b"1", b"2") if name == "WORK_STATUS" else () if name == "WORK_FAIL" else (b"forged",)
    ((said, code, _),) = theirs = ben.ask(name, handle, *more)
    assert (said, code) == ("ERROR", b"JOB_NOT_FOUND")
    assert theirs == ben.ask(name, none, *more)
    assert ann.heard() == []


@row("handle counter")
def test_handles_tell_nothing_of_how_many_there_are(leak: str, world: Guarded) -> None:
    """Those that one tenant gets while another gets many are no closer or farther apart, have one
    width, and are nobody else's."""
    mint = HandleMint(b"H:here", bytes(16))
    world.engine.broker._mint = mint
    ann, ben = world.user("ann"), world.user("ben")

    def number(caller: Caller) -> int:
        handle = caller.submit("SUBMIT_JOB_BG", b"f", b"", b"")
        assert len(handle) == len(b"H:here:") + 20
        return int(handle[-20:])

    quiet = [number(ann) for _ in range(50)]
    busy = []
    for _ in range(50):
        busy.append(number(ann))
        for _ in range(5):
            number(ben)
    for numbers in (quiet, busy):
        steps = [after - before for before, after in itertools.pairwise(numbers)]
        assert 10 < sum(step > 0 for step in steps) < 40, "they come in no order"
        assert min(map(abs, steps)) > 1 << 32
    assert len({*quiet, *busy}) == 100


LISTS = ["status", "prioritystatus", "show functions", "functions", "show unique jobs", "jobs"]


@row("status")
@pytest.mark.parametrize("line", [*LISTS, "schedule list", "dead list"])
def test_lists_have_what_is_ones_own(leak: str, line: str, ann: Caller, ben: Caller) -> None:
    empty = ben.command(line.encode())
    ann.submit("SUBMIT_JOB", b"f", b"key", b"")
    ann.submit("SUBMIT_JOB_BG", b"secret", b"", b"")
    ann.command(b"schedule add secret @hourly")
    ann.command(b"set secret attempts 1")
    assert ben.command(line.encode()) == empty == b".\n"
    if line != "dead list":
        assert ann.command(line.encode()) != b".\n"


@row("workers")
def test_connections_of_others_are_not_told_nor_counted(leak: str, world: Guarded) -> None:
    crowd = [world.user("ann") for _ in range(3)]
    ben = world.user("ben")
    for number, caller in enumerate(crowd):
        caller.tell("SET_CLIENT_ID", b"me")
        caller.tell("CAN_DO", b"f%d" % number)
    world.user("ann").leave()
    again = world.user("ben")
    assert ben.command(b"workers") == b"2 127.0.0.1 - :\n1 127.0.0.1 - :\n.\n"
    assert ben.command(b"clients") == b"127.0.0.1\n127.0.0.1\n.\n"
    lines = again.command(b"sessions").splitlines()
    assert [line.split(b"\t")[:2] for line in lines[:-1]] == [
        [b"1", b"labs/ben"],
        [b"2", b"labs/ben"],
    ]
    assert ben.command(b"session end 3").startswith(b"ERR UNKNOWN_SESSION")
    assert all(caller.end() is None for caller in crowd)


@row("show jobs")
def test_jobs_of_others_are_not_shown(leak: str, ann: Caller, ben: Caller) -> None:
    ann.submit("SUBMIT_JOB", b"f", b"key", b"")
    theirs = ben.submit("SUBMIT_JOB", b"f", b"key", b"")
    assert ben.command(b"show jobs") == theirs + b"\t0\t0\t0\n.\n"
    assert ben.command(b"show unique jobs") == b"key\n.\n"
    assert ben.command(b"jobs") == theirs + b"\tkey\t-\t1\n.\n"


@row("steering by anyone")
def test_what_steers_reaches_no_other_tenant(leak: str, world: Guarded) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    mine = ann.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    ben.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    before = ann.command(b"functions f")
    for line in (b"maxqueue f 1", b"pause f", b"set f attempts 1", b"create function g"):
        assert ben.command(line) == b"OK\r\n"
    assert ben.command(b"resume f") == ben.command(b"reset f") == b"OK\r\n"
    assert ben.command(b"drop function f") == b"OK\r\n"
    assert ann.command(b"functions f") == before
    assert ann.command(b"status") == b"f\t1\t0\t0\n.\n"
    assert ann.ask("GET_STATUS", mine)[0][2] == b"1"
    plain = Guarded(TEXT.replace(', "admin"]', "]"))
    nobody = plain.user("ben")
    for line in (b"maxqueue f 1", b"drop function f", b"create function f", b"cancel job H:1"):
        assert nobody.command(line) == DENIED


@row("server facts")
@pytest.mark.parametrize(
    "line",
    ["getpid", "verbose", "shutdown", "drain", "reload", "tenant acme", "tenant labs", "tenant"],
)
def test_facts_of_the_server_are_for_operators(
    leak: str, line: str, world: Guarded, ben: Caller
) -> None:
    assert ben.command(line.encode()) == DENIED
    assert world.engine.wishes == []


@row("stealing work")
@pytest.mark.parametrize("grab", ["GRAB_JOB", "GRAB_JOB_UNIQ", "GRAB_JOB_ALL"])
def test_nobody_does_the_jobs_of_another_tenant(
    leak: str, grab: str, ann: Caller, ben: Caller
) -> None:
    ann.submit("SUBMIT_JOB", b"reverse", b"", b"secret")
    ben.tell("CAN_DO", b"reverse")
    ben.tell("CAN_DO_TIMEOUT", b"reverse", b"1000")
    assert ben.ask(grab) == [("NO_JOB",)]


@row("wake-ups")
def test_nobody_is_woken_by_the_jobs_of_another_tenant(leak: str, ann: Caller, ben: Caller) -> None:
    ben.tell("CAN_DO", b"f")
    assert ben.ask("PRE_SLEEP") == []
    ann.submit()
    assert ben.heard() == []
    assert ben.ask("PRE_SLEEP") == []
    assert [said[0] for said in ben.ask("SUBMIT_JOB", b"f", b"", b"")] == ["NOOP", "JOB_CREATED"]


@row("worker text")
def test_what_a_worker_says_stays_in_its_tenant(leak: str, world: Guarded) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    for caller in (ann, ben):
        caller.ask("OPTION_REQ", b"exceptions")
        caller.submit("SUBMIT_JOB", b"f", b"key", b"")
        caller.tell("CAN_DO", b"f")
    handle = ann.grab()
    ann.tell("WORK_WARNING", handle, b"disk nearly full")
    ann.tell("WORK_DATA", handle, b"part")
    ann.tell("WORK_STATUS", handle, b"1", b"2")
    ann.tell("WORK_EXCEPTION", handle, b"secret path")
    assert len(ann.heard()) == 4
    assert ben.heard() == []


@row("full queues")
def test_a_full_queue_is_full_for_its_own_tenant(leak: str, ann: Caller, ben: Caller) -> None:
    ann.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    assert ann.command(b"maxqueue f 1") == b"OK\r\n"
    assert ann.ask("SUBMIT_JOB_BG", b"f", b"", b"")[0][1] == b"QUEUE_ERROR"
    for _ in range(3):
        assert ben.submit("SUBMIT_JOB_BG", b"f", b"", b"")


@row("client ids")
def test_client_ids_show_to_ones_own_tenant_in_64_printable_bytes(
    leak: str, ann: Caller, ben: Caller
) -> None:
    ann.tell("SET_CLIENT_ID", b"\x1b[2J\n" + b"x" * 200)
    assert ann.command(b"workers") == b"1 127.0.0.1 \\x1b[2J\\x0a" + b"x" * 59 + b" :\n.\n"
    assert b"x" not in ben.command(b"workers")


@row("error texts")
def test_errors_say_the_same_whoever_asks(leak: str, ann: Caller, ben: Caller) -> None:
    """No text has a name in it that its reader has not said."""
    ann.submit("SUBMIT_JOB_BG", b"secret", b"", b"")
    requests = [
        ("WORK_COMPLETE", b"H:x", b""),
        ("SUBMIT_JOB_BG", b"f" * 5000, b"", b""),
        ("SUBMIT_JOB_BG", b"f", b"u" * 80, b""),
        ("OPTION_REQ", b"secret"),
        ("OPTION_REQ", b"tenant=acme"),
    ]
    for name, *args in requests:
        (theirs,) = ben.ask(name, *args)
        assert theirs[0] == "ERROR"
        assert b"acme" not in theirs[2]
        assert theirs == ann.ask(name, *args)[0]
    for line in (b"show job H:x", b"session end 9", b"drop function none", b"tenant acme"):
        assert ben.command(line) == ann.command(line)


@row("store")
def test_what_is_stored_for_nobody_waits_for_its_tenant(
    leak: str, world: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    engine, now = world.engine, world.time()
    engine.broker.first_sequence = 10
    rows = [stored_job(1, tenant="gone"), stored_job(2, tenant="labs"), stored_job(3, tenant="")]
    assert engine.restore(rows, now) == 2
    assert "is no job and stays there: it has no tenant" in caplog.text
    assert out_of_reach(engine) == {"gone": 1}
    ann, ben, root = world.user("ann"), world.user("ben"), world.user("root")
    assert ann.command(b"status") == b".\n"
    assert ben.command(b"status") == b"f\t1\t0\t0\n.\n"
    assert root.command(b"status") == b"gone/f\t1\t0\t0\nlabs/f\t1\t0\t0\n.\n"
    for caller in (ann, ben):
        caller.tell("CAN_DO", b"f")
    assert ann.ask("GRAB_JOB") == [("NO_JOB",)]
    assert ben.grab() == b"H:test:2"
    assert ben.ask("GRAB_JOB") == [("NO_JOB",)]
    later = TEXT + f'[users.new]\ntenant = "gone"\nroles = ["work"]\n{TEXT.splitlines()[4]}\n'
    assert engine.renew_users(Users.parse(later), now) == 0
    assert out_of_reach(engine) == {}
    new = world.user("new")
    new.tell("CAN_DO", b"f")
    assert new.grab() == b"H:test:1"


@row("metrics")
def test_metrics_are_no_request_of_anybody(leak: str, world: Guarded, ben: Caller) -> None:
    for caller in (ben, world.user("root")):
        assert caller.command(b"metrics").startswith(b"ERR UNKNOWN_COMMAND")


@row("logs")
def test_t42_names_neither_end_a_line_of_the_log_nor_speak_to_a_terminal(
    leak: str, world: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    evil = b"\x1b]0;pwned\x07\n\r\x9b2J"
    ann = world.user("ann")
    ann.tell("SET_CLIENT_ID", evil)
    ann.tell("CAN_DO_TIMEOUT", evil, b"1")
    ann.submit("SUBMIT_JOB_BG", evil + b"x" * 400, evil, evil)
    ann.tell("WORK_COMPLETE", evil, evil)
    ann.tell("JOB_RELEASE", evil, evil)
    ann.tell("JOB_DETACH", evil)
    ann.command(b"cancel job " + evil.replace(b"\n", b""))
    world.caller().command(b"auth " + evil.replace(b"\n", b""))
    world.pass_time(100)
    assert any("no worker" in message for message in caplog.messages)
    for message in caplog.messages:
        assert message.isprintable(), repr(message)
        assert not re.search("x{130}", message)


@row("identity switch")
def test_t33_a_connection_does_not_go_over_to_another_tenant(
    leak: str, world: Guarded, ann: Caller
) -> None:
    ann.tell("CAN_DO", b"f")
    assert scram(ann, "ben") == ()
    assert world.wait(ann) == [FAILED]
    assert ann.end() is CloseReason.NOT_LOGGED_IN
    functions = world.engine.broker.tenant("labs").functions
    assert not functions
    root = world.user("root")
    root.ask("OPTION_REQ", b"tenant=labs")
    assert scram(root, "ann") == ()


@row("quotas")
def test_t44_one_tenant_at_its_limits_leaves_another_what_it_has(leak: str) -> None:
    few = TenantSettings(Quotas(max_connections=1, max_queued_jobs=1, max_functions=1))
    world = Guarded(TEXT)
    world.engine.reload(EngineConfig(tenants={"acme": few}))
    ann, ben = world.user("ann"), world.user("ben")
    ann.submit("SUBMIT_JOB_BG", b"f", b"", b"")
    assert ann.ask("SUBMIT_JOB_BG", b"f", b"", b"")[0][1] == b"QUOTA_EXCEEDED"
    assert scram(world.caller(), "ann")[:2] == ("ERROR", b"QUOTA_EXCEEDED")
    for number in range(3):
        assert ben.submit("SUBMIT_JOB_BG", b"f%d" % number, b"", b"")
    assert world.user("ben").submit("SUBMIT_JOB_BG", b"f", b"", b"")


@row("contention")
def test_a_flood_of_one_is_handled_in_turns(leak: str, world: Guarded, ann: Caller) -> None:
    """Others are served between them; how the hub does that is tested there."""
    session, now = ann.peer.session, world.time()
    assert world.engine.receive(session, packet("ECHO_REQ", b"x") * (TURN + 1), now)
    assert len(session.out) == TURN
    assert not world.engine.receive(session, b"", now)


def test_every_row_has_its_test(request: pytest.FixtureRequest) -> None:
    found = {
        mark.args[1][0]
        for test in vars(request.module).values()
        for mark in getattr(test, "pytestmark", ())
        if mark.name == "parametrize" and mark.args[0] == "leak"
    }
    assert found == ROWS
