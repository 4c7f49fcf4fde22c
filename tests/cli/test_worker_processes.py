"""`trigear worker` as real processes: crashes, replacements, new code, signals, other users."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.at_work import ROOT, AtWork, alive, beginning, wait_until, write
from tests.cli.conftest import PATIENCE, TRIGEAR, Running
from trigear.cli.report import Status
from trigear.cli.worker_plan import WorkerPlan
from trigear.errors import JobFailed
from trigear.protocol.events import Data
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


# Ends


def test_a_stopped_worker_finishes_its_jobs(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path
) -> None:
    worker = begin("jobs:worker", *ROOT, cwd=folder)
    job = client.job("wait", str(folder / "go").encode())
    next(job)
    worker.send(signal.SIGTERM)
    worker.read_until("SIGTERM: draining")
    (folder / "go").touch()
    assert job.result() == b"begunone"
    assert worker.wait() == Status.DONE


def test_a_second_signal_does_not_wait(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path
) -> None:
    worker = begin("jobs:worker", *ROOT, cwd=folder)
    job = client.job("wait", str(folder / "go").encode())
    next(job)
    worker.send(signal.SIGINT)
    worker.read_until("SIGINT: draining")
    worker.send(signal.SIGINT)
    assert worker.wait() == Status.INTERRUPTED
    # The job is not lost with its worker.
    (folder / "go").touch()
    begin("jobs:worker", *ROOT, cwd=folder)
    assert job.result() == b"begunbegunone"


def test_jobs_that_take_too_long_for_the_grace_go_to_others(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path
) -> None:
    worker = begin("jobs:worker", "--grace", "0.1", *ROOT, cwd=folder)
    job = client.job("wait", str(folder / "go").encode())
    next(job)
    worker.send(signal.SIGTERM)
    assert worker.wait() == Status.DONE
    (folder / "go").touch()
    begin("jobs:worker", *ROOT, cwd=folder)
    assert job.result() == b"begunbegunone"


def test_a_worker_ends_after_so_many_jobs(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path
) -> None:
    worker = begin("-f", "upper", "-c", "2", *ROOT, "--", "tr", "a-z", "A-Z", cwd=folder)
    assert [client.submit("upper", b"a"), client.submit("upper", b"b")] == [b"A", b"B"]
    assert worker.wait() == Status.DONE


def test_nothing_is_left_when_the_supervisor_is_killed(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path
) -> None:
    worker = begin("jobs:worker", "--processes", "2", *ROOT, cwd=folder)
    there = worker.processes()
    assert len(there) == 2
    worker.process.kill()
    wait_until(lambda: not any(alive(pid) for pid in there))


# Crashes and replacements


def test_a_process_that_crashes_is_replaced_and_its_job_done_again(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path
) -> None:
    worker = begin("jobs:worker", *ROOT, cwd=folder)
    assert client.submit("crash", b"") == b"at last"
    line = worker.read_until("another starts in")
    assert "killed by SIGKILL" in line
    assert (folder / "crashed").read_text() == "xx"


def test_a_process_is_replaced_after_so_many_jobs(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path
) -> None:
    begin("jobs:worker", "--max-jobs", "2", *ROOT, cwd=folder)
    pids = [client.submit("version", b"").split()[1] for _ in range(6)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4] == pids[5]


def test_a_process_that_uses_too_much_memory_is_replaced(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path
) -> None:
    worker = begin("jobs:worker", "--max-memory", "100MB", *ROOT, cwd=folder)
    first = client.submit("grow", b"")
    worker.read_until("retires")
    worker.read_until("is at work")
    wait_until(lambda: client.submit("version", b"").split()[1] != first)


# New code


def test_new_code_takes_over_and_no_job_is_lost(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path
) -> None:
    worker = begin("jobs:worker", *ROOT, cwd=folder)
    job = client.job("wait", str(folder / "go").encode())
    next(job)
    write(folder, "two")
    worker.send(signal.SIGHUP)
    worker.read_until("took over from")
    # The job in hand is finished by the old code, the next one is done by the new.
    assert client.submit("version", b"").startswith(b"two")
    (folder / "go").touch()
    assert job.result() == b"begunone"


def test_new_code_has_taken_over_only_when_the_old_takes_no_more_jobs(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path
) -> None:
    worker = begin("jobs:worker", *ROOT, cwd=folder)
    (old,) = worker.processes()
    os.kill(old, signal.SIGSTOP)
    worker.send(signal.SIGHUP)
    worker.read_until("is at work")
    worker.send(signal.SIGHUP)
    worker.read_until("SIGHUP: starting new worker processes")
    assert not [line for line in worker.lines if "took over" in line]
    os.kill(old, signal.SIGCONT)
    assert worker.read_until("took over from").endswith(f"took over from {old}\n")
    assert not client.submit("version", b"").endswith(b" %d" % old)


def test_new_code_that_does_not_come_up_changes_nothing(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path
) -> None:
    worker = begin("jobs:worker", *ROOT, cwd=folder)
    (folder / "jobs.py").write_text("1/0")
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    worker.send(signal.SIGHUP)
    assert "importing jobs raised ZeroDivisionError" in worker.read_until("error:")
    worker.read_until("does not come up (exit status 2); the old one goes on")
    assert client.submit("version", b"").startswith(b"one")
    write(folder, "two")
    worker.send(signal.SIGHUP)
    worker.send(signal.SIGHUP)
    worker.read_until("took over from")
    wait_until(lambda: client.submit("version", b"").startswith(b"two"))


def test_new_code_is_found_where_a_link_leads_now(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path
) -> None:
    for release in "one", "two":
        (folder / release).mkdir()
        write(folder / release, release)
    current = folder / "current"
    current.symlink_to("one")
    worker = begin("jobs:worker", *ROOT, cwd=current, PWD=str(current))
    assert client.submit("version", b"").startswith(b"one")
    (folder / "next").symlink_to("two")
    (folder / "next").rename(current)
    worker.send(signal.SIGHUP)
    worker.read_until("took over from")
    wait_until(lambda: client.submit("version", b"").startswith(b"two"))


def test_a_process_that_cannot_be_started_ends_no_other(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path
) -> None:
    code = folder / "code"
    code.mkdir()
    write(code, "one")
    worker = begin("jobs:worker", *ROOT, cwd=code)
    code.rename(folder / "gone")
    worker.send(signal.SIGHUP)
    line = worker.read_until("no worker process can be started")
    assert f"{code}: No such file or directory; trying again in" in line
    assert "the old one goes on" in line
    assert client.submit("version", b"").startswith(b"one")
    code.mkdir()
    write(code, "two")
    worker.read_until("took over from")
    wait_until(lambda: client.submit("version", b"").startswith(b"two"))
    worker.send(signal.SIGTERM)
    assert worker.wait() == Status.DONE


# Starting


@pytest.mark.parametrize(
    ("target", "code", "says"),
    [
        ("none:worker", "", "none:worker: no module 'none': start where it can be imported from"),
        ("bad:worker", "import no_such_thing", "bad needs the module 'no_such_thing'"),
        ("bad:worker", "x = ", "bad.py, line 1); --debug shows more"),
        ("bad:worker", "\n1/0", "importing bad raised ZeroDivisionError: division by zero ("),
        ("bad:worker", "\n1/0", "bad.py, line 2); --debug shows more"),
        (
            "bad:worker",
            "import trigear, trio\nworker = trigear.Worker()\nworker.register('f', len)\n"
            "trio.run(worker.run, 'localhost')",
            "bad runs its worker while it is imported, and `trigear worker` would run it: put that"
            " line under `if __name__ == '__main__':`",
        ),
        ("bad:worker", "", "module 'bad' has no 'worker'; it has no Worker"),
        ("jobs:wroker", "", "module 'jobs' has no 'wroker'; its workers: worker"),
        ("bad:worker", "worker = 3", "bad:worker: this is no trigear.Worker, but of the type int"),
        (
            "bad:worker",
            "from trigear import Worker\nworker = Worker()",
            "bad:worker: has no functions: give it one with @worker.function(...)",
        ),
    ],
)
def test_what_is_no_worker_is_told_in_one_line(
    begin: Callable[..., AtWork], folder: Path, target: str, code: str, says: str
) -> None:
    (folder / "bad.py").write_text(code)
    worker = begin(target, *ROOT, cwd=folder, waiting=False)
    assert worker.wait() == Status.USAGE
    (line,) = worker.lines
    assert says in line


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["-f", "upper", "no-such-program"], "no program 'no-such-program' on the PATH"),
        (["-f", "upper", "./none"], "there is no program './none' that can be run"),
        (["jobs:worker", "-f", "upper"], "'jobs:worker' on the PATH; a worker in Python has no -f"),
    ],
)
def test_a_program_that_is_not_there_is_told_before_any_job(
    begin: Callable[..., AtWork], folder: Path, command: list[str], says: str
) -> None:
    worker = begin(*ROOT, *command, cwd=folder, waiting=False)
    assert worker.wait() == Status.USAGE
    (line,) = worker.lines
    assert says in line


def test_a_worker_without_a_server_waits_for_one(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*TRIGEAR, "worker", "-p", str(port), "-f", "upper", *ROOT, "cat"],
        stderr=subprocess.PIPE,
        text=True,
    )
    worker = AtWork(process)
    try:
        line = worker.read_until("trying again in")
        assert f"no connection to localhost:{port}: Connection refused" in line
        assert "is a server running there?" in line
        worker.send(signal.SIGTERM)
        assert worker.wait() == Status.DONE
    finally:
        worker.kill()


@pytest.mark.parametrize("how", ["told", "left alone", "left alone before it began"])
def test_a_process_that_never_found_a_server_ends_normally(how: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    plan = WorkerPlan((f"127.0.0.1:{port}",), "/", functions=("upper",), command=("cat",))
    mine, theirs = socket.socketpair()
    with mine, theirs:
        if how == "left alone before it began":
            mine.close()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "trigear.cli.worker_process", str(theirs.fileno())],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            text=True,
        )
        theirs.close()
        worker = AtWork(process)
        try:
            assert process.stdin is not None
            with process.stdin:
                process.stdin.write(plan.to_json().decode())
            if how != "left alone before it began":
                worker.read_until("trying again in")
            if how == "told":
                worker.send(signal.SIGTERM)
            mine.close()
            assert worker.wait() == Status.DONE
            assert not any("error:" in line for line in worker.lines)
        finally:
            worker.kill()


def test_a_service_manager_is_told(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(PATIENCE)
        worker = begin("jobs:worker", *ROOT, cwd=folder, NOTIFY_SOCKET=str(folder / "notify"))
        assert manager.recv(100) == b"READY=1"
        worker.send(signal.SIGTERM)
        assert manager.recv(100) == b"STOPPING=1"
        assert worker.wait() == Status.DONE


def test_a_daemon_returns_when_it_is_at_work(
    server: Running, client: BlockingClient, folder: Path
) -> None:
    done = subprocess.run(
        [
            *(*TRIGEAR, "worker", "--server", server.address, "-d", "-i", "pid", "-l", "log"),
            *("-f", "upper", *ROOT, "tr", "a-z", "A-Z"),
        ],
        cwd=folder,
        # To the end of its output: nothing of the daemon may hold on to it.
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, (folder / "log").read_text()
    assert done.stdout + done.stderr == b""
    pid = int((folder / "pid").read_text())
    try:
        assert client.submit("upper", b"abc") == b"ABC"
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not (folder / "pid").exists())
    assert "at work: 1 process" in (folder / "log").read_text()


# Commands


def test_a_command_does_the_jobs(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path
) -> None:
    begin("-f", "job", "-N", "-t", "20000", *ROOT, "sh", "-c", "cat; exit 3", cwd=folder)
    job = client.job("job", b"a\nb\n")
    assert [update.data for update in job if isinstance(update, Data)] == [b"a", b"b"]
    with pytest.raises(JobFailed):
        job.result()


def test_without_a_command_workloads_are_printed(
    begin: Callable[..., AtWork], client: BlockingClient, folder: Path
) -> None:
    worker = begin("-f", "print", *ROOT, cwd=folder)
    assert client.submit("print", b"to be seen\n") == b""
    assert worker.process.stdout is not None
    assert worker.process.stdout.readline() == "to be seen\n"


def test_a_supervisor_loads_no_event_loop_and_no_code_of_others() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import sys, trigear.cli.worker, trigear.cli.supervisor; print('trio' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
