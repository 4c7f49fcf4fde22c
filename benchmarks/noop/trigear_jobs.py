"""trigear's workers: a handler on Trio, a plain function, one written for asyncio."""

from __future__ import annotations

import trigear

on_trio = trigear.Worker()
in_thread = trigear.Worker()
on_asyncio = trigear.Worker()


@on_trio.function("noop")
async def noop(job: trigear.WorkerJob) -> bytes:
    return job.workload


@in_thread.function("noop")
def noop_in_thread(job: trigear.ThreadJob) -> bytes:
    return job.workload


@on_asyncio.function("noop", asyncio=True)
async def noop_on_asyncio(job: trigear.AsyncioJob) -> bytes:
    return job.workload
