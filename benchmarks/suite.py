"""Measures the whole list and says which demands are reached: `python -m benchmarks.suite --help`.

One row after the other, and within a row the servers in turn, round by round, so that a slow minute
hits all of them.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if __package__ in {None, ""}:  # started as a file: the package is one directory up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import machine, plot, report, suite_report
from benchmarks.generator import GeneratorError, build, build_slow_sync, split_cpus
from benchmarks.measure import measure
from benchmarks.record import Record, RecordError
from benchmarks.rows import ROUNDS, SECONDS, rows
from benchmarks.servers import PEERS, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import FrameType

    from benchmarks.rows import Case, Row

RESULTS = Path(__file__).resolve().parent / "results"
PAGE = RESULTS.parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- python -m benchmarks.suite --render -->", "<!-- until here -->"
# A case that fails so often in one run is not tried again: each try may take as long as a timeout.
PATIENCE = 2


def parser() -> argparse.ArgumentParser:
    """The command line."""
    it = argparse.ArgumentParser(
        prog="benchmarks.suite",
        description="Measures trigear beside other Gearman servers, and says what is reached.",
    )
    it.add_argument("--only", metavar="ROW,...", help="measure these rows (--list names them)")
    it.add_argument("--list", action="store_true", help="list the rows and what they take, end")
    it.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"of the basic rows (default: {ROUNDS})"
    )
    it.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"of a round (default: {SECONDS:g})"
    )
    it.add_argument("--quick", action="store_true", help="2 short rounds: does it work at all?")
    it.add_argument(
        *("--json",),
        type=Path,
        metavar="FILE",
        help=f"keep everything there (default: in {RESULTS})",
    )
    it.add_argument(
        *("--continue",),
        dest="go_on",
        action="store_true",
        help="go on with the file of --json: measure what is not in it yet",
    )
    it.add_argument(
        *("--minutes",),
        type=float,
        help="stop after so long; --continue does the rest another time",
    )
    it.add_argument(
        *("--check",), action="store_true", help="exit status 1 unless every demand is reached"
    )
    it.add_argument(
        *("--render",),
        type=Path,
        metavar="JSON",
        help="put tables and plot of such a file into the documentation, end",
    )
    it.add_argument(
        *("--page",),
        type=Path,
        default=PAGE,
        metavar="FILE",
        help="of --render (docs/benchmarks.md)",
    )
    return it


def render(file: Path, page: Path) -> None:
    """Puts what is in `file` between the marks of `page`, and the plot beside it.

    Raises:
        RecordError: the file is no record, or the page has no marks.
    """
    record = Record.load(file)
    try:
        before, begin, rest = page.read_text().partition(BEGIN)
        _, end, after = rest.partition(END)
    except OSError as error:
        raise RecordError(f"{page} cannot be read: {error}") from error
    if not begin or not end:
        raise RecordError(f"{page} has no {BEGIN} with {END} behind it")
    picture = page.with_suffix(".svg")
    picture.write_text(plot.svg(record))
    shown = suite_report.markdown(record, picture.name)
    page.write_text(f"{before}{begin}\n\n{shown}\n\n{end}{after}")


def choose(every: dict[str, Row], only: str | None) -> list[Row]:
    """The rows named in `only`, or all, in the order in which they are measured.

    Raises:
        RecordError: there is no such row.
    """
    if only is None:
        return list(every.values())
    wanted = {name.strip() for name in only.split(",")}
    if unknown := sorted(wanted - every.keys()):
        raise RecordError(f"there is no row {unknown[0]!r}; there are {', '.join(every)}")
    return [row for row in every.values() if row.name in wanted]


def schedule(row: Row) -> Iterator[tuple[int, Case]]:
    """(round, case) in the order of measuring: cases alternate which goes first."""
    for number in range(max(case.rounds for case in row.cases)):
        cases = [case for case in row.cases if number < case.rounds]
        for case in cases if number % 2 == 0 else reversed(cases):
            yield number, case


class Progress:
    """Lines that say what was measured and how long the rest will take.

    Args:
        costs: about how many seconds the measurements to come take, all together.
        minutes: how long this run may take; None for as long as it needs.
    """

    def __init__(self, costs: float, minutes: float | None = None) -> None:
        self._left = costs
        self._done = 0.0
        self._started = time.monotonic()
        self._allowed = None if minutes is None else minutes * 60

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _pace(self) -> float:
        """Seconds that a planned second takes."""
        return self._elapsed() / self._done if self._done else 1.0

    def over(self, cost: float) -> bool:
        """Whether a measurement of `cost` planned seconds would take longer than is allowed."""
        if self._allowed is None:
            return False
        return self._elapsed() + cost * max(1.0, self._pace()) > self._allowed

    def step(self, cost: float, line: str) -> None:
        """A measurement is done, or was given up."""
        self._done += cost
        self._left -= cost
        left = max(0.0, self._left) * self._pace() / 60
        print(f"{line}  {left:.1f} min left", file=sys.stderr, flush=True)


class Stopped(Exception):
    """The time that was allowed is over."""


class Suite:
    """One run: what it measures, into what, and on which processors."""

    def __init__(self, record: Record, chosen: Sequence[Row], minutes: float | None) -> None:
        self._record = record
        self._program = build()
        self._plan = [
            (row, [(n, case) for n, case in schedule(row) if not record.has(row, case, n)])
            for row in chosen
        ]
        costs = sum(case.cost for _, steps in self._plan for _, case in steps)
        self._progress = Progress(costs, minutes)

    def run(self) -> None:
        """Measures everything that is not there yet.

        Raises:
            RecordError: a row was measured before under another load.
            Stopped: the time is over.
        """
        for row, steps in self._plan:
            if steps:
                self._record.prepare(row)
            failures: dict[str, int] = {}
            for number, case in steps:
                if self._progress.over(case.cost):
                    raise Stopped
                if failures.get(case.name, 0) >= PATIENCE:
                    self._progress.step(case.cost, self._line(row, case, number, "given up"))
                    continue
                try:
                    words = self._measure(row, case, number)
                except (GeneratorError, ServerError, OSError, ValueError) as error:
                    failures[case.name] = failures.get(case.name, 0) + 1
                    self._record.complain(row, case, number, str(error))
                    words = f"failed: {error}"
                self._progress.step(case.cost, self._line(row, case, number, words))

    def _line(self, row: Row, case: Case, number: int, words: str) -> str:
        return f"{row.name:<17} {number + 1:>2}/{case.rounds:<2} {case.name:<22} {words}"

    def _measure(self, row: Row, case: Case, number: int) -> str:
        """One measurement; returns what to say about it.

        Raises:
            ServerError, GeneratorError, OSError, ValueError: it could not be made.
        """
        peer = PEERS[case.peer]
        if problem := peer.missing():
            raise ServerError(problem)
        server_cpus = generator_cpus = None
        if row.pinned:
            rest, generator_cpus = split_cpus(sorted(os.sched_getaffinity(0)))
            server_cpus = frozenset({min(rest)})
        started = time.monotonic()
        server, figures = measure(
            peer,
            self._program,
            case.load,
            extra=case.extra,
            pauses=case.pauses,
            environment={"LD_PRELOAD": str(build_slow_sync())} if case.slow_syncs else None,
            server_cpus=server_cpus,
            generator_cpus=generator_cpus,
        )
        self._record.data["servers"][case.peer] = {
            "title": peer.title,
            "version": server.version,
            "command": shlex.join(server.command),
        }
        took = round(time.monotonic() - started, 2)
        self._record.add(row, case, number, {**figures, "took_seconds": took})
        cpu, rate = report.cpu_us_per_job(figures), figures["generator"]["rate"]
        return f"{rate:>9,.0f}/s {cpu:>9.1f} µs CPU"


def listing(chosen: Iterable[Row]) -> str:
    """The rows, how many rounds they have and about how long they take."""
    lines = []
    for row in chosen:
        minutes = sum(case.rounds * case.cost for case in row.cases) / 60
        cases = ", ".join(f"{case.name} {case.rounds}" for case in row.cases)
        lines.append(f"{row.name:<18} {minutes:>4.1f} min  {row.title}\n{'':<29}rounds: {cases}")
    return "\n".join(lines)


def open_record(options: argparse.Namespace) -> Record:
    """The record to measure into.

    Raises:
        RecordError: the options do not fit what is there.
    """
    if options.go_on:
        if options.json is None:
            raise RecordError("--continue needs --json FILE")
        if options.json.exists():
            record = Record.load(options.json)
            if record.data["quick"] != options.quick:
                raise RecordError("--quick and what is in the file do not go together")
            return record
    file = options.json or RESULTS / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}.json"
    if options.json is None:
        RESULTS.mkdir(exist_ok=True)
    elif file.exists():
        raise RecordError(f"{file} is there already; --continue goes on with it")
    elif not file.resolve().parent.is_dir():
        raise RecordError(f"--json: {file.resolve().parent} is no directory")
    return Record.new(file, quick=options.quick)


def _terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        0; 1 with --check when a demand is not reached or was not measured; 2 for wrong options;
        3 when the time of --minutes was over before all was measured; 130 when interrupted.
    """
    options = parser().parse_args(arguments)
    every = rows(options.rounds, options.seconds, quick=options.quick)
    try:
        if options.rounds < 1 or options.seconds <= 0:
            raise RecordError("--rounds and --seconds have to be above zero")
        if options.render:
            render(options.render, options.page)
            return 0
        chosen = choose(every, options.only)
        if options.list:
            print(listing(chosen))
            return 0
        record = open_record(options)
        record.begin(datetime.now(UTC).isoformat(timespec="seconds"), machine.facts())
        suite = Suite(record, chosen, options.minutes)
    except (RecordError, machine.MachineError, GeneratorError) as error:
        print(f"benchmarks.suite: {error}", file=sys.stderr)
        return 2
    before = signal.signal(signal.SIGTERM, _terminated)
    status = 0
    try:
        suite.run()
    except RecordError as error:
        print(f"benchmarks.suite: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks.suite: interrupted, this is what was complete", file=sys.stderr)
        status = 130
    except Stopped:
        print("benchmarks.suite: the time is over; --continue does the rest", file=sys.stderr)
        status = 3
    finally:
        signal.signal(signal.SIGTERM, before)
    verdicts = suite_report.judge(record)
    print(suite_report.text(record))
    print(f"kept in {record.file}", file=sys.stderr)
    if options.check and not status:
        return 0 if all(verdict.reached for verdict in verdicts) else 1
    return status


if __name__ == "__main__":
    sys.exit(main())
