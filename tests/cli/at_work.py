"""`trigear worker` as real processes, for the tests of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from tests.cli.conftest import PATIENCE, TRIGEAR, Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROOT = ["--allow-root"] if os.geteuid() == 0 else []

JOBS = """
import os, signal, time
from trigear import Worker

worker = Worker(max_jobs=4)

@worker.function("version")
def version(job):
    return b"%(version)s %%d" %% os.getpid()

@worker.function("crash")
def crash(job):
    with open("crashed", "a") as file:
        file.write("x")
    if os.path.getsize("crashed") < 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return b"at last"

@worker.function("wait")
async def wait(job):
    import trio
    await job.data(b"begun")
    while not os.path.exists(job.workload.decode()):
        await trio.sleep(0.01)
    return b"%(version)s"

@worker.function("grow")
def grow(job):
    worker.ballast = bytearray(100_000_000)
    return b"%%d" %% os.getpid()

@worker.function("whoami")
def whoami(job):
    there = b" ".join(map(os.fsencode, os.listdir("/")))
    return b"%%d %%d %%s %%s" %% (os.getuid(), os.getgid(), os.getcwd().encode(), there)
"""


class AtWork(Running):
    """A running `trigear worker`."""

    def wait_for_start(self) -> None:
        self.read_until("at work: ")

    def processes(self) -> set[int]:
        """The worker processes there are."""
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)],
            capture_output=True,
            text=True,
            check=False,
        )
        return set(map(int, listed.stdout.split()))


def write(folder: Path, version: str) -> None:
    (folder / "jobs.py").write_text(JOBS % {"version": version})
    # A module that changes twice in a second looks the same to the cache of compiled code.
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)


@contextlib.contextmanager
def beginning(server: str) -> Iterator[Callable[..., AtWork]]:
    """Start workers for a server; with ``waiting`` only when they say that they are at work."""
    with contextlib.ExitStack() as stack:

        def run(
            *args: str,
            cwd: Path,
            waiting: bool = True,
            program: tuple[str, ...] = tuple(TRIGEAR),
            **env: str,
        ) -> AtWork:
            process = subprocess.Popen(
                [*program, "worker", "--server", server, *args],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=cwd,
                env={**os.environ, **env},
            )
            running = AtWork(process)
            stack.callback(end, running)
            if waiting:
                running.wait_for_start()
            return running

        yield run


def end(running: AtWork) -> None:
    running.kill()
    if running.process.stdout is not None:
        running.process.stdout.close()


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)  # a process of processes that are not ours has no event to wait for
