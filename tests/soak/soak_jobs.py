"""The worker of the soak test: jobs of every kind, some of which go wrong the first time."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import trio

from trigear import JobFailed, Worker, WorkerJob

worker = Worker(max_jobs=8)
traces = Path(os.environ["SOAK_TRACES"])


def first_time(job: WorkerJob) -> bool:
    """Whether this job was never begun before, in any process."""
    try:
        os.close(os.open(traces / job.workload.decode(), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


@worker.function("echo")
async def echo(job: WorkerJob) -> bytes:
    await trio.lowlevel.checkpoint()
    return job.workload


@worker.function("thread")
def thread(job: WorkerJob) -> bytes:
    return job.workload


@worker.function("fail")
async def fail(job: WorkerJob) -> bytes:
    raise JobFailed


@worker.function("raise")
async def raise_error(job: WorkerJob) -> bytes:
    raise ValueError(job.workload.decode())


@worker.function("crash")
async def crash(job: WorkerJob) -> bytes:
    if first_time(job):
        os.kill(os.getpid(), signal.SIGKILL)
    return job.workload


@worker.function("late", timeout=0.3)
async def late(job: WorkerJob) -> bytes:
    if first_time(job):
        await trio.sleep_forever()
    return job.workload


@worker.function("endless")
async def endless(job: WorkerJob) -> bytes:
    """Runs until it is cancelled, and says so. A crash of its process may begin it anew."""
    await job.data(b"begun")
    running = traces / f"running-{job.workload.decode()}-{os.getpid()}"
    running.touch()
    try:
        await trio.sleep_forever()
    finally:
        running.unlink()
    raise AssertionError
