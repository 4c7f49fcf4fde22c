"""`trigear submit`: submit jobs, wait for them, print what they return."""

from __future__ import annotations

import datetime
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from trigear.cli.connecting import with_server
from trigear.cli.manners import Manners, remark, with_manners
from trigear.cli.manual import examples
from trigear.cli.values import DURATION, TIME, Whole
from trigear.errors import ConfigError
from trigear.model import Priority

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trigear.cli.connecting import Servers


@dataclass(frozen=True, slots=True)
class Order:
    """One job to submit."""

    function: str
    workload: bytes
    unique: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """What a command line asks for, worked out.

    ``until`` is when the deadline is, on the monotonic clock.
    """

    functions: tuple[str, ...]
    workloads: tuple[bytes, ...]
    lines: bool = False
    strip: bool = False
    unique: str = ""
    priority: Priority = Priority.NORMAL
    background: bool = False
    at: datetime.datetime | None = None
    delay: float | None = None
    parallel: int = 1
    deadline: float | None = None
    until: float | None = None
    prefix: bool = False
    as_json: bool = False

    @property
    def timed(self) -> bool:
        return self.at is not None or self.delay is not None

    @property
    def single(self) -> bool:
        """Whether there is one job and no more."""
        return not self.lines and len(self.functions) == len(self.workloads) == 1

    def orders(self) -> Iterator[Order]:
        """The jobs; lines of standard input are read as they are asked for."""
        for workload in read_lines(strip=self.strip) if self.lines else self.workloads:
            for function in self.functions:
                yield Order(function, workload, self.unique_of(workload))

    def unique_of(self, workload: bytes) -> bytes:
        if self.unique == "#":
            # What libgearman does with this word is its own; the same workload is the same job.
            import hashlib

            return hashlib.sha256(workload).hexdigest().encode()
        return os.fsencode(self.unique)


@click.command(
    name="submit",
    epilog=examples(
        """
        trigear submit resize cat.jpg              # waits, prints the result
        trigear submit resize < cat.jpg > small.jpg
        ls *.jpg | trigear submit -N --parallel 8 resize
        trigear submit -b -u order-17 mail '{"to": "ann"}'
        trigear submit --at 2026-12-24T18:00:00+01:00 mail hello
        trigear submit --deadline 30s resize cat.jpg || echo "status $?"
        """
    ),
)
@click.argument("words", metavar="FUNCTION [WORKLOAD...]", nargs=-1)
@click.option(
    "-f",
    "functions",
    multiple=True,
    metavar="FUNCTION",
    help="The function, as gearman has it: all words are workloads then. Repeated: a job for each.",
)
@click.option("-b", "--background", is_flag=True, help="Do not wait; print the job's handle.")
@click.option("-I", "high", is_flag=True, help="High priority.")
@click.option("-L", "low", is_flag=True, help="Low priority.")
@click.option("-n", "keep_lines", is_flag=True, help="A job for each line of standard input.")
@click.option("-N", "strip_lines", is_flag=True, help="The same, without the lines' ends.")
@click.option("-s", "empty", is_flag=True, help="No workload, and no reading of standard input.")
@click.option("-P", "prefix", is_flag=True, help="Begin each line of results with 'FUNCTION: '.")
@click.option(
    "-u",
    "--unique",
    default="",
    metavar="UNIQUE",
    help="Submissions to one function with the same unique become one job; - or # take the workload"
    " for it.",
)
@click.option("--at", type=TIME, metavar="TIME", help="In the background, not before this time.")
@click.option("--delay", type=DURATION, metavar="DURATION", help="The same, from now.")
@click.option(
    "--deadline", type=DURATION, metavar="DURATION", help="Give up after this time, with status 5."
)
@click.option(
    "-t",
    "milliseconds",
    type=Whole(1),
    metavar="MS",
    help="The same, as gearman has it.",
)
@click.option(
    "--parallel",
    type=Whole(1),
    default=1,
    metavar="N",
    help="How many jobs are under way at once. Results come in the order of the jobs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each job.")
@with_manners
@with_server
@click.help_option("-H", "--help")
@click.pass_context
def submit_command(ctx: click.Context, /, *, servers: Servers, **given: Any) -> int:  # noqa: ANN401
    """Submit a job for each WORKLOAD, wait, and print the results as they are.

    Without a workload, standard input is one. Data come out as they arrive; what workers warn of
    and everything else goes to standard error.

    Exit status: 0 all is done, 1 a job failed or was refused, 3 no server, or it went away, 4 not
    allowed or not let in, 5 the deadline passed, 130 interrupted.
    """
    plan = plan_of(ctx, given)
    from trigear.cli.submitting import run

    return run(plan, servers, ctx.ensure_object(Manners))


def plan_of(ctx: click.Context, given: dict[str, Any]) -> Plan:
    """What the options ask for.

    Raises:
        click.UsageError: they contradict each other, or something is missing.
    """
    functions, words = given["functions"], list(given["words"])
    if not functions:
        if not words:
            raise click.UsageError("name a function, and workloads if any", ctx)
        functions = (words.pop(0),)
    for function in functions:
        if not function or "\0" in function:
            raise ConfigError("function", f"{function!r} is no name")
    at, delay, deadline = given["at"], given["delay"], given["deadline"]
    lines = given["keep_lines"] or given["strip_lines"]
    milliseconds = given["milliseconds"]
    several = lines or len(words) > 1
    unique = given["unique"]
    contradictions = {
        "-I and -L name two priorities": given["high"] and given["low"],
        "--at and --delay both say when": at is not None and delay is not None,
        "--at and --delay go with normal priority only": (at is not None or delay is not None)
        and (given["high"] or given["low"]),
        "-n and -N read workloads, but the command has some": lines and (words or given["empty"]),
        "-s sends no workload, but the command has some": given["empty"] and words,
        "--deadline and -t both say how long": deadline is not None and milliseconds is not None,
    }
    for problem, is_so in contradictions.items():
        if is_so:
            raise click.UsageError(f"{problem}: leave one out", ctx)
    if several and unique not in ("", "-", "#"):
        raise click.UsageError(
            f"-u {unique} would make one job of several workloads: -u - gives each its own", ctx
        )
    if milliseconds is not None:
        deadline = milliseconds / 1000
    until = None if deadline is None else time.monotonic() + deadline
    if at is not None and at < datetime.datetime.now(datetime.UTC):
        remark(f"{at.isoformat()} is over: the job may begin at once")
    workloads: tuple[bytes, ...] = tuple(os.fsencode(word) for word in words)
    if given["empty"]:
        workloads = (b"",)
    elif not words and not lines:
        workloads = (read_all(),)
    return Plan(
        functions=tuple(functions),
        workloads=workloads,
        lines=lines,
        strip=given["strip_lines"],
        unique=unique,
        priority=Priority.HIGH
        if given["high"]
        else Priority.LOW
        if given["low"]
        else Priority.NORMAL,
        background=given["background"] or at is not None or delay is not None,
        at=at,
        delay=delay,
        parallel=given["parallel"],
        deadline=deadline,
        until=until,
        prefix=given["prefix"],
        as_json=given["as_json"],
    )


def read_all() -> bytes:
    """Standard input as one workload."""
    if sys.stdin.isatty():
        remark("reading the workload from the terminal; Ctrl-D ends it, -s sends none")
    return sys.stdin.buffer.read()


def read_lines(*, strip: bool) -> Iterator[bytes]:
    """The lines of standard input, as they come."""
    if sys.stdin.isatty():
        remark("reading a workload from each line of the terminal; Ctrl-D ends")
    for line in sys.stdin.buffer:
        yield line.removesuffix(b"\n") if strip else line
