"""What becomes of the programs of a worker process that is killed outright."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.cli.at_work import ROOT, AtWork, alive, beginning, wait_until, write
from tests.cli.conftest import PATIENCE, TRIGEAR, Running
from trigear.cli.orphans import Group, Orphans, Programs
from trigear.cli.report import Status
from trigear.cli.supervisor import Child, Supervisor
from trigear.cli.worker_plan import WorkerPlan
from trigear.runtime.blocking import BlockingClient, connect_blocking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


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


@pytest.mark.parametrize("stubborn", [False, True])
def test_programs_do_not_outlive_the_process_that_ran_them(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path, *, stubborn: bool
) -> None:
    # The program, what it started, and how they take being told to end.
    trap = "trap '' TERM; " if stubborn else ""
    script = f"{trap}echo $$; sleep 600 & echo $!; while true; do sleep 600; done"
    worker = begin("-f", "job", "-N", *ROOT, "--", "sh", "-c", script, cwd=folder)
    (killed,) = worker.processes()
    job = client.job("job", b"")
    shell, sleeper = (int(next(job).data) for _ in range(2))  # type: ignore[union-attr]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not alive(shell) and not alive(sleeper))
    worker.read_until(f"program {shell} has outlived its worker process: told to end")
    if stubborn:
        worker.read_until(f"program {shell} does not end: killed")
    # The job begins again, in the process that took over.
    assert int(next(job).data) != shell  # type: ignore[union-attr]
    job.forget()


def test_programs_do_not_outlive_a_worker_that_is_stopped_at_once(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path
) -> None:
    worker = begin("-f", "job", "-N", *ROOT, "--", "sh", "-c", "echo $$; sleep 600", cwd=folder)
    job = client.job("job", b"")
    shell = int(next(job).data)  # type: ignore[union-attr]
    (process,) = worker.processes()
    os.kill(process, signal.SIGSTOP)  # it cannot tell its program anything
    worker.send(signal.SIGINT)
    worker.read_until("draining")
    worker.send(signal.SIGINT)
    assert worker.wait() == Status.INTERRUPTED
    wait_until(lambda: not alive(shell))
    job.forget()


def test_programs_that_have_ended_are_left_alone(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path
) -> None:
    script = "sleep 600 > /dev/null & echo $!"
    worker = begin("-f", "job", *ROOT, "--", "sh", "-c", script, cwd=folder)
    # What a job leaves behind on purpose is no business of the supervisor's.
    with connect_blocking(client.address, timeout=PATIENCE) as other:
        sleeper = int(other.submit("job", b""))
    try:
        (process,) = worker.processes()
        os.kill(process, signal.SIGKILL)
        worker.read_until("another starts in")
        assert alive(sleeper)
        assert not any("told to end" in line for line in worker.lines)
    finally:
        os.kill(sleeper, signal.SIGKILL)


def test_words_that_come_in_pieces_are_understood() -> None:
    plan = WorkerPlan(servers=(), folder="/")
    supervisor = Supervisor(plan, 1, lambda: None)
    mine, theirs = socket.socketpair()
    sleeper = subprocess.Popen(["sleep", "600"], start_new_session=True)
    with mine, theirs:
        child = Child(sleeper, mine, supervisor.slots[0], 0.0)
        said = f"R+{sleeper.pid};D".encode()
        for place in range(len(said)):
            supervisor._understand(child, said[place : place + 1])
        assert child.ready
        assert child.leaving
        assert [group.number for group in child.programs.take()] == [sleeper.pid]
        # What is no word of ours is passed over.
        supervisor._understand(child, b"x" * 1000 + b"+1;" * 2)
        assert len(child.said) <= 16
    sleeper.kill()
    sleeper.wait()


def test_group_that_is_gone_is_not_told_anything(caplog: pytest.LogCaptureFixture) -> None:
    sleeper = subprocess.Popen(["sleep", "600"], start_new_session=True)
    programs, orphans = Programs(None), Orphans()
    programs.began(sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    orphans.adopt(programs.take(), time.monotonic())
    assert not orphans
    assert caplog.text == ""


def test_number_that_is_given_again_is_not_taken_for_the_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The leader has ended, and another process leads a group under its number."""
    first = subprocess.Popen(["true"], start_new_session=True)
    group = Group(first.pid)
    first.wait()
    second = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        monkeypatch.setattr(group, "number", second.pid)
        assert group.is_gone
    finally:
        second.kill()
        second.wait()
        group.close()


def test_orphans_are_let_go_of_where_nobody_else_does() -> None:
    """As the first process of a container does: orphans are its children."""
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", REAPING],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "left: []\n", done.stderr


REAPING = """
import os, subprocess, time
from trigear.cli.supervisor import reap_strangers

assert os.getpid() == 1
mine = subprocess.Popen(["sleep", "600"])
subprocess.run(["sh", "-c", "sleep 0.1 & exec true"])
give_up = time.monotonic() + 30
while time.monotonic() < give_up:
    reap_strangers({mine.pid})
    left = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    left = [pid for pid in left if pid not in (1, mine.pid)]
    if not left:
        break
    time.sleep(0.02)
print("left:", left)
mine.kill()
"""
