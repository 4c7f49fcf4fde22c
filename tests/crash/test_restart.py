"""What is there again after a server was killed and started anew."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ForeignServer, free_port, run_gearmand_c, wait_until_it_answers
from tests.crash.process import PATIENCE, TRIGEAR, DurableServer
from trigear.wire.packets import (
    CAN_DO,
    GRAB_JOB_ALL,
    GRAB_JOB_UNIQ,
    JOB_ASSIGN_ALL,
    JOB_ASSIGN_UNIQ,
    JOB_CREATED,
    NO_JOB,
    NOOP,
    PRE_SLEEP,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_EPOCH,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW_BG,
    SUBMIT_REDUCE_JOB_BACKGROUND,
    WORK_COMPLETE,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import PeerTools
    from tests.crash.process import Link

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DurableServer]:
    with DurableServer(tmp_path) as running:
        yield running


def submit(link: Link, number: int, *args: bytes) -> bytes:
    link.send(number, *args)
    said, handle = link.receive()
    assert said == JOB_CREATED
    return handle


def grab(link: Link, number: int = GRAB_JOB_UNIQ) -> tuple[int, list[bytes]]:
    link.send(number)
    said, payload = link.receive()
    return said, payload.split(b"\0", 3 if said == JOB_ASSIGN_UNIQ else 4)


def after_a_kill(server: DurableServer) -> Link:
    server.kill()
    server.start()
    link = server.link()
    link.send(CAN_DO, b"f")
    return link


def test_background_jobs_survive_a_kill_with_handle_unique_workload_and_order(server):
    with server.link() as client:
        handles = [
            submit(client, number, b"f", b"u%d" % place, b"work\0%d" % place)
            for place, number in enumerate(
                [SUBMIT_JOB_LOW_BG, SUBMIT_JOB_BG, SUBMIT_JOB_BG, SUBMIT_JOB_HIGH_BG]
            )
        ]
    with after_a_kill(server) as worker:
        for place in (3, 1, 2, 0):
            said, args = grab(worker)
            assert said == JOB_ASSIGN_UNIQ
            assert args == [handles[place], b"f", b"u%d" % place, b"work\0%d" % place]
            worker.send(WORK_COMPLETE, handles[place], b"")
        assert grab(worker)[0] == NO_JOB


def test_an_empty_workload_and_a_reducer_survive(server):
    with server.link() as client:
        plain = submit(client, SUBMIT_JOB_BG, b"f", b"", b"")
        reduced = submit(client, SUBMIT_REDUCE_JOB_BACKGROUND, b"f", b"", b"sum", b"0", b"w")
    with after_a_kill(server) as worker:
        assert grab(worker, GRAB_JOB_ALL) == (JOB_ASSIGN_UNIQ, [plain, b"f", b"", b""])
        assert grab(worker, GRAB_JOB_ALL) == (JOB_ASSIGN_ALL, [reduced, b"f", b"", b"sum", b"w"])


def test_a_job_for_later_survives_and_still_waits_for_its_time(server):
    due = int(time.time()) + 4
    with server.link() as client:
        later = submit(client, SUBMIT_JOB_EPOCH, b"f", b"", b"%d" % due, b"later")
        never = submit(client, SUBMIT_JOB_EPOCH, b"f", b"", b"99999999999", b"never")
    with after_a_kill(server) as worker:
        # Unless starting took until then, it is not yet there.
        early = grab(worker)[0]
        if early == NO_JOB:
            worker.send(PRE_SLEEP)
            assert worker.receive()[0] == NOOP
            assert time.time() >= due
            worker.send(GRAB_JOB_UNIQ)
            assert worker.receive()[1].startswith(later)
        assert grab(worker)[0] == NO_JOB
        assert never.decode() in "".join(worker.command("jobs"))


def test_a_running_job_runs_again_and_a_finished_one_does_not(server):
    with server.link() as client, server.link() as worker:
        done, running = (submit(client, SUBMIT_JOB_BG, b"f", b"", b"w") for _ in range(2))
        worker.send(CAN_DO, b"f")
        assert grab(worker)[1][0] == done
        worker.send(WORK_COMPLETE, done, b"")
        assert grab(worker)[1][0] == running
        # Written in the order in which it happened: with this reply the end is on the disk, too.
        last = submit(client, SUBMIT_JOB_BG, b"f", b"", b"w")
    with after_a_kill(server) as worker:
        assert [grab(worker)[1][0], grab(worker)[1][0]] == [running, last]
        assert grab(worker)[0] == NO_JOB


def test_a_foreground_job_dies_with_the_server(server):
    with server.link() as client:
        submit(client, SUBMIT_JOB, b"f", b"", b"w")
    with after_a_kill(server) as worker:
        assert grab(worker)[0] == NO_JOB


def test_a_foreground_job_that_was_joined_in_the_background_survives(server):
    with server.link() as client:
        handle = submit(client, SUBMIT_JOB, b"f", b"u", b"w")
        assert submit(client, SUBMIT_JOB_BG, b"f", b"u", b"w") == handle
    with after_a_kill(server) as worker:
        assert grab(worker)[1][0] == handle


def test_a_unique_attracts_after_the_restart_as_before(server):
    with server.link() as client:
        handle = submit(client, SUBMIT_JOB_BG, b"f", b"u", b"w")
    with after_a_kill(server) as client:
        assert submit(client, SUBMIT_JOB_BG, b"f", b"u", b"w") == handle
        assert submit(client, SUBMIT_JOB_BG, b"f", b"v", b"w") != handle


def test_handles_do_not_come_again(server):
    handles: list[bytes] = []
    for _ in range(3):
        with server.link() as client:
            handles += [submit(client, SUBMIT_JOB_BG, b"f", b"", b"w") for _ in range(5)]
        server.kill()
        server.start()
    assert len(set(handles)) == 15


def test_lost_attempts_are_not_forgotten(server):
    with server.link() as client:
        handle = submit(client, SUBMIT_JOB_BG, b"f", b"", b"w")
        for _ in range(2):
            with server.link() as worker:
                worker.send(CAN_DO, b"f")
                assert grab(worker)[1][0] == handle
        # The losses stand before this in the order of writing.
        with server.link() as watcher:
            while f"{handle.decode()}\t2\t" not in "\n".join(watcher.command("show jobs")):
                pass
        submit(client, SUBMIT_JOB_BG, b"g", b"", b"w")
    with after_a_kill(server) as watcher:
        assert f"{handle.decode()}\t2\t0\t1" in watcher.command("show jobs")


def test_the_start_says_where_the_jobs_are_and_how_many(server):
    assert f"store: sqlite {server.database};" in server.lines[-1]
    with server.link() as client:
        for _ in range(3):
            submit(client, SUBMIT_JOB_BG, b"f", b"", b"w")
    server.kill()
    assert f"store: sqlite {server.database}, 3 jobs in it;" in server.start()
    assert "loaded 3 jobs in" in "".join(server.lines)


def test_a_graceful_stop_leaves_the_queue_in_one_file(server):
    with server.link() as client:
        submit(client, SUBMIT_JOB_BG, b"f", b"", b"w")
    assert "stopped" in server.stop()
    assert [path.name for path in sorted(server.database.parent.iterdir())] == [
        "jobs.sqlite3",
        "jobs.sqlite3.lock",
    ]
    assert server.database.parent.stat().st_mode & 0o777 == 0o700
    assert "1 job in it" in server.start()


def test_a_second_server_in_the_same_place_is_refused_and_the_first_named(server, tmp_path):
    other = tmp_path / "other.sock"
    done = subprocess.run(
        [
            *(*TRIGEAR, "server", "--listen", f"unix:{other}"),
            *("--state-dir", str(server.database.parent)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"store {server.database}: it belongs to another server" in line
    assert f"(pid {server.pid} at unix:{server.path})" in line
    assert not other.exists()
    with server.link() as client:
        submit(client, SUBMIT_JOB_BG, b"f", b"", b"w")


def test_rows_that_are_no_jobs_are_named_and_the_others_served(server):
    with server.link() as client:
        for number in range(3):
            submit(client, SUBMIT_JOB_BG, b"f", b"", b"%d" % number)
    server.kill()
    with closing(sqlite3.connect(server.database)) as connection, connection:
        connection.execute("UPDATE job SET priority = 9 WHERE workload = x'31'")
    server.start()
    said = "".join(server.lines)
    assert "is no job and stays there: priority 9 does not exist" in said
    assert "1 row of the store makes no sense; it stays there" in said
    with server.link() as worker:
        worker.send(CAN_DO, b"f")
        assert [grab(worker)[1][3], grab(worker)[1][3]] == [b"0", b"2"]
    server.stop()
    with closing(sqlite3.connect(server.database)) as connection:
        assert connection.execute("SELECT count(*) FROM job").fetchone() == (3,)


def test_a_full_disk_refuses_background_jobs_and_nothing_else(tmp_path):
    # The limit of a file's length stands for the end of the disk.
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000,) * 2); "
    code = f"{limit}from trigear.cli import main; sys.argv[0] = 'trigear'; main()"
    with DurableServer(tmp_path, program=(TRIGEAR[0], "-c", code)) as server:
        with server.link() as client:
            first = submit(client, SUBMIT_JOB_BG, b"f", b"", b"fits")
            client.send(SUBMIT_JOB_BG, b"f", b"", b"x" * 1_000_000)
            said, words = client.receive()
            assert (said, words.split(b"\0")[0]) == (19, b"QUEUE_ERROR")
            submit(client, SUBMIT_JOB, b"f", b"", b"x" * 1_000_000)
            second = submit(client, SUBMIT_JOB_BG, b"f", b"", b"fits, too")
        with after_a_kill(server) as worker:
            assert [grab(worker)[1][0], grab(worker)[1][0]] == [first, second]


@pytest.mark.peers
def test_a_queue_that_gearmand_left_is_not_taken_for_ours(tmp_path: Path, peer_tools: PeerTools):
    queue, port = tmp_path / "queue.sqlite3", free_port()
    place = [f"--port={port}", "--log-file=stderr", f"--pid-file={tmp_path}/x.pid"]
    sqlite = ["-q", "libsqlite3", f"--libsqlite3-db={queue}"]
    theirs = ForeignServer(
        "127.0.0.1",
        port,
        subprocess.Popen(
            [str(peer_tools.gearmand), "--listen=127.0.0.1", *place, *sqlite],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ),
    )
    try:
        assert wait_until_it_answers(theirs)
        tool = [str(peer_tools.gearman), "-h", "127.0.0.1", "-p", str(port), "-f", "f", "-b"]
        subprocess.run([*tool, "-u", "u", "work"], check=True, capture_output=True)
    finally:
        theirs.stop()
    before = queue.read_bytes()
    ours = [
        [*TRIGEAR, "server", "--listen", f"unix:{tmp_path}/x", "--store", f"sqlite://{queue}"],
        [*TRIGEAR, "server", "--compat", "gearmand-2", "--listen=127.0.0.1", *place, *sqlite],
    ]
    for command in ours:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        assert done.returncode == 1
        assert "gearmand's table 'gearman_queue' is in it, with 1 job" in done.stderr
        assert "name another file, and take them into it with 'trigear store import'" in done.stderr
    assert queue.read_bytes() == before


@pytest.mark.peers
def test_jobs_move_from_gearmand_to_trigear_and_back(tmp_path: Path, peer_tools: PeerTools):
    queue = tmp_path / "queue.sqlite3"
    sqlite = ["-q", "libsqlite3", f"--libsqlite3-db={queue}"]
    theirs = run_gearmand_c(peer_tools, tmp_path / "gearmand.log", *sqlite)
    try:
        tool = [str(peer_tools.gearman), "-h", "127.0.0.1", "-p", str(theirs.port), "-f", "f", "-b"]
        for word in ("first", "second"):
            subprocess.run([*tool, "-u", word, word], check=True, capture_output=True)
    finally:
        theirs.stop()
    server = DurableServer(tmp_path)
    server.database.parent.mkdir()
    where = ["--store", f"sqlite://{server.database}"]
    import_ = [*TRIGEAR, "store", "import", str(queue), "--yes", *where]
    done = subprocess.run(import_, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert "imported 2 jobs" in done.stderr
    with server:
        with server.link() as worker:
            worker.send(CAN_DO, b"f")
            handle, _, unique, workload = grab(worker)[1]
            assert (unique, workload.strip()) == (b"first", b"first")
            worker.send(WORK_COMPLETE, handle, b"")
        with server.link() as client:
            submit(client, SUBMIT_JOB_BG, b"f", b"", b"")
            submit(client, SUBMIT_JOB_EPOCH, b"f", b"", b"4102444800", b"late")
    back = tmp_path / "back.sqlite3"
    export = [*TRIGEAR, "store", "export", "--gearmand", str(back), *where]
    done = subprocess.run(export, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert "3 jobs written" in done.stderr
    theirs = run_gearmand_c(
        peer_tools, tmp_path / "back.log", "-q", "libsqlite3", f"--libsqlite3-db={back}"
    )
    try:
        assert theirs.ask(b"status", b".\n") == b"f\t3\t0\t0\n.\n"
    finally:
        theirs.stop()


def test_gearmands_face_keeps_its_queue_in_the_file_that_is_named(tmp_path: Path):
    queue = tmp_path / "queue.sqlite3"
    options = ["--compat", "gearmand-2", "-q", "libsqlite3", f"--libsqlite3-db={queue}"]
    server = DurableServer(tmp_path, options=options, face=True)
    with server:
        with server.link() as client:
            handle = submit(client, SUBMIT_JOB_BG, b"f", b"", b"w")
        with after_a_kill(server) as worker:
            assert grab(worker)[1][0] == handle
        assert f"store: sqlite {queue}, 1 job in it" in server.lines[-1]
