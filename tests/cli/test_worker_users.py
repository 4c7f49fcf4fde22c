"""`trigear worker --run-as` and `--chroot`: who does the jobs, and where."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.cli.at_work import AtWork, beginning, wait_until, write
from tests.cli.conftest import PATIENCE, TRIGEAR, Running
from trigear.cli.orphans import Orphans, Programs
from trigear.cli.report import Status
from trigear.runtime.blocking import BlockingClient, connect_blocking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GREEDY = """
import os
from trigear import Worker

worker = Worker()
gained = 0
for regain in os.seteuid, os.setuid, os.setegid, os.setgid:
    try:
        regain(0)
        gained += 1
    except PermissionError:
        pass
users = os.getresuid()

@worker.function("tried")
def tried(job):
    return f"{gained} {users}".encode()
"""


@pytest.fixture
def server(start: Callable[..., Running]) -> Running:
    return start(*TRIGEAR, "server", "--port", "0")


@pytest.fixture
def client(server: Running) -> Iterator[BlockingClient]:
    with connect_blocking(server.address, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "one")
    return tmp_path


@pytest.fixture
def begin(server: Running) -> Iterator[Callable[..., AtWork]]:
    with beginning(server.address) as begin:
        yield begin


# Other users


def test_jobs_are_done_as_another_user(
    as_root: None, begin: Callable[..., AtWork], client: BlockingClient, open_folder: Path
) -> None:
    write(open_folder, "one")
    worker = begin("jobs:worker", "--run-as", "nobody:games", cwd=open_folder)
    uid, gid, folder, _ = client.submit("whoami", b"").split(b" ", 3)
    expected = pwd.getpwnam("nobody").pw_uid, grp.getgrnam("games").gr_gid
    assert (int(uid), int(gid), folder) == (*expected, bytes(open_folder))
    # Each new process becomes that user, too.
    worker.send(signal.SIGHUP)
    worker.read_until("took over from")
    assert client.submit("whoami", b"").startswith(b"%d %d " % expected)


@pytest.mark.parametrize("jail", [[], ["--chroot", "/"]])
def test_a_link_in_place_of_the_log_gives_no_more_rights(
    as_root: None, begin: Callable[..., AtWork], open_folder: Path, jail: list[str]
) -> None:
    treasure = open_folder / "treasure"
    treasure.write_text("of root")
    logs = open_folder / "logs"
    logs.mkdir()
    os.chown(logs, pwd.getpwnam("nobody").pw_uid, -1)
    (logs / "w.log").symlink_to(treasure)
    args = ["-f", "job", "--run-as", "nobody", "-l", str(logs / "w.log"), *jail]
    worker = begin(*args, "cat", cwd=open_folder, waiting=False)
    assert worker.wait() == Status.NOT_ALLOWED
    assert "w.log: Permission denied" in worker.lines[-1]
    assert treasure.read_text() == "of root"


def test_a_log_is_written_as_the_user_who_does_the_jobs(
    as_root: None, begin: Callable[..., AtWork], open_folder: Path
) -> None:
    log = open_folder / "w.log"
    begin("-f", "job", "--run-as", "nobody", "-l", str(log), "cat", cwd=open_folder, waiting=False)
    wait_until(lambda: log.exists() and "at work: 1 process" in log.read_text())
    assert log.stat().st_uid == pwd.getpwnam("nobody").pw_uid


def test_jobs_are_done_in_another_root(
    as_root: None, begin: Callable[..., AtWork], client: BlockingClient, open_folder: Path
) -> None:
    write(open_folder, "one")
    jail = open_folder / "jail"
    (jail / "inside").mkdir(parents=True)
    write(jail / "inside", "one")
    args = ["jobs:worker", "--run-as", "nobody", "--chroot", ".."]
    begin(*args, cwd=jail / "inside")
    uid, _, folder, there = client.submit("whoami", b"").split(b" ", 3)
    assert (int(uid) != 0, folder, there) == (True, b"/", b"inside")


def test_code_outside_the_root_is_not_loaded(
    as_root: None, begin: Callable[..., AtWork], open_folder: Path
) -> None:
    write(open_folder, "one")
    (open_folder / "jail").mkdir()
    args = ["jobs:worker", "--run-as", "nobody", "--chroot", "jail"]
    worker = begin(*args, cwd=open_folder, waiting=False)
    assert worker.wait() == Status.USAGE
    (line,) = worker.lines
    assert f"no module 'jobs' inside the root {open_folder}/jail" in line


@pytest.mark.parametrize("root", [[], ["--chroot", "."]])
def test_imported_code_cannot_become_root(
    as_root: None,
    begin: Callable[..., AtWork],
    client: BlockingClient,
    open_folder: Path,
    root: list[str],
) -> None:
    (open_folder / "greedy.py").write_text(GREEDY)
    begin("greedy:worker", "--run-as", "nobody", *root, cwd=open_folder)
    nobody = pwd.getpwnam("nobody").pw_uid
    assert client.submit("tried", b"") == f"0 ({nobody}, {nobody}, {nobody})".encode()


def test_a_command_runs_in_another_root(
    as_root: None, begin: Callable[..., AtWork], client: BlockingClient, open_folder: Path
) -> None:
    jail = open_folder / "jail"
    jail.mkdir()
    build_id(jail)
    begin("-f", "id", "--run-as", "nobody", "--chroot", str(jail), "/id", cwd=open_folder)
    assert client.submit("id", b"") == b"65534 /\n"


def build_id(jail: Path) -> None:
    """A program that needs nothing else in its root: who runs it, and where."""
    source = jail.parent / "id.c"
    source.write_text(
        "#include <stdio.h>\n#include <unistd.h>\n"
        'int main(void) { char b[99]; printf("%d %s\\n", (int)getuid(), getcwd(b, 99)); }\n'
    )
    subprocess.run(["cc", "-static", "-o", jail / "id", source], check=True)


# The supervisor


NOBODY = pwd.getpwnam("nobody").pw_uid


@pytest.fixture(scope="module")
def open_python() -> tuple[str, dict[str, str]]:
    """A Python that every user may run, with trigear and what it needs, and its environment."""
    env = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"}
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run(
                [python, "-c", "import trigear.cli.worker_process, trio"],
                user=NOBODY,
                env=os.environ | env,
                cwd="/",
                capture_output=True,
                check=True,
            )
            return python, env
    pytest.fail("no Python here that another user may run, with trigear and Trio")


def user_of(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        (line,) = (line for line in status if line.startswith("Uid:"))
    (uid,) = set(map(int, line.split()[1:]))  # none of the four is another
    return uid


def test_no_process_stays_root_where_none_has_to(
    as_root: None,
    begin: Callable[..., AtWork],
    client: BlockingClient,
    open_folder: Path,
    open_python: tuple[str, dict[str, str]],
) -> None:
    write(open_folder, "one")
    python, env = open_python
    pid_file = open_folder / "pid"
    args = ["jobs:worker", "--run-as", "nobody", "--pid-file", str(pid_file)]
    worker = begin(*args, cwd=open_folder, program=(python, "-m", "trigear"), **env)
    assert client.submit("whoami", b"").startswith(b"%d " % NOBODY)
    assert user_of(worker.process.pid) == NOBODY
    assert {user_of(pid) for pid in worker.processes()} == {NOBODY}
    # It replaces processes and ends as ever.
    worker.send(signal.SIGHUP)
    worker.read_until("took over from")
    assert client.submit("whoami", b"").startswith(b"%d " % NOBODY)
    worker.send(signal.SIGTERM)
    assert worker.wait() == Status.DONE
    assert not any("stays root" in line for line in worker.lines)
    assert pid_file.read_text() == ""  # the folder is root's: it may not be removed


def test_supervisor_stays_root_where_the_user_could_start_no_process(
    as_root: None, begin: Callable[..., AtWork], client: BlockingClient, open_folder: Path
) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    worker = begin("-f", "id", "--run-as", "nobody", "--", "id", "-u", cwd=closed)
    said = "".join(worker.lines)
    assert "the supervisor stays root: user 'nobody' has no access to " in said
    assert user_of(worker.process.pid) == 0
    assert {user_of(pid) for pid in worker.processes()} == {NOBODY}


def test_supervisor_stays_root_where_processes_change_their_root(
    as_root: None, begin: Callable[..., AtWork], open_folder: Path
) -> None:
    args = ["-f", "id", "--run-as", "nobody", "--chroot", "/", "--log-level", "debug", "id"]
    worker = begin(*args, cwd=open_folder)
    assert user_of(worker.process.pid) == 0
    assert any("which only root can do" in line for line in worker.lines)
    assert {user_of(pid) for pid in worker.processes()} == {NOBODY}


def test_supervisor_that_is_root_believes_in_no_groups_of_others(
    as_root: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Code that does jobs can say anything on the channel, and ends nobody but its own."""
    roots = subprocess.Popen(["sleep", "600"], start_new_session=True)
    theirs = subprocess.Popen(["sleep", "600"], start_new_session=True, user=NOBODY)
    try:
        programs = Programs(NOBODY)
        for process in (roots, theirs):
            programs.began(process.pid)
        programs.began(2**30)  # nobody at all
        (group,) = programs.take()
        assert group.number == theirs.pid
        assert f"process group {roots.pid} is not of user {NOBODY}: left alone" in caplog.text
        orphans = Orphans()
        orphans.adopt([group], time.monotonic())
        assert theirs.wait(PATIENCE) == -signal.SIGTERM
        orphans.look(time.monotonic())
        assert not orphans
        assert roots.poll() is None
    finally:
        roots.kill()
        roots.wait()
        theirs.kill()
        theirs.wait()
