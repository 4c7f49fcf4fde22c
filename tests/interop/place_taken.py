"""gearmand's place taken under programs that run: the servers change, the programs do not.

In a network namespace of its own Debian's gearmand is started the way Debian starts it, then
workers and clients that know no address. gearmand is stopped, this project's `gearmand` is started
with the same options, and the same workers, which have not been touched, serve the same clients.

As a script: python -m tests.interop.place_taken (prints what happened as JSON)
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from tests.conftest import PeerTools
from tests.interop import namespace, raw, servers
from tests.interop.peers import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVERS = {
    "gearmand": PeerTools.gearmand,
    "trigear": pathlib.Path(sys.executable).with_name("gearmand"),
}
FUNCTIONS = ("php_reverse", "php_count", "perl_reverse", "perl_count")
# A Perl worker looks for its server at least every twelve seconds.
RETURN_SECONDS = 40.0


def workers_of(function: str) -> int:
    for line in raw.text_command(servers.HOST, namespace.DEFAULT_PORT, "status"):
        name, _, _, workers = line.split("\t")
        if name == function:
            return int(workers)
    return 0


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its parent does not."""
    with contextlib.suppress(FileNotFoundError):
        return " Z " not in pathlib.Path(f"/proc/{pid}/stat").read_text()
    return False


@contextlib.contextmanager
def daemon(program: pathlib.Path, directory: pathlib.Path) -> Iterator[dict[str, object]]:
    """The server started as Debian's service does it; ended by SIGTERM to the pid in its file."""
    notes: dict[str, object] = {}
    pid_file = directory / "gearmand.pid"
    done = subprocess.run(
        [
            program,
            f"--pid-file={pid_file}",
            "--listen=localhost",
            "--daemon",
            f"--log-file={directory / 'gearmand.log'}",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    notes["start status"] = done.returncode
    if done.returncode != 0:
        raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")
    servers.wait_until("the pid file", lambda: pid_file.exists() and pid_file.read_text())
    pid = int(pid_file.read_text())
    servers.wait_until("an answer", lambda: servers.answers(servers.HOST, namespace.DEFAULT_PORT))
    notes["pid told"] = raw.text_command(servers.HOST, namespace.DEFAULT_PORT, "getpid") == [
        f"OK {pid}"
    ]
    try:
        yield notes
    finally:
        os.kill(pid, signal.SIGTERM)
        servers.wait_until("the end of the server", lambda: not alive(pid))
    notes["pid file left"] = pid_file.exists()


def run_clients() -> list[str]:
    """What the two clients print."""
    lines = []
    for command in (
        [PeerTools.php, PROGRAMS / "app_client.php"],
        [PeerTools.perl, PROGRAMS / "app_client.pl"],
    ):
        done = subprocess.run(
            [*command, *FUNCTIONS], capture_output=True, text=True, check=False, timeout=30
        )
        lines += (done.stdout + done.stderr).splitlines()
        lines.append(f"exit status {done.returncode}")
    return lines


def change_servers() -> dict[str, dict[str, object]]:
    """Serve the same programs with one server after the other."""
    namespace.bring_loopback_up()
    notes: dict[str, dict[str, object]] = {}
    workers: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        directory = pathlib.Path(scratch)
        for name, program in SERVERS.items():
            with daemon(program, directory) as its:
                if not workers:
                    for command in (
                        [PeerTools.php, PROGRAMS / "app_worker.php"],
                        [PeerTools.perl, PROGRAMS / "app_worker.pl"],
                    ):
                        workers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
                        stack.callback(servers.stop, workers[-1])
                servers.wait_until(
                    f"the workers at {name}",
                    lambda: all(workers_of(function) == 1 for function in FUNCTIONS),
                    RETURN_SECONDS,
                )
                its["printed"] = run_clients()
            its["workers alive"] = [worker.poll() is None for worker in workers]
            notes[name] = its
    return notes


if __name__ == "__main__":
    print(json.dumps(change_servers(), indent=1))
