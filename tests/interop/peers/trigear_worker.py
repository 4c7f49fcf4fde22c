"""A worker program on trigear.

Arguments: host port id specification, the last one JSON:
{"functions": {name: behaviour}, "log": path}.
"""

from __future__ import annotations

import json
import re
import sys

import trio

from trigear.runtime.worker import Worker, WorkerJob


async def hold(workload: bytes) -> None:
    if found := re.match(rb"wait=([^;]+);", workload):
        await trio.Path(found[1].decode()).read_bytes()  # a FIFO: ends when the test says so


def worker_for(functions: dict[str, str], log: str) -> Worker:
    worker = Worker()

    async def reverse(job: WorkerJob) -> bytes:
        return job.workload[::-1]

    async def fail(job: WorkerJob) -> bytes:
        raise ValueError(job.workload.decode())

    async def steps(job: WorkerJob) -> bytes:
        await job.status(1, 4)
        await hold(job.workload)
        await job.status(3, 4)
        return b"done"

    async def record(job: WorkerJob) -> bytes:
        await hold(job.workload)
        entry = {"workload": job.workload.decode(), "unique": job.unique.decode()}
        async with await trio.open_file(log, "a") as file:
            await file.write(json.dumps(entry) + "\n")
        return job.workload

    behaviours = {"reverse": reverse, "raise": fail, "steps": steps, "record": record}
    for name, behaviour in functions.items():
        worker.register(name, behaviours[behaviour])
    return worker


def main() -> None:
    host, port, _, text = sys.argv[1:]
    worker = worker_for(**json.loads(text))
    trio.run(worker.run, f"{host}:{port}")


if __name__ == "__main__":
    main()
