"""`trigear bench`: put a load on a server of yours, and say what it does with it."""

from __future__ import annotations

import contextlib
import functools
import secrets
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import click

from trigear.cli import answers
from trigear.cli.bench_load import Load
from trigear.cli.bench_process import process_at
from trigear.cli.bench_report import Round, Sizing, document, lines
from trigear.cli.connecting import Servers, connected, is_here, with_server
from trigear.cli.manners import Manners, ask, remark, with_manners
from trigear.cli.manual import examples
from trigear.cli.progress import Progress
from trigear.cli.report import Failure, Status
from trigear.cli.tables import encoded, write, write_json
from trigear.cli.values import SIZE, Whole
from trigear.errors import Refused, TrigearError
from trigear.model import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from trigear.cli.bench_load import Doer, Submitter, Window
    from trigear.cli.bench_process import ServerProcess
    from trigear.runtime.blocking import BlockingClient

SCENARIOS: Final = ("background", "drain", "foreground", "oneatatime")

QUEUED: Final = ("background", "drain")
"""Scenarios that leave jobs in the queue, or take them from there."""

PREFIX: Final = "trigear.bench."

BACKLOG: Final = 50_000
BACKLOG_BYTES: Final = 64 << 20
"""What is queued at most at a time: so many jobs, so many bytes of workload."""

MOST_BYTES: Final = 32 << 20
"""The largest workload; servers take 64 MiB for a packet."""

SIZING_SECONDS: Final = 10.0
"""How long the queue is filled, before anything is measured, to see what a job needs."""

SWEEP_SECONDS: Final = 60.0
"""How long jobs that are left may keep coming back."""

WARM_UP: Final = 0.3
"""Seconds of each other scenario that are not counted."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a command line asks for."""

    scenarios: tuple[str, ...]
    seconds: float
    rounds: int
    connections: int
    outstanding: int | None
    size: int
    backlog: int


@dataclass
class Bench:
    """A run against one server.

    ``rounds`` holds what was measured so far, by scenario.
    """

    plan: Plan
    load: Load
    process: ServerProcess | None
    progress: Progress
    rounds: dict[str, list[Round]] = field(default_factory=dict)
    sizing: Sizing | None = None
    queued: int = 0
    _steps: int = 0

    def run(self) -> None:
        """Measure everything."""
        plan = self.plan
        queued = [name for name in plan.scenarios if name in QUEUED]
        others = [name for name in plan.scenarios if name not in QUEUED]
        total = 1 + plan.rounds * (bool(queued) + len(others))

        def step(what: str) -> None:
            self.progress.show(what, self._steps, total)
            self._steps += 1

        step("warming up")
        if queued:
            self.size_up()
        for name in others:
            self.waited_for(name, min(WARM_UP, plan.seconds))
        self.rounds = {name: [] for name in plan.scenarios}
        for number in range(plan.rounds):
            if queued:
                step(f"round {number + 1}: {' and '.join(queued)}")
                for name, one in self.queue().items():
                    if name in self.rounds:
                        self.rounds[name].append(one)
            for name in others:
                step(f"round {number + 1}: {name}")
                self.rounds[name].append(self.waited_for(name, plan.seconds))
        self.progress.clear()

    # Scenarios

    def size_up(self) -> None:
        """Fill the queue and empty it, and note what the server needed."""
        before = self._needs()
        with self.taking_part():
            submitters = self._background()
            jobs = self._fill(submitters, SIZING_SECONDS).jobs
            after = self._needs()
            self.empty()
        if before is not None and after is not None:
            memory, disk = after[0] - before[0], None
            if before[1] is not None and after[1] is not None:
                disk = after[1] - before[1]
            self.sizing = Sizing(jobs, memory, disk)

    def _needs(self) -> tuple[int, int | None] | None:
        """Memory and disk of the server's process."""
        if self.process is None:
            return None
        return self.process.memory(), self.process.disk()

    def queue(self) -> dict[str, Round]:
        """One round of the two scenarios with a queue: it is filled and emptied in turn, until both
        took as long as they should, or three times as long altogether."""
        filling, emptying = Round(), Round()
        give_up = time.perf_counter() + 3 * self.plan.seconds
        while True:
            with self.taking_part():
                submitters = self._background()
                with self.spent_by(filling):
                    filling.add(self._fill(submitters, self.plan.seconds))
            with self.taking_part():
                doers = self.load.doers(self.plan.connections, timed=True)
                with self.spent_by(emptying):
                    emptying.add(self._drain(doers))
            least = min(
                one.seconds
                for name, one in (("background", filling), ("drain", emptying))
                if name in self.plan.scenarios
            )
            if least >= self.plan.seconds or time.perf_counter() >= give_up:
                return {"background": filling, "drain": emptying}

    def waited_for(self, name: str, seconds: float) -> Round:
        """One round of a scenario whose jobs are waited for."""
        one = Round()
        alone = name == "oneatatime"
        count = 1 if alone else self.plan.connections
        outstanding = 1 if alone else self.plan.outstanding or 16
        with self.taking_part():
            self.load.drain(self.load.doers(count, timed=False))  # they are asleep now
            submitters = self.load.submitters(count, outstanding, background=False)
            with self.spent_by(one):
                one.add(self.load.submit(submitters, most=1 << 62, seconds=seconds))
        return one

    def empty(self) -> None:
        """Do every job that is queued."""
        self._drain(self.load.doers(self.plan.connections, timed=True))

    def _background(self) -> list[Submitter]:
        outstanding = self.plan.outstanding or 64
        return self.load.submitters(self.plan.connections, outstanding, background=True)

    def _fill(self, submitters: list[Submitter], seconds: float) -> Window:
        window = self.load.submit(submitters, most=self.plan.backlog, seconds=seconds)
        self.queued += window.jobs
        return window

    def _drain(self, doers: list[Doer]) -> Window:
        window = self.load.drain(doers)
        self.queued -= window.jobs
        if self.queued > 0:
            raise Failure(
                f"{self.load.address} accepted {self.queued} jobs more than it handed out"
            )
        return window

    @contextlib.contextmanager
    def taking_part(self) -> Iterator[None]:
        """Hang up afterwards on all who joined in the block."""
        try:
            yield
        finally:
            self.load.close()

    @contextlib.contextmanager
    def spent_by(self, one: Round) -> Iterator[None]:
        """Count the server's processor time during the block for a round."""
        if self.process is None:
            yield
            return
        before = self.process.cpu_seconds()
        yield
        one.server_cpu = (one.server_cpu or 0.0) + self.process.cpu_seconds() - before


def rows_of(client: BlockingClient) -> list[tuple[str, int, int]]:
    """Every function with its jobs and its workers."""
    return [
        (str(name), number(total), number(workers))
        for name, total, _, workers in answers.STATUS.rows(client)
    ]


def number(cell: object) -> int:
    return cell if isinstance(cell, int) else 0


def check_for_others(client: BlockingClient, *, yes: bool) -> None:
    """Ask before a server is loaded that others use.

    Raises:
        Failure: then rather not.
        click.UsageError: there is nobody to ask.
    """
    rows = rows_of(client)
    jobs, workers = sum(row[1] for row in rows), sum(row[2] for row in rows)
    if not (jobs or workers):
        return
    used = f"{counted(jobs, 'job')} and {counted(workers, 'registration')} of workers"
    question = f"{client.address} has {used} already, which the load will slow down. Go on?"
    if not ask(question, yes=yes):
        raise Failure("nothing was submitted")


@contextlib.contextmanager
def swept(servers: Servers, bench: Bench) -> Iterator[None]:
    """Leave nothing at the server, however the block ends."""
    function = bench.load.function.decode()
    try:
        yield
    except BaseException as error:
        bench.progress.clear()
        bench.load.close()
        try:
            sweep(servers, bench)
        except BaseException as second:
            remark(
                f"jobs of '{function}' may be left at {bench.load.address}: remove them with"
                f" `trigear admin drop-function {function}`"
            )
            raise error from second
        raise
    sweep(servers, bench)


def sweep(servers: Servers, bench: Bench) -> None:
    """Do the jobs that are left, and have the server forget the function."""
    function = bench.load.function.decode()
    with connected(servers.only(bench.load.address)) as client:
        give_up = time.monotonic() + SWEEP_SECONDS
        told = False
        # What a connection held that we hung up on comes back to the queue.
        while left := {name: jobs for name, jobs, _ in rows_of(client)}.get(function):
            if time.monotonic() > give_up:
                raise Failure(f"{counted(left, 'job')} could not be removed")
            if not told:
                remark(f"removing {counted(left, 'job')} of '{function}'")
                told = True
            bench.queued = 0
            with bench.taking_part():
                bench.empty()
        # Some servers cannot forget a function. It has no job and no worker any more.
        with contextlib.suppress(Refused):
            forget(client, function)


def forget(client: BlockingClient, function: str) -> None:
    """Drop the function, once the server has noticed that its workers are gone.

    Raises:
        Refused: it does not want to.
    """
    give_up = time.monotonic() + 2.0
    while any(name == function and workers for name, _, workers in rows_of(client)):
        if time.monotonic() > give_up:
            break
        time.sleep(0.01)
    client.admin(f"drop function {function}")


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that it can clean up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: Any = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def measure(servers: Servers, plan: Plan, progress: Progress, *, yes: bool) -> tuple[Bench, str]:
    """Run the bench against the first server that answers.

    Returns:
        What was measured, and the server's version.

    Raises:
        Failure: no server, or one that did something wrong.
    """
    with connected(servers) as client:
        check_for_others(client, yes=yes)
        address = client.address
        version = said(client, "version")
        pid = said(client, "getpid")
        process = None
        if is_here(address):
            process = process_at(address, int(pid) if pid.isdigit() else None)
    function = PREFIX + secrets.token_hex(6)
    connect = functools.partial(servers.dial, address)
    load = Load(address, function.encode(), b"." * plan.size, connect)
    bench = Bench(plan, load, process, progress)
    with terminable(), swept(servers, bench):
        bench.run()
    return bench, version


def said(client: BlockingClient, line: str) -> str:
    """The word that a text command is answered with, nothing where the server has none."""
    try:
        return " ".join(client.admin(line)).removeprefix("OK").strip()
    except TrigearError:
        return ""


@click.command(
    name="bench",
    short_help="Measure what a server of yours can do.",
    epilog=examples(
        """
        trigear bench
        trigear bench --server jobs.example --scenario foreground --size 16KiB
        trigear bench --rounds 3 --seconds 1 --json | jq .scenarios.drain.jobs_per_second.median
        """
    ),
)
@click.option(
    "--scenario",
    "scenarios",
    type=click.Choice(SCENARIOS),
    multiple=True,
    metavar="NAME",
    help=f"What to measure: {', '.join(SCENARIOS)}; repeatable. Default: all.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.01),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each round of a scenario is.",
)
@click.option(
    "--rounds",
    type=Whole(1),
    default=5,
    show_default=True,
    help="How often each scenario is measured, in turn; medians are printed.",
)
@click.option(
    "--connections",
    type=Whole(1, 1000),
    default=4,
    show_default=True,
    help="Connections that submit, and as many that work; 'oneatatime' has one of each.",
)
@click.option(
    "--outstanding",
    type=Whole(1, 100_000),
    help="Submissions under way on each connection. Default: 64 in the background, else 16.",
)
@click.option(
    "--size",
    type=SIZE,
    default="64",
    show_default=True,
    metavar="SIZE",
    help="Bytes of each workload, which is the result as well.",
)
@click.option(
    "--backlog",
    type=Whole(1),
    metavar="JOBS",
    help=f"Jobs queued at most. Default: {BACKLOG:,}, or 64 MiB of workloads.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask, even if others use the server.")
@with_manners
@with_server
@click.help_option("--help")
@click.pass_obj
def bench_command(
    manners: Manners,
    *,
    scenarios: tuple[str, ...],
    seconds: float,
    rounds: int,
    connections: int,
    outstanding: int | None,
    size: int,
    backlog: int | None,
    as_json: bool,
    yes: bool,
    servers: Servers,
) -> int:
    """Measure what a server of yours can do, trigear or any other.

    Jobs that do nothing are submitted to a function of this run's own, and done by workers of its
    own. At the end nothing of them is left, after Ctrl-C neither. A server that has jobs or workers
    of others is not loaded without asking.

    \b
    background  submit without waiting
    drain       do what is queued
    foreground  submit, do, and wait for the results
    oneatatime  the same with a single job under way: each wakes the worker up

    If the server runs on this machine, its processor time per job is measured as well, and what a
    million queued jobs would need.
    """
    if size > MOST_BYTES:
        raise click.UsageError(f"--size of {size} bytes: a server may not take that, try 1MiB")
    chosen = tuple(name for name in SCENARIOS if not scenarios or name in scenarios)
    room = min(BACKLOG, max(BACKLOG_BYTES // max(size, 1), 1))
    plan = Plan(chosen, seconds, rounds, connections, outstanding, size, backlog or room)
    bench, version = measure(servers, plan, Progress(wanted=not manners.quiet), yes=yes)
    facts = {
        "server": str(bench.load.address),
        "version": version or None,
        "pid": bench.process and bench.process.pid,
        "size": size,
        "connections": connections,
        "seconds": seconds,
        "rounds": rounds,
    }
    if as_json:
        write_json(document(facts, bench.rounds, bench.sizing))
    else:
        write(encoded("".join(f"{line}\n" for line in lines(facts, bench.rounds, bench.sizing))))
    return Status.DONE
