"""A worker process of `trigear demo`: `python -m trigear.cli.demo_worker ADDRESS FOLDER`.

Three kinds of real work. `count` counts the words of a document; a document that is no text raises.
`factor` takes a number apart by trial, says how far it has got, and says first of all who does it:
a job that was begun twice shows in its answer. `archive` compresses a document into a file, which
is all that remains of a background job.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trigear.errors import TrigearError

if TYPE_CHECKING:
    from trigear.runtime.worker import WorkerJob

FACTOR_STEPS: Final = 20
"""How often a `factor` job says how far it has got."""


def count_words(document: str) -> dict[str, int]:
    """How often each word stands in a document."""
    return dict(Counter(document.split()))


def divisor_between(number: int, first: int, last: int) -> int | None:
    """The least odd divisor of ``number`` from ``first`` to ``last``, or None."""
    for divisor in range(first | 1, last + 1, 2):
        if number % divisor == 0:
            return divisor
    return None


def archive_path(folder: Path, number: int) -> Path:
    """Where the document of this number is archived."""
    return folder / f"{number}.z"


async def work(address: str, folder: Path) -> None:
    """Do jobs until the server goes away."""
    import trio

    from trigear.runtime.address import parse_address
    from trigear.runtime.link import open_stream
    from trigear.runtime.worker import Worker

    worker = Worker(name=f"demo-{os.getpid()}")

    @worker.function("count")
    async def count(job: WorkerJob) -> bytes:
        await trio.lowlevel.checkpoint()
        return json.dumps(count_words(job.workload.decode())).encode()

    @worker.function("factor")
    async def factor(job: WorkerJob) -> bytes:
        await job.data(b"by %d\n" % os.getpid())
        number = int(job.workload)
        root = math.isqrt(number)
        step = root // FACTOR_STEPS + 1
        for done in range(FACTOR_STEPS):
            found = divisor_between(number, max(done * step, 3), min((done + 1) * step, root))
            await job.status(done + 1, FACTOR_STEPS)
            if found is not None:
                return b"%d %d" % (found, number // found)
        return b"prime"

    @worker.function("archive")
    async def archive(job: WorkerJob) -> None:
        await trio.lowlevel.checkpoint()
        number, _, document = job.workload.partition(b"\0")
        path = archive_path(folder, int(number))
        # A job may be done twice: what is there in the end is whole in any case.
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(zlib.compress(document))
        part.replace(path)

    place = parse_address(address)
    connected = False

    async def connect_once() -> trio.abc.Stream:
        nonlocal connected
        if connected:
            sys.exit(0)  # the server was there for the demo, and is gone
        stream = await open_stream(place)
        connected = True
        return stream

    await worker.run(connect_once)


def main() -> int:
    """The program."""
    import trio

    # An interrupt at the terminal reaches every process of the demo; the one that started them
    # ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("trigear").addHandler(logging.NullHandler())
    try:
        trio.run(work, sys.argv[1], Path(sys.argv[2]))
    except TrigearError:
        return 0  # the server is gone, as it should be at the end
    return 0


if __name__ == "__main__":
    sys.exit(main())
