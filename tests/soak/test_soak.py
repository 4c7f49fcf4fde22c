"""Thousands of jobs through four worker processes: crashes, late jobs, cancelled ones, new code.

Every job must be accounted for, nothing may be left running, and memory must stay flat. An ordinary
run is short; `nox -s soak`, or TRIGEAR_SOAK_JOBS, makes it long.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.cli.conftest import TRIGEAR, Running
from trigear.errors import JobFailed, JobRaised
from trigear.protocol.events import Data
from trigear.runtime.client import Client, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

JOBS = int(os.environ.get("TRIGEAR_SOAK_JOBS", "600"))
AT_ONCE = 64
SECONDS = 60 + JOBS / 20
ROOT = ["--allow-root"] if os.geteuid() == 0 else []

# What of a thousand jobs is of which kind; the rest is simply done.
KINDS = {"thread": 200, "fail": 20, "raise": 20, "late": 10, "endless": 10, "crash": 2}

MEMORY_SLACK = 16 << 20
"""Bytes that the server may grow while it holds no more jobs than before."""

WORKER_SLACK = 2 << 20
"""Bytes that a worker process may grow from the first third of the run to its end."""


def memory_of(pid: int) -> int:
    """Bytes of it in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children_of(pid: int) -> set[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return set(map(int, listed.stdout.split()))


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[tuple[Running, Running]]:
    """A server, and a supervisor of four worker processes."""
    with ExitStack() as readers, ExitStack() as stack:

        def start(*args: str, until: str) -> Running:
            process = subprocess.Popen(
                [*TRIGEAR, *args],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parent,
                env={**os.environ, "SOAK_TRACES": str(tmp_path / "traces")},
            )
            running = Running(process)
            stack.callback(stop, running.process)
            running.address = running.read_until(until)
            # So that it is never held up by what it says.
            reader = threading.Thread(target=read_all, args=(running,))
            reader.start()
            readers.callback(reader.join)
            return running

        (tmp_path / "traces").mkdir()
        server = start("server", "--port", "0", until=" listening on ")
        server.address = server.address.split(" listening on ")[1].split(";")[0].split(", ")[0]
        workers = start(
            *("worker", "soak_jobs:worker", "--server", server.address, "--processes", "4", *ROOT),
            until="at work: ",
        )
        yield server, workers


class Soak:
    """The jobs, and what became of them."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.ends: Counter[tuple[str, str]] = Counter()
        self.done = 0
        self.memory: list[int] = []

    async def job(self, kind: str, number: int) -> None:
        workload = b"%s-%d" % (kind.encode(), number)
        try:
            if kind == "endless":
                end = await self.cancel(workload)
            else:
                end = "right" if await self.client.submit(kind, workload) == workload else "wrong"
        except JobFailed:
            end = "failed"
        except JobRaised as error:
            end = "raised" if error.data == b"ValueError: " + workload else repr(error.data)
        self.ends[kind, end] += 1
        self.done += 1

    async def at_work(self, processes: set[int]) -> bool:
        """Whether the server knows all of these as workers: they have loaded what they need."""
        names = [line.split()[2] for line in await self.client.admin("workers") if line[-1] != ":"]
        return processes <= {int(name.rpartition("-")[2]) for name in names}

    async def cancel(self, workload: bytes) -> str:
        asked = False
        async with self.client.open_job("endless", workload) as job:
            async for update in job:
                # It says that it has begun twice if its process crashes in between.
                if isinstance(update, Data) and not asked:
                    asked = True
                    await self.client.admin(f"cancel job {job.handle.decode()}")
            await job.result()
        return "completed"


async def test_every_job_is_accounted_for(
    processes: tuple[Running, Running], tmp_path: Path
) -> None:
    server, workers = processes
    draw = random.Random(17)
    share = [kind for kind, count in KINDS.items() for _ in range(count)]
    kinds = draw.choices([*share, *["echo"] * (1000 - len(share))], k=JOBS)
    # New code comes in the first fifth, and all but three crashes: so that of its processes, warm
    # after a third of the run, at least one lives until the end and shows whether it grows.
    fifth, third = JOBS // 5, JOBS // 3
    kinds[fifth:] = ["echo" if kind == "crash" else kind for kind in kinds[fifth:]]
    kinds[JOBS // 10 :: JOBS // 4] = ["crash"] * len(kinds[JOBS // 10 :: JOBS // 4])
    wanted = {
        **dict.fromkeys(["echo", "thread", "late", "crash"], "right"),
        **dict.fromkeys(["fail", "endless"], "failed"),
        "raise": "raised",
    }
    jobs = iter(enumerate(kinds))
    async with connect(server.address) as client:
        soak = Soak(client)

        async def submit(these: Iterator[tuple[int, str]]) -> None:
            for number, kind in these:
                await soak.job(kind, number)
                if soak.done % (JOBS // 20) == 0:
                    soak.memory.append(memory_of(server.process.pid))
                if soak.done == JOBS // 10:
                    workers.send(signal.SIGHUP)

        async def submit_until(end: int) -> None:
            these = itertools.islice(jobs, end - soak.done)
            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(submit, these)

        with trio.fail_after(SECONDS):
            old = await four(workers)
            await submit_until(fifth)
            while old & (new := await four(workers)) or not await soak.at_work(new):
                await trio.sleep(0.05)
            await submit_until(third)
            warm = {pid: memory_of(pid) for pid in new}
            await submit_until(JOBS)
            # Every submission has had its own end.
            expected = Counter((kind, wanted[kind]) for kind in kinds)
            assert soak.ends == expected
            # Nothing is left: no job at the server, no handler at work.
            while left := list((tmp_path / "traces").glob("running-*")):
                alive = {int(path.name.rpartition("-")[2]) for path in left}
                if not any(map(is_there, alive)):
                    break  # what a crash left is a file, not a handler
                await trio.sleep(0.05)
            for line in await client.admin("status"):
                assert line.split("\t")[1:3] == ["0", "0"], line
            half = len(soak.memory) // 2
            assert max(soak.memory[half:]) < max(soak.memory[:half]) + MEMORY_SLACK
            there = await four(workers)
            print(f"\nserver: {[size >> 10 for size in soak.memory]} KiB")
            growth = []
            for pid in warm.keys() & there:
                growth.append(memory_of(pid) - warm[pid])
                print(f"worker {pid}: {warm[pid] >> 10} KiB after a third, then {growth[-1]:+}")
            assert growth
            assert max(growth) < WORKER_SLACK
            workers.send(signal.SIGTERM)
    assert await trio.to_thread.run_sync(workers.process.wait) == 0
    assert not any(map(is_there, there))
    log = "".join(workers.lines)
    assert log.count("killed by SIGKILL") == kinds.count("crash")
    assert log.count("SIGHUP: starting new worker processes") == 1


async def four(workers: Running) -> set[int]:
    """The worker processes; one that crashed is replaced after a while."""
    while len(there := children_of(workers.process.pid)) != 4:
        await trio.sleep(0.05)
    return there


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def read_all(running: Running) -> None:
    """Read what it says until it ends."""
    assert running.process.stderr is not None
    with running.process.stderr as lines:
        for line in lines:
            running.lines.append(line)


def stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
