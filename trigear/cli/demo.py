"""`trigear demo`: a server, worker processes and real jobs, to watch."""

from __future__ import annotations

import json
import logging
import math
import os
import random
import signal
import sys
import tempfile
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from trigear.cli.demo_display import Display, SayLog, display_for
from trigear.cli.demo_worker import FACTOR_STEPS, archive_path, count_words
from trigear.cli.manners import Manners, with_help, with_manners
from trigear.cli.report import Failure, Status
from trigear.cli.values import Whole
from trigear.model import counted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from trigear.runtime.client import Client

DEADLINE: Final = 80.0
"""Seconds after which the demo gives up: it promises to end within 90."""

LOOK: Final = 0.05
"""Seconds between two questions about background jobs."""

AT_ONCE: Final = 16
"""Jobs of a kind that are under way at the same time."""

_FACTOR_SHARE: Final = 200
_ARCHIVE_SHARE: Final = 100

_WORDS: Final = (  # noqa: SIM905  as a list it would fill a page
    "the a of and to in is that for on with as by at from be this it an are was or not which "
    "job worker client server queue handle function priority unique workload assignment result "
    "reads writes sends waits sleeps wakes grabs answers connection packet byte deadline attempt"
).split()


@dataclass
class Outcome:
    """What a demo has done."""

    jobs: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    rerun: int = 0
    raised: int = 0
    background: int = 0
    wrong: int = 0
    workers: int = 0


def document(number: int) -> str:
    """A text of a few hundred words; the same for the same number."""
    chance = random.Random(number)  # noqa: S311  nothing secret depends on it
    return " ".join(chance.choices(_WORDS, k=chance.randrange(300, 900)))


def semiprime(number: int) -> tuple[int, int]:
    """Two primes of seven digits, the smaller one first; the same for the same number."""
    chance = random.Random(-1 - number)  # noqa: S311  nothing secret depends on it

    def prime() -> int:
        while True:
            candidate = chance.randrange(6_000_001, 8_000_000, 2)
            if all(candidate % divisor for divisor in range(3, math.isqrt(candidate) + 1, 2)):
                return candidate

    small, large = sorted((prime(), prime()))
    return small, large


class Demo:
    """One run of the demo, on a server that is there already.

    Args:
        client: submits the jobs.
        display: shows how things are going.
        documents: how many jobs there shall be of the most frequent kind.
        folder: where the archived documents appear.
    """

    def __init__(self, client: Client, display: Display, documents: int, folder: Path) -> None:
        self.outcome = Outcome()
        self.killed: set[int] = set()
        self._victim: bytes | None = None
        self._client = client
        self._display = display
        self._documents = documents
        self._factors = max(documents // _FACTOR_SHARE, 4)
        self._archives = max(documents // _ARCHIVE_SHARE, 2)
        self._folder = folder

    async def run(self) -> None:
        """Submit everything, wait for everything, check everything."""
        import trio

        self._display.begin("words counted in documents", self._documents)
        self._display.begin("numbers factored", self._factors)
        self._display.begin("documents archived", self._archives)
        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._several, range(self._documents), self._count)
            nursery.start_soon(self._several, range(self._factors), self._factor)
            nursery.start_soon(self._several, range(self._archives), self._archive)
            nursery.start_soon(self._count_what_is_no_text)
        outcome = self.outcome
        outcome.seconds = time.perf_counter() - start
        outcome.rate = outcome.jobs / outcome.seconds

    async def _several(self, numbers: Iterable[int], do: Callable[[int], Awaitable[None]]) -> None:
        """Do this for all of the numbers, a few at a time."""
        import trio

        left = iter(numbers)

        async def one_after_another() -> None:
            for number in left:
                await do(number)

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(one_after_another)

    def _done(self, *, right: bool, what: str) -> None:
        self.outcome.jobs += 1
        if not right:
            self.outcome.wrong += 1
            self._display.say(f"wrong answer: {what}")

    async def _count(self, number: int) -> None:
        text = document(number)
        counted = json.loads(await self._client.submit("count", text.encode()))
        self._done(right=counted == count_words(text), what=f"the words of document {number}")
        self._display.advance("words counted in documents")

    async def _count_what_is_no_text(self) -> None:
        from trigear.errors import JobRaised

        try:
            await self._client.submit("count", b"\xff is no text")
        except JobRaised as error:
            says = error.data.decode("utf-8", "backslashreplace")
            self.outcome.raised += 1
            self._done(right=says.startswith("UnicodeDecodeError"), what="the exception")
            self._display.say(f"a job raised, as it should: {says}")
        else:
            self._done(right=False, what="a job that should have raised an exception did not")

    async def _factor(self, number: int) -> None:
        from trigear.protocol import events

        small, large = semiprime(number)
        begun_by: list[int] = []
        shown = 0.0
        workload = b"%d" % (small * large)
        async with self._client.open_job("factor", workload) as job:
            async for update in job:
                if isinstance(update, events.Data) and update.data.startswith(b"by "):
                    begun_by.append(int(update.data[3:]))
                    if len(begun_by) > 1:
                        self.outcome.rerun += 1
                        self._display.say(
                            f"job {job.handle.decode()} went to process {begun_by[-1]}, "
                            "which begins it again"
                        )
                elif isinstance(update, events.Status):
                    self._display.advance(
                        "numbers factored", update.numerator / FACTOR_STEPS - shown
                    )
                    shown = update.numerator / FACTOR_STEPS
                    if self._victim is None and begun_by:
                        self._victim = job.handle
                        self._kill(begun_by[-1], job.handle)
            if self._victim == job.handle and len(begun_by) == 1:
                # The worker was quicker than the signal. Catch another one.
                self._victim = None
            answer = (await job.result()).splitlines()[-1]
        self._done(right=answer == b"%d %d" % (small, large), what=f"the factors of {workload!r}")
        self._display.advance("numbers factored", 1 - shown)

    def _kill(self, process: int, handle: bytes) -> None:
        self.killed.add(process)
        os.kill(process, signal.SIGKILL)
        self._display.say(f"killed worker process {process} while it held job {handle.decode()}")

    async def _archive(self, number: int) -> None:
        import trio

        text = document(number).encode()
        workload = b"%d\0%s" % (number, text)
        handle = await self._client.submit_background("archive", workload)
        # A background job tells nobody when it is done.
        while (await self._client.status(handle)).known:  # noqa: ASYNC110
            await trio.sleep(LOOK)
        path = archive_path(self._folder, number)
        archived = zlib.decompress(path.read_bytes()) if path.exists() else b""
        self.outcome.background += 1
        self._done(right=archived == text, what=f"the archive of document {number}")
        self._display.advance("documents archived")


async def keep_worker(address: str, folder: Path, demo: Demo, display: Display) -> None:
    """Keep one worker process running: one that the demo has killed is replaced."""
    import subprocess

    import trio

    # The same code as this process runs, and nothing that lies around in the current folder.
    package = str(Path(__file__).parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    while True:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-P", "-m", "trigear.cli.demo_worker", address, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        demo.outcome.workers += 1
        try:
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
        if process.pid not in demo.killed:
            raise Failure(f"a worker process ended by itself, with status {status}")
        display.say("a new worker process takes its place")


async def run_demo(workers: int, documents: int, display: Display) -> Outcome:
    """Run a server, workers and jobs; everything is gone at the end.

    Args:
        workers: how many worker processes.
        documents: how many jobs there shall be of the most frequent kind.
        display: shows how things are going.

    Returns:
        What was done.

    Raises:
        Failure: a worker ended by itself, or it took too long.

    Cancellation: worker processes are killed, the server is stopped.
    """
    import trio

    from trigear.engine.config import EngineConfig, ServerConfig
    from trigear.runtime.client import connect
    from trigear.runtime.server import open_server

    config = ServerConfig(
        engine=EngineConfig(handle_prefix=b"H:demo"), listen=("127.0.0.1",), port=0
    )
    with tempfile.TemporaryDirectory(prefix="trigear-demo-") as name:
        folder = Path(name)
        with trio.move_on_after(DEADLINE) as scope:
            async with (
                open_server(config) as server,
                connect(server.addresses[0], client_id="demo") as client,
                trio.open_nursery() as nursery,
            ):
                demo = Demo(client, display, documents, folder)
                processes = counted(workers, "worker process", "worker processes")
                display.say(f"server at {server.addresses[0]}, {processes}")
                for _ in range(workers):
                    nursery.start_soon(keep_worker, server.addresses[0], folder, demo, display)
                await demo.run()
                nursery.cancel_scope.cancel()
        if scope.cancelled_caught:
            raise Failure(
                f"the demo did not end within {DEADLINE:g} s: try fewer --documents",
                Status.TOO_LATE,
            )
    return demo.outcome


def summary(outcome: Outcome) -> Iterator[str]:
    """What a person should read at the end."""
    yield (
        f"{outcome.jobs:,} jobs in {outcome.seconds:.1f} s, {outcome.rate:,.0f} a second, "
        f"{outcome.background:,} of them in the background"
    )
    yield (
        f"{outcome.rerun} re-run because the worker was killed, "
        f"{outcome.raised} raised an exception, as it should"
    )
    if outcome.wrong:
        yield f"every answer was checked: {outcome.wrong} are WRONG"
    else:
        yield "every answer was checked: all are right"
    yield "to go on: `trigear server` starts a server that stays"


def status_for(outcome: Outcome) -> Status:
    """The exit status that says whether all answers were right."""
    return Status.NO if outcome.wrong else Status.DONE


def demo(workers: int, documents: int, display: Display) -> Outcome:
    """As :func:`run_demo`, for those who have no event loop."""
    import trio

    log = logging.getLogger("trigear")
    handler = SayLog(display)
    log.addHandler(handler)
    try:
        with display:
            return trio.run(run_demo, workers, documents, display)
    finally:
        log.removeHandler(handler)


@click.command(
    "demo",
    epilog="Example: trigear demo --workers 2",
)
@click.option(
    "--workers",
    type=Whole(2, 64),
    default=3,
    show_default=True,
    help="Worker processes.",
)
@click.option(
    "--documents",
    type=Whole(1, 1_000_000),
    default=6000,
    show_default=True,
    help="Documents whose words are counted; the other jobs are in proportion.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON object.")
@with_manners
@with_help
@click.pass_obj
def demo_command(manners: Manners, workers: int, documents: int, as_json: bool) -> int:
    """Watch a server and workers do real jobs.

    Starts a server on a port of its own, worker processes and a client, all on this machine.
    Words are counted, numbers factored with progress, documents archived in the background. One
    job raises an exception; one worker is killed in the middle of a job, which another does again.
    Every answer is checked. Nothing remains.
    """
    display = display_for(quiet=manners.quiet, color=manners.color)
    outcome = demo(workers, documents, display)
    if as_json:
        click.echo(json.dumps(asdict(outcome)))
    else:
        for line in summary(outcome):
            click.echo(line)
    return status_for(outcome)
