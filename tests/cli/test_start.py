"""Servers as real processes: how they start, what they say, how they end."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import trigear as package
from tests.cli.conftest import GEARMAND, PATIENCE, TRIGEAR, ask
from trigear.model import COMPILED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Peer, Running

pytestmark = pytest.mark.slow

CAN_DO, JOB_CREATED, SUBMIT_JOB, GRAB_JOB, JOB_ASSIGN = 1, 8, 7, 9, 11
WORK_COMPLETE, WORK_FAIL, SUBMIT_JOB_BG, ERROR = 13, 14, 18, 19
CLOSED = -1

SERVER = [*TRIGEAR, "server", "--listen", "127.0.0.1", "--port", "0", "--store", "memory"]
FACE = [*GEARMAND, "--listen", "127.0.0.1", "--port", "0", "--log-file", "stderr"]


@pytest.fixture
def pid_file(tmp_path: Path) -> Path:
    return tmp_path / "server.pid"


@pytest.fixture
def face(pid_file: Path) -> list[str]:
    """gearmand's face, with a log and a pid file that are ours."""
    return [*FACE, "--pid-file", str(pid_file)]


def fails(*command: str, cwd: Path | None = None) -> tuple[int, str]:
    """Status and the one line of a server that does not start."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PATIENCE, cwd=cwd
    )
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr


# Start


def test_server_says_what_it_is_and_where(start: Callable[..., Running]) -> None:
    server = start(*SERVER)
    line = server.lines[-1]
    compiled = " (compiled)" if COMPILED else ""
    assert f"trigear {package.__version__}{compiled} listening on 127.0.0.1:" in line
    assert "store: memory (queued jobs do not survive a stop)" in line
    assert line.rstrip().endswith(f"; pid {server.process.pid}")


def test_server_answers_for_itself(start: Callable[..., Running]) -> None:
    server = start(*SERVER)
    assert server.ask("version") == f"OK {package.__version__}\n"
    assert server.ask("getpid") == f"OK {server.process.pid}\n"
    assert server.ask("verbose") == "OK INFO\n"


def test_gearmands_face_answers_as_gearmand_two(
    start: Callable[..., Running], face: list[str]
) -> None:
    server = start(*face, "--verbose", "NOTICE")
    assert server.ask("version") == f"OK 2.0.0+trigear.{package.__version__}\n"
    assert server.ask("verbose") == "OK NOTICE\n"


def test_gearmands_face_says_the_one_default_that_differs(
    start: Callable[..., Running], pid_file: Path
) -> None:
    server = start(*GEARMAND, "-p", "0", "-l", "stderr", "-P", str(pid_file))
    assert "serving this machine only" in "".join(server.lines)
    assert "--insecure-open widens it" in "".join(server.lines)


def test_option_of_trigear_gives_the_same_face(
    start: Callable[..., Running], pid_file: Path
) -> None:
    options = ["-L", "127.0.0.1", "-p", "0", "-l", "stderr", "-P", str(pid_file)]
    server = start(*TRIGEAR, "server", "--compat", "gearmand-2", *options)
    assert server.ask("version").startswith("OK 2.0.0+trigear.")


def test_several_addresses_are_served_at_once(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    server = start(*SERVER, "--listen", f"unix:{tmp_path}/x.sock", "--listen", "[::1]:0")
    found = server.lines[-1].split(" listening on ")[1].split(";")[0].split(", ")
    assert len(found) == 3
    assert {ask(address, "getpid") for address in found} == {f"OK {server.process.pid}\n"}


def test_open_server_warns_what_that_means(start: Callable[..., Running]) -> None:
    server = start(*TRIGEAR, "server", "-L", "0.0.0.0", "-p", "0", "--insecure-open")
    assert "WARNING  open to other machines without authentication: 0.0.0.0:0" in server.lines[0]


def test_warning_is_seen_wherever_the_log_goes(
    start: Callable[..., Running], pid_file: Path
) -> None:
    options = ["-L", "0.0.0.0", "-p", "0", "-l", "none", "-P", str(pid_file), "--insecure-open"]
    server = start(*GEARMAND, *options)
    assert server.lines[0].startswith("gearmand: warning: open to other machines")


def test_json_log_has_one_object_per_line_and_nothing_else(start: Callable[..., Running]) -> None:
    server = start(*SERVER, "--log-format", "json")
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    found = [json.loads(line) for line in server.lines]
    assert {"time", "level", "logger", "message"} <= set(found[0])
    assert found[-1]["message"].startswith("stopped")


def test_log_lines_in_gearmands_face_look_like_gearmands(
    start: Callable[..., Running], face: list[str]
) -> None:
    server = start(*face, "--verbose=INFO")
    assert re.match(r"   INFO \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} \[  main \] ", server.lines[-1])


def test_log_file_of_gearmands_face_that_cannot_be_opened_becomes_stderr(
    start: Callable[..., Running], pid_file: Path
) -> None:
    options = ["-L", "127.0.0.1", "-p", "0", "-l", "/absent/x.log", "-P", str(pid_file)]
    server = start(*GEARMAND, *options, "--verbose=INFO")
    assert "log file /absent/x.log: No such file or directory; logging to stderr" in server.lines[0]


# What does not start


@pytest.mark.parametrize("command", [[*TRIGEAR, "server"], GEARMAND], ids=["trigear", "gearmand"])
def test_port_in_use_is_one_line(command: list[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        pid_file = tmp_path / "first.pid"
        pid_file.write_text("12345\n")
        options = ["-L", "127.0.0.1", "-p", str(port), "-P", str(pid_file), "-l", "none"]
        status, line = fails(*command, *options)
    assert status == 1
    assert f"127.0.0.1:{port}" in line
    assert "in use" in line
    # The file of the server that holds the port is as it was.
    assert pid_file.read_text() == "12345\n"


@pytest.mark.parametrize("command", [[*TRIGEAR, "server"], GEARMAND], ids=["trigear", "gearmand"])
def test_address_of_another_machine_is_one_line(command: list[str], tmp_path: Path) -> None:
    options = ["-L", "192.0.2.1", "-P", str(tmp_path / "pid"), "-l", "none", "--insecure-open"]
    status, line = fails(*command, *options)
    assert status == 1
    assert "192.0.2.1" in line
    assert "this machine has no such address" in line


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["-L", "0.0.0.0"], 2, "--insecure-open"),
        (["-l", "/absent/x.log"], 1, "log file /absent/x.log: No such file"),
        (["-P", "/absent/x.pid"], 1, "pid file /absent/x.pid: No such file"),
        (["-L", "unix:/absent/x.sock"], 1, "unix:/absent/x.sock"),
        (["--file-descriptors", str(1 << 40)], 4, "--file-descriptors"),
        (["-u", "no-such-user"], 2, "no user 'no-such-user'"),
        (["--config", "/absent.toml"], 2, "/absent.toml"),
    ],
)
def test_what_cannot_be_had_is_one_line(args: list[str], status: int, words: str) -> None:
    ended, line = fails(*SERVER, *args)
    assert ended == status
    assert words in line


@pytest.mark.usefixtures("as_root")
def test_place_that_needs_more_rights_is_one_line(open_folder: Path) -> None:
    # The interpreter may be where only root can read: loaded as root, run as nobody.
    code = f"""
        import os, sys
        import trigear.cli.server
        from trigear.cli.root import run_trigear
        from trigear.cli.serve import load_modules
        load_modules()
        os.setgroups([]), os.setgid(65534), os.setuid(65534)
        sys.exit(run_trigear(["server", "-L", "unix:{open_folder}/x.sock"]))
    """
    status, line = fails(sys.executable, "-c", textwrap.dedent(code))
    assert status == 4
    assert f"unix:{open_folder}/x.sock: permission denied" in line


@pytest.mark.parametrize("face", [False, True], ids=["trigear", "gearmand"])
def test_server_that_broke_ends_with_the_status_for_its_supervisor(
    *, face: bool, pid_file: Path
) -> None:
    # The server finds out by itself that its queues are damaged; here it is told so.
    program = "gearmand" if face else "trigear"
    args = ["-L", "127.0.0.1", "-p", "0", "-l", "none", "-P", str(pid_file)]
    code = f"""
        import sys
        import trigear.runtime.server
        from trigear.cli.root import run_gearmand, run_trigear
        from trigear.errors import TrigearInternalError
        async def broken(config, sockets, *, task_status, **more):
            server = trigear.runtime.server.Server(None, None, ["nowhere"], config, None)
            task_status.started(server)
            raise TrigearInternalError("the queues are damaged")
        trigear.runtime.server.serve = broken
        sys.exit(run_{program}({args if face else ["server", *args]}))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 70
    assert done.stderr.endswith(f"{program}: error: the queues are damaged; please report it\n")
    assert not pid_file.exists()


def test_server_goes_on_when_nobody_reads_what_it_prints(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    config = tmp_path / "trigear.toml"
    config.write_text("")
    server = start(*SERVER, "--config", str(config), "-v")
    assert server.process.stderr is not None
    server.process.stderr.close()
    server.send(signal.SIGHUP)
    for _ in range(3):
        assert server.ask("version").startswith("OK")
    server.process.terminate()
    assert server.process.wait(timeout=PATIENCE) == 0


# Signals


class Pair:
    """A client that waits for a job and a worker that holds it."""

    def __init__(self, server: Running, peer: Callable[[Running], Peer]) -> None:
        self.worker, self.client = peer(server), peer(server)
        self.worker.send(CAN_DO, b"f")
        self.client.send(SUBMIT_JOB, b"f", b"", b"data")
        number, self.handle = self.client.receive()
        assert number == JOB_CREATED
        self.worker.send(GRAB_JOB)
        assert self.worker.receive()[0] == JOB_ASSIGN


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signal_lets_running_jobs_end_and_takes_no_more(
    number: signal.Signals, start: Callable[..., Running], peer: Callable[[Running], Peer]
) -> None:
    server = start(*SERVER)
    pair = Pair(server, peer)
    server.send(number)
    server.read_until(f"{number.name}: draining")
    pair.client.send(SUBMIT_JOB, b"f", b"", b"too late")
    refused, payload = pair.client.receive()
    assert refused == ERROR
    assert payload.startswith(b"SHUTDOWN_GRACEFUL\0")
    pair.worker.send(WORK_COMPLETE, pair.handle, b"done")
    assert pair.client.receive() == (WORK_COMPLETE, pair.handle + b"\0done")
    assert server.wait() == 0
    assert server.lines[-1].rstrip().endswith(f"stopped; pid {server.process.pid}")


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_does_not_wait_for_jobs(
    second: signal.Signals, start: Callable[..., Running], peer: Callable[[Running], Peer]
) -> None:
    server = start(*SERVER, "--grace", "24h")
    pair = Pair(server, peer)
    server.send(signal.SIGTERM)
    server.read_until("SIGTERM: draining")
    server.send(second)
    assert server.wait() == 130
    assert pair.client.receive()[0] == CLOSED


def test_grace_that_is_over_ends_the_wait(
    start: Callable[..., Running], peer: Callable[[Running], Peer]
) -> None:
    server = start(*SERVER, "--grace", "0")
    Pair(server, peer)
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    assert "grace" in "".join(server.lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_gearmands_face_stops_at_once(
    number: signal.Signals,
    start: Callable[..., Running],
    peer: Callable[[Running], Peer],
    face: list[str],
) -> None:
    server = start(*face)
    pair = Pair(server, peer)
    server.send(number)
    assert server.wait() == 0
    assert pair.client.receive()[0] == CLOSED


def test_gearmands_face_ends_after_sigusr1_when_no_job_is_left(
    start: Callable[..., Running], peer: Callable[[Running], Peer], face: list[str]
) -> None:
    server = start(*face, "--verbose=INFO")
    pair = Pair(server, peer)
    server.send(signal.SIGUSR1)
    server.read_until("SIGUSR1: draining")
    # Whoever is connected is served as before, and what they add is waited for.
    pair.client.send(SUBMIT_JOB_BG, b"f", b"", b"more")
    number, second = pair.client.receive()
    assert number == JOB_CREATED
    assert answer_to_a_newcomer(server) == ""
    pair.worker.send(WORK_COMPLETE, pair.handle, b"one")
    assert pair.client.receive() == (WORK_COMPLETE, pair.handle + b"\0one")
    pair.worker.send(GRAB_JOB)
    assert pair.worker.receive()[0] == JOB_ASSIGN
    pair.worker.send(WORK_COMPLETE, second, b"two")
    assert server.wait() == 0


def answer_to_a_newcomer(server: Running) -> str:
    try:
        return server.ask("version")
    except ConnectionError:  # refused, or reset by the listener that closed meanwhile
        return ""


def test_sighup_opens_the_log_anew(
    start: Callable[..., Running], tmp_path: Path, pid_file: Path
) -> None:
    path = tmp_path / "x.log"
    server = start(*SERVER, "-l", str(path))
    path.rename(tmp_path / "old.log")
    # In place of the new file a pipe, which can be waited for.
    os.mkfifo(path)
    with open(os.open(path, os.O_RDWR), encoding="utf-8") as pipe:
        server.send(signal.SIGHUP)
        assert "SIGHUP: log reopened" in pipe.readline()
        server.send(signal.SIGTERM)
        assert "SIGTERM: draining" in pipe.readline()
        assert server.wait() == 0
    assert " listening on " in (tmp_path / "old.log").read_text()


def test_sighup_takes_over_the_settings_of_functions(
    start: Callable[..., Running], peer: Callable[[Running], Peer], tmp_path: Path
) -> None:
    config = tmp_path / "trigear.toml"
    config.write_text("")
    server = start(*SERVER, "--config", "trigear.toml")
    config.write_text("[server]\nmax-packet = 4096\n[function.f]\nattempts = 1\n")
    server.send(signal.SIGHUP)
    line = server.read_until("SIGHUP: ")
    assert "configuration read; takes a restart: max_packet" in line
    pair = Pair(server, peer)
    pair.worker.close()
    assert pair.client.receive() == (WORK_FAIL, pair.handle)


def test_sighup_with_a_broken_file_changes_nothing(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    config = tmp_path / "trigear.toml"
    config.write_text("")
    server = start(*SERVER, "--config", str(config))
    config.write_text("[server]\nprot = 1\n")
    server.send(signal.SIGHUP)
    line = server.read_until("prot")
    assert "did you mean 'port'?; the old configuration stays" in line
    assert server.ask("version").startswith("OK")


# Pid file, daemon, user


def test_pid_file_is_there_while_the_server_runs(
    start: Callable[..., Running], pid_file: Path, face: list[str]
) -> None:
    pid_file.write_text("999999\n")
    server = start(*face)
    assert pid_file.read_text() == f"{server.process.pid}\n"
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    assert not pid_file.exists()


@pytest.fixture
def daemons(pid_file: Path) -> Iterator[Callable[..., tuple[int, str]]]:
    """Start a daemon, which is not our child; returns its process id and what was said."""
    pids: list[int] = []

    def run(*command: str, cwd: Path) -> tuple[int, str]:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE, cwd=cwd
        )
        assert done.returncode == 0, done.stderr
        pids.append(int(pid_file.read_text()))
        return pids[-1], done.stderr

    yield run
    for pid in pids:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)


def end_of(pid: int, number: signal.Signals) -> None:
    """Signal a process that is not our child, and wait until it has ended."""
    process = os.pidfd_open(pid)
    try:
        os.kill(pid, number)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        assert poll.poll(PATIENCE * 1000)
    finally:
        os.close(process)


@pytest.mark.parametrize(
    "command", [SERVER, [*GEARMAND, "-L", "127.0.0.1", "-p", "0", "--verbose=INFO"]]
)
def test_daemon_serves_when_the_command_returns(
    command: list[str], daemons: Callable[..., tuple[int, str]], tmp_path: Path, pid_file: Path
) -> None:
    # Relative paths are meant from where the command was given; the daemon itself sits in /.
    pid, said = daemons(*command, "-d", "-P", "server.pid", "-l", "server.log", cwd=tmp_path)
    assert os.getsid(pid) not in {0, os.getsid(0), pid}
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)] == ["/dev/null"] * 3
    assert f"pid {pid}" in said
    log = (tmp_path / "server.log").read_text()
    address = log.split(" listening on ")[1].split(";")[0]
    assert ask(address, "getpid") == f"OK {pid}\n"
    end_of(pid, signal.SIGTERM)
    assert not pid_file.exists()


def test_quiet_daemon_says_nothing(daemons: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/x.sock"
    options = ["--quiet", "-d", "-l", "none", "-P", "server.pid", "-L", address]
    pid, said = daemons(*TRIGEAR, "server", *options, cwd=tmp_path)
    assert said == ""
    assert ask(address, "getpid") == f"OK {pid}\n"
    end_of(pid, signal.SIGTERM)
    assert not (tmp_path / "x.sock").exists()


@pytest.mark.parametrize(
    ("command", "args", "status"),
    [
        (SERVER, [], 1),
        (SERVER, ["-P", "/absent/x.pid"], 1),
        (SERVER, ["-l", "/absent/x.log"], 1),
        ([*GEARMAND, "-L", "127.0.0.1"], [], 1),
    ],
    ids=["port", "pid file", "log file", "gearmand"],
)
def test_daemon_that_does_not_start_fails_where_it_was_called(
    command: list[str], args: list[str], status: int, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = "0" if args else str(taken.getsockname()[1])
        options = ["-d", "-p", port, "-P", str(tmp_path / "x.pid"), "-l", str(tmp_path / "log")]
        ended, line = fails(*command, *options, *args, cwd=tmp_path)
    assert ended == status
    assert "error: " in line


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("face", [False, True], ids=["trigear", "gearmand"])
def test_server_becomes_another_user(
    *, face: bool, start: Callable[..., Running], open_folder: Path
) -> None:
    log, pid_file, path = (open_folder / name for name in ("x.log", "x.pid", "x.sock"))
    state = ["--state-dir", str(open_folder / "state")]
    program = [*GEARMAND, "--verbose=INFO"] if face else [*TRIGEAR, "server", *state]
    options = ["-u", "nobody", "-L", f"unix:{path}", "-l", str(log), "-P", str(pid_file)]
    server = start(*program, *options)
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    nobody = "65534\t65534\t65534\t65534"
    assert (fields["Uid"], fields["Gid"], fields["Groups"].strip()) == (nobody, nobody, "")
    # What it will need as that user is that user's; the pid file was written as root.
    needed = [log, path] if face else [log, path, *(open_folder / "state").rglob("*")]
    assert {each.stat().st_uid for each in needed} == {65534}
    assert pid_file.read_text() == f"{server.process.pid}\n"
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    # It may not remove a file in root's folder any more, but it can make it name nobody.
    assert pid_file.read_text() == ""
