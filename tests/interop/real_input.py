"""Thousands of real files through three real workers, of which one is killed while it works.

The files are the documentation of the machine at hand; the client is a PHP program, the workers
are the tool `gearman` running `sha256sum`. When a third of the answers are there, the next job's
command stands still; its worker is killed with SIGKILL; the server has to give the job to another.

As a script, with progress: python -m tests.interop.real_input [--server trigear] [--files N]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import pathlib
import queue
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.conftest import PeerTools
from tests.interop import servers
from tests.interop.peers import PROGRAMS, Lines, limit_output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Documentation first; a slim image has little of it and needs the rest.
ROOTS = ("/usr/share/doc", "/usr/share/man", "/usr/share/info", "/usr/share/perl", "/usr/share")
LARGEST = 4_000_000  # bytes; the few files above tell nothing more
FILES = 2_000
BYTES = 20_000_000
WORKERS = 3
SILENCE_SECONDS = 30.0


@dataclass
class Outcome:
    """What happened, for the closing line and for the test."""

    files: int
    size: int
    right: int
    wrong: list[str]
    runs: int
    killed_while_holding: bool
    running_when_killed: int
    seconds: float

    @property
    def run_again(self) -> int:
        return self.runs - self.files

    def __str__(self) -> str:
        return (
            f"{self.files} files, {self.size / 1e6:.1f} MB, {WORKERS} workers, one killed while it "
            f"held a job: {self.right} answers right, {len(self.wrong)} wrong, "
            f"{self.run_again} job(s) run again, {self.seconds:.1f} s"
        )


def documents(at_least: int = FILES) -> list[pathlib.Path]:
    """So many different files, taken evenly from the first roots that together have enough."""
    found: dict[pathlib.Path, None] = {}
    for root in ROOTS:
        for directory, _, files in os.walk(root):
            for name in files:
                path = pathlib.Path(directory, name)
                if path.is_file() and not path.is_symlink() and "\n" not in name:
                    with contextlib.suppress(OSError):
                        if path.stat().st_size <= LARGEST and os.access(path, os.R_OK):
                            found[path] = None
        if len(found) >= at_least:
            break
    everything = sorted(found)
    if len(everything) < at_least and sum(path.stat().st_size for path in everything) < BYTES:
        raise RuntimeError(f"only {len(everything)} files below {', '.join(ROOTS)}")
    count = min(at_least, len(everything))
    return [everything[index * len(everything) // count] for index in range(count)]


@contextlib.contextmanager
def hashing_workers(
    server: servers.Server, directory: pathlib.Path
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Three times `gearman -w`, each running the hash command for one job after the other."""
    tool = [str(PeerTools.gearman), "-w", "-h", server.host, "-p", str(server.port), "-f", "hash"]
    command = [*tool, "/bin/sh", str(PROGRAMS / "hash_worker.sh"), str(directory)]
    with (directory / "workers.log").open("wb") as log:
        workers = [
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            for _ in range(WORKERS)
        ]
    for worker in workers:
        limit_output(worker)
    try:
        servers.wait_until(
            "three workers", lambda: server.functions().get("hash", (0, 0, 0))[2] == WORKERS
        )
        yield workers
    finally:
        for worker in workers:
            servers.stop(worker)


class Victim:
    """The worker that is to die: made to hold a job, seen holding it, killed."""

    def __init__(
        self,
        server: servers.Server,
        workers: list[subprocess.Popen[bytes]],
        directory: pathlib.Path,
    ) -> None:
        self._server = server
        self._workers = {worker.pid: worker for worker in workers}
        self._directory = directory
        self._gate = directory / "gate"
        os.mkfifo(self._gate)
        self.asked = False
        self.dead = False
        self.running = 0

    def ask(self) -> None:
        """Have the next job's command stand at the gate."""
        (self._directory / "hold").touch()
        self.asked = True

    def kill_if_holding(self) -> bool:
        """Kill the worker whose command stands at the gate; False if none stands there yet."""
        try:
            gate = os.open(self._gate, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False
        holder = self._workers[int((self._directory / "holder").read_text())]
        self.running = self._server.functions()["hash"][1]
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        os.close(gate)  # the orphaned command ends, whoever reads its answer
        self.dead = True
        return True


def hash_all(
    server: servers.Server,
    files: list[pathlib.Path],
    directory: pathlib.Path,
    report: Callable[[str], None],
) -> Outcome:
    """Have all files hashed at this server and compare every answer."""
    start = time.monotonic()
    expected = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    answers: dict[str, str] = {}
    wrong = []
    with hashing_workers(server, directory) as workers:
        victim = Victim(server, workers, directory)
        listing = directory / "listing"
        listing.write_text("".join(f"{path}\n" for path in files))
        with listing.open("rb") as paths:
            client = subprocess.Popen(
                [PeerTools.php, PROGRAMS / "hash_client.php", server.host, str(server.port)],
                stdin=paths,
                stdout=subprocess.PIPE,
            )
        assert client.stdout is not None
        lines = Lines(client.stdout)
        last_answer = time.monotonic()
        while True:
            if victim.asked and not victim.dead and victim.kill_if_holding():
                report(f"killed one worker of {WORKERS}; the server counted {victim.running} busy")
            try:
                line = lines.next(0.02)
            except queue.Empty:
                if time.monotonic() > last_answer + SILENCE_SECONDS:
                    servers.stop(client)
                    break
                continue
            if line is None:
                break
            last_answer = time.monotonic()
            digest, _, path = line.decode().rstrip("\n").partition(" ")
            if path in answers or expected.get(path) != digest:
                wrong.append(f"{path}: {digest}")
            answers[path] = digest
            if len(answers) >= len(files) // 3 and not victim.asked:
                victim.ask()
            if len(answers) % 250 == 0:
                report(f"{len(answers)} of {len(files)} answers")
        lines.join()
        client.wait()
        runs = len((directory / "starts").read_text().splitlines())
    return Outcome(
        files=len(files),
        size=sum(path.stat().st_size for path in files),
        right=sum(answers.get(path) == digest for path, digest in expected.items()),
        wrong=wrong,
        runs=runs,
        killed_while_holding=victim.dead,
        running_when_killed=victim.running,
        seconds=time.monotonic() - start,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Hash real files with workers that die.")
    parser.add_argument("--server", choices=sorted(servers.COMMANDS), default="trigear")
    parser.add_argument("--files", type=int, default=FILES)
    arguments = parser.parse_args()
    files = documents(arguments.files)
    with tempfile.TemporaryDirectory() as scratch:
        directory = pathlib.Path(scratch)
        name = arguments.server
        with servers.running(name, servers.COMMANDS[name], directory) as server:
            outcome = hash_all(server, files, directory, lambda text: print(text, flush=True))
    print(f"{name}: {outcome}")
    good = outcome.right == outcome.files and not outcome.wrong and outcome.run_again > 0
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
