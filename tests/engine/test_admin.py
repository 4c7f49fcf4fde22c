"""The text commands, to the byte; where gearmand answers, with its bytes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.engine.world import Caller, World
from trigear.engine.admin import shown
from trigear.engine.config import EngineConfig
from trigear.wire.commands import COMMANDS

if TYPE_CHECKING:
    from tests.conftest import ForeignServer


@pytest.fixture
def admin(world: World) -> Caller:
    return world.caller("10.0.0.1")


def stocked(world: World) -> tuple[bytes, bytes, bytes]:
    """Two functions: of ``f`` one job runs and two wait, of ``g`` one waits; three connections.

    Returns:
        The handles of the running job, a queued one with a unique, and the background job.
    """
    client, worker = world.caller("10.0.0.2"), world.caller("10.0.0.3")
    client.tell("SET_CLIENT_ID", b"client")
    worker.tell("CAN_DO", b"f")
    worker.tell("CAN_DO", b"h")
    running = client.submit("SUBMIT_JOB", b"f", b"", b"w")
    worker.grab()
    queued = client.submit("SUBMIT_JOB_HIGH", b"f", b"u", b"w")
    client.submit("SUBMIT_JOB_HIGH", b"f", b"u", b"w")
    client.submit("SUBMIT_JOB_LOW", b"f", b"-", b"w")
    background = client.submit("SUBMIT_JOB_BG", b"g", b"", b"w")
    return running, queued, background


# Lists


LISTS_OF_SOMETHING = (
    *("workers", "clients", "sessions", "tenants"),
    *("show job", "result", "schedule show", "dead show"),
)


def test_lists_of_an_empty_server_are_a_dot(admin: Caller) -> None:
    for command in COMMANDS:
        if command.is_list and command.name not in LISTS_OF_SOMETHING:
            assert admin.command(command.name.encode()) == b".\n"


def test_status_counts_jobs_and_workers(world: World, admin: Caller) -> None:
    stocked(world)
    assert admin.command(b"status") == b"f\t3\t1\t1\nh\t0\t0\t1\ng\t1\t0\t0\n.\n"


def test_priority_status_counts_what_waits(world: World, admin: Caller) -> None:
    stocked(world)
    assert admin.command(b"prioritystatus") == (b"f\t1\t0\t1\t1\nh\t0\t0\t0\t1\ng\t0\t1\t0\t0\n.\n")


def test_jobs_that_wait_for_their_time_are_counted(world: World, admin: Caller) -> None:
    world.caller().submit("SUBMIT_JOB_EPOCH", b"f", b"", b"99999999999", b"w")
    assert admin.command(b"status") == b"f\t1\t0\t0\n.\n"
    assert admin.command(b"prioritystatus") == b"f\t0\t1\t0\t0\n.\n"


def test_workers_lists_connections_and_abilities_newest_first(world: World, admin: Caller) -> None:
    stocked(world)
    assert admin.command(b"workers") == (
        b"3 10.0.0.3 - : h f\n2 10.0.0.2 client :\n1 10.0.0.1 - :\n.\n"
    )


def test_show_jobs_lists_handle_losses_and_whether_in_the_background(
    world: World, admin: Caller
) -> None:
    running, queued, background = stocked(world)
    rows = admin.command(b"show jobs").splitlines(keepends=True)
    assert len(rows) == 5
    assert rows[-1] == b".\n"
    assert running + b"\t0\t0\t0\n" in rows
    assert queued + b"\t0\t0\t0\n" in rows
    assert background + b"\t0\t0\t1\n" in rows


def test_show_jobs_counts_how_often_a_job_was_lost(world: World, admin: Caller) -> None:
    handle = world.caller().submit("SUBMIT_JOB_BG", b"f", b"", b"w")
    for _ in range(3):
        worker = world.worker()
        worker.grab()
        worker.leave()
    assert admin.command(b"show jobs") == handle + b"\t3\t0\t1\n.\n"


def test_show_unique_jobs_has_a_line_per_job(world: World, admin: Caller) -> None:
    stocked(world)
    assert sorted(admin.command(b"show unique jobs").split(b"\n")) == [
        b"", b"", b"", b"-", b".", b"u",
    ]  # fmt: skip


def test_jobs_lists_the_worker_and_how_many_listen(world: World, admin: Caller) -> None:
    running, queued, background = stocked(world)
    rows = admin.command(b"jobs").splitlines(keepends=True)
    assert running + b"\t\t10.0.0.3\t1\n" in rows
    assert queued + b"\tu\t-\t2\n" in rows
    assert background + b"\t\t-\t0\n" in rows
    assert rows[-1] == b".\n"


def test_clients_lists_the_jobs_below_who_waits_for_them(world: World, admin: Caller) -> None:
    running, queued, _ = stocked(world)
    answer = admin.command(b"clients")
    assert answer.startswith(
        b"10.0.0.1\n10.0.0.2\n\t" + running + b"\t\t10.0.0.3\n\t" + queued + b"\tu\t-\n\t"
    )
    assert answer.endswith(b"\n10.0.0.3\n.\n")


def test_no_name_breaks_a_line(world: World, admin: Caller) -> None:
    name = b"a\tb\nc d\x7f\xc3\xa9"
    peer = world.worker(name)
    peer.tell("SET_CLIENT_ID", b"me too\n")
    peer.submit("SUBMIT_JOB", name, b"u\t1 2", b"w")
    columns = b"a\\x09b\\x0ac d\\x7f\xc3\xa9"
    assert admin.command(b"status") == columns + b"\t1\t0\t1\n.\n"
    assert admin.command(b"prioritystatus") == columns + b"\t0\t1\t0\t1\n.\n"
    assert admin.command(b"workers").split(b"\n")[0] == (
        b"2 127.0.0.1 me\\x20too\\x0a : a\\x09b\\x0ac\\x20d\\x7f\xc3\xa9"
    )
    assert admin.command(b"show unique jobs") == b"u\\x091 2\n.\n"


def test_plain_names_are_shown_as_they_are() -> None:
    assert shown(b"plain") == b"plain"
    assert shown(b"two words", blanks=True) == b"two words"
    assert shown(b"two words") == b"two\\x20words"
    assert shown(b"two\twords", blanks=True) == b"two\\x09words"


# Functions


def test_a_function_can_be_made_and_dropped(admin: Caller) -> None:
    assert admin.command(b"create function f") == b"OK\r\n"
    assert admin.command(b"create function f") == b"OK\r\n"
    assert admin.command(b"status") == b"f\t0\t0\t0\n.\n"
    assert admin.command(b"drop function F") == b"ERR function not found\r\n"
    assert admin.command(b"drop function f") == b"OK\r\n"
    assert admin.command(b"drop function f") == b"ERR function not found\r\n"
    assert admin.command(b"status") == b".\n"


def test_a_name_is_the_same_with_and_without_a_carriage_return(admin: Caller) -> None:
    admin.command(b"create function one")
    admin.command(b"create function two\r")
    assert admin.command(b"status") == b"one\t0\t0\t0\ntwo\t0\t0\t0\n.\n"


def test_a_function_in_use_is_not_dropped(world: World, admin: Caller) -> None:
    busy = b"ERR there are still connected workers or executing clients\r\n"
    client, worker = world.caller(), world.worker()
    assert admin.command(b"drop function f") == busy
    client.submit()
    worker.grab()
    worker.tell("CANT_DO", b"f")
    assert admin.command(b"drop function f") == busy
    worker.leave()
    assert admin.command(b"drop function f") == b"OK\r\n"


def test_the_queued_jobs_of_a_dropped_function_fail(world: World, admin: Caller) -> None:
    client = world.caller()
    handle = client.submit()
    assert admin.command(b"drop function f") == b"OK\r\n"
    assert client.heard() == [("WORK_FAIL", handle)]
    assert client.ask("GET_STATUS", handle)[0][2] == b"0"
    assert admin.command(b"show jobs") == b".\n"


# Cancelling


def test_a_cancelled_job_ends_once_and_for_everybody(world: World, admin: Caller) -> None:
    client, worker = world.caller(), world.worker()
    for running in (False, True):
        handle = client.submit()
        if running:
            worker.grab()
        assert admin.command(b"cancel job " + handle) == b"OK\r\n"
        assert admin.command(b"cancel job " + handle) == b"ERR UNKNOWN_JOB\r\n"
        assert client.heard() == [("WORK_FAIL", handle)]
        assert worker.ask("GRAB_JOB") == [("NO_JOB",)]
        assert worker.ask("WORK_COMPLETE", handle, b"late")[0:1] == (
            [] if running else [("ERROR", b"JOB_NOT_FOUND", b"Job given in work result not found")]
        )
        assert client.heard() == []
    assert admin.command(b"status") == b"f\t0\t0\t1\n.\n"


def test_a_cancelled_job_attracts_no_new_submission(world: World, admin: Caller) -> None:
    client = world.caller()
    handle = client.submit("SUBMIT_JOB", b"f", b"u", b"w")
    admin.command(b"cancel job " + handle)
    client.heard()
    assert client.submit("SUBMIT_JOB", b"f", b"u", b"w") != handle


# Limits


@pytest.mark.parametrize(
    ("arguments", "limits"),
    [
        (b"", [0, 0, 0]),
        (b" 5", [5, 5, 5]),
        (b" 5 6", [5, 6, 0]),
        (b" 5 6 7", [5, 6, 7]),
        (b" 0", [0, 0, 0]),
        (b" -1 many 7", [0, 0, 7]),
    ],
)
def test_limits_are_for_all_priorities_or_one_by_one(
    world: World, admin: Caller, arguments: bytes, limits: list[int]
) -> None:
    admin.command(b"create function f")
    admin.command(b"maxqueue f 9")
    assert admin.command(b"maxqueue f" + arguments) == b"OK\r\n"
    assert admin.peer.session.peer.tenant.functions[b"f"].limits == limits


def test_each_priority_has_its_limit_on_all_jobs_of_the_function(
    world: World, admin: Caller
) -> None:
    client = world.caller()
    admin.command(b"create function f")
    admin.command(b"maxqueue f 3 2 1")
    client.submit("SUBMIT_JOB_LOW", b"f", b"", b"w")
    assert client.ask("SUBMIT_JOB_LOW", b"f", b"", b"w")[0][0] == "ERROR"
    client.submit("SUBMIT_JOB", b"f", b"", b"w")
    assert client.ask("SUBMIT_JOB", b"f", b"", b"w")[0][0] == "ERROR"
    client.submit("SUBMIT_JOB_HIGH", b"f", b"", b"w")
    assert client.ask("SUBMIT_JOB_HIGH", b"f", b"", b"w")[0][0] == "ERROR"
    admin.command(b"maxqueue f")
    client.submit("SUBMIT_JOB_LOW", b"f", b"", b"w")


def test_the_limit_of_a_function_that_is_not_there_is_nothing(world: World, admin: Caller) -> None:
    assert admin.command(b"maxqueue f 1") == b"OK\r\n"
    assert admin.command(b"status") == b".\n"


# The server itself


def test_the_server_says_what_it_was_told_about_itself() -> None:
    admin = World(EngineConfig(version="7.8", verbosity="NOTICE", pid=4711)).caller()
    assert admin.command(b"version") == b"OK 7.8\n"
    assert admin.command(b"verbose") == b"OK NOTICE\n"
    assert admin.command(b"getpid") == b"OK 4711\n"


# Misuse: each line with the answer of gearmand

INCOMPLETE = b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+%s\r\n"
UNKNOWN = b"ERR UNKNOWN_COMMAND Unknown+server+command%s\r\n"
NO_SHOW = b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"
NO_CANCEL = b"ERR UNKNOWN_ERROR\r\n"

MISUSES = {
    b"": UNKNOWN % b"",
    b" ": UNKNOWN % b"",
    b" status": UNKNOWN % b"",
    b"shutdown": UNKNOWN % b"shutdown",
    b"shutdown graceful": UNKNOWN % b"shutdown",
    b"Bogus word": UNKNOWN % b"Bogus",
    b"show": UNKNOWN % b"show",
    b"show unique": NO_SHOW,
    b"show nothing": NO_SHOW,
    b"show jobs now": NO_SHOW,
    b"show unique jobs now": NO_SHOW,
    b"create": INCOMPLETE % b"create",
    b"create function": INCOMPLETE % b"create",
    b"create function f g": INCOMPLETE % b"create",
    b"create job f": INCOMPLETE % b"create",
    b"create f": INCOMPLETE % b"create",
    b"drop": INCOMPLETE % b"drop",
    b"drop function": INCOMPLETE % b"drop",
    b"drop function f g": INCOMPLETE % b"drop",
    b"drop job f": INCOMPLETE % b"drop",
    b"drop function nope": b"ERR function not found\r\n",
    b"cancel": UNKNOWN % b"cancel",
    b"cancel job": UNKNOWN % b"cancel",
    b"cancel function": UNKNOWN % b"cancel",
    b"cancel job H:1 H:2": NO_CANCEL,
    b"cancel function f": NO_CANCEL,
    b"cancel job H:nowhere:1": b"ERR UNKNOWN_JOB\r\n",
    b"maxqueue": INCOMPLETE % b"maxqueue",
    b"maxqueue nope": b"OK\r\n",
    b"maxqueue nope 1 2 3": b"OK\r\n",
    b"status now": b".\n",
    b"status ": b".\n",
    b"STATUS": b".\n",
    b"prioritystatus  now": b".\n",
    b"Show Jobs": b".\n",
    b"show UNIQUE jobs": b".\n",
}


@pytest.mark.parametrize("line", MISUSES)
def test_misuse_is_answered_as_gearmand_does(admin: Caller, line: bytes) -> None:
    assert admin.command(line) == MISUSES[line]
    assert admin.command(line + b"\r") == MISUSES[line]


@pytest.mark.peers
def test_gearmand_answers_misuse_like_this(gearmand_c: ForeignServer) -> None:
    for line, answer in MISUSES.items():
        end = b".\n" if answer == b".\n" else b"\r\n"
        assert gearmand_c.ask(line, end) == answer, line


@pytest.mark.peers
def test_gearmand_answers_the_whole_list_of_commands_in_these_shapes(
    gearmand_c: ForeignServer,
) -> None:
    """Every command of gearmand, with a function made before: line by line the same shape."""
    admin = World(EngineConfig(version="1.2")).caller("10.0.0.1")

    def shape(answer: bytes) -> bytes:
        answer = re.sub(rb"\d+", b"0", answer)
        return re.sub(rb"^(OK) \S+\n$", rb"\1 value\n", answer)

    assert gearmand_c.ask(b"create function f\r") == admin.command(b"create function f")
    for command in COMMANDS:
        if command.origin != "gearmand" or command.args or command.name == "workers":
            continue
        line = command.name.encode()
        theirs = gearmand_c.ask(line, b".\n" if command.is_list else b"\n")
        assert shape(admin.command(line)) == shape(theirs), line
    theirs = gearmand_c.ask(b"workers", b".\n")
    assert re.fullmatch(rb"\d+ 127\.0\.0\.1 - :\n\.\n", theirs)
    assert admin.command(b"workers") == b"1 10.0.0.1 - :\n.\n"
    assert gearmand_c.ask(b"drop function f") == admin.command(b"drop function f")


def test_misuse_of_words_too_many_does_not_close(admin: Caller) -> None:
    assert admin.command(b"maxqueue f 1 2 3 4") == INCOMPLETE % b"maxqueue"
    assert admin.command(b"a b c d e f g h") == UNKNOWN % b"a"
    assert admin.peer.closed is None


def test_a_command_word_of_odd_bytes_is_shown_without_them(admin: Caller) -> None:
    assert admin.command(b"\x1b[2J\x07") == UNKNOWN % b"\\x1b[2J\\x07"
