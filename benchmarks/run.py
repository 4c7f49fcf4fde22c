"""Measures servers side by side and reports medians: `python -m benchmarks.run --help`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if __package__ in {None, ""}:  # started as a file: the package is one directory up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import procfs, report
from benchmarks.generator import SCENARIOS, GeneratorError, Load, build, split_cpus
from benchmarks.measure import measure
from benchmarks.servers import PEERS, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

DEFAULT_SCENARIOS = ("drain", "foreground", "background", "oneatatime")


def names(known: Sequence[str]) -> Any:  # noqa: ANN401  argparse wants any callable
    """An argparse type for known names separated by commas; `all` is every one, `none` is none."""

    def parse(text: str) -> list[str]:
        whole = {"all": list(known), "none": []}
        chosen = whole.get(text, [part.strip() for part in text.split(",")])
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return list(dict.fromkeys(chosen))

    return parse


def parser() -> argparse.ArgumentParser:
    """The command line."""
    it = argparse.ArgumentParser(
        prog="benchmarks.run",
        description="Measures a Gearman server beside others, interleaved round by round.",
    )
    it.add_argument("--subject", choices=PEERS, default="trigear", help="the server in question")
    it.add_argument(
        *("--against",),
        type=names(list(PEERS)),
        default=["gearmand"],
        metavar="NAME,...",
        help=f"what to compare it with: {', '.join(PEERS)}, or none (default: gearmand)",
    )
    it.add_argument(
        *("--scenario",),
        type=names(SCENARIOS),
        default=list(DEFAULT_SCENARIOS),
        metavar="NAME,...",
        help=f"{', '.join(SCENARIOS)}, or all (default: {','.join(DEFAULT_SCENARIOS)})",
    )
    it.add_argument("--rounds", type=int, default=15, help="rounds of each (default: 15)")
    it.add_argument("--seconds", type=float, default=3.0, help="length of a round (default: 3)")
    it.add_argument("--quick", action="store_true", help="2 rounds of 0.3 s: does it work at all?")
    it.add_argument("--size", type=int, default=64, help="workload in bytes (default: 64)")
    it.add_argument("--unique", type=int, default=0, help="length of uniques (default: 0, none)")
    it.add_argument("--backlog", type=int, default=20000, help="drain: jobs (default: 20000)")
    for word in ("clients", "workers", "outstanding"):
        it.add_argument(f"--{word}", type=int, help="instead of the scenario's own number")
    it.add_argument("--timeout", type=float, default=10.0, help="give up after so long a silence")
    it.add_argument(
        "--pin", action="store_true", help="keep server and generator on own processors"
    )
    it.add_argument("--extra", default="", help="more words for the subject's command line")
    it.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    it.add_argument(
        "--render", type=Path, metavar="JSON", help="print such a file as Markdown, end"
    )
    return it


def check(options: argparse.Namespace) -> str | None:
    """What is wrong with the options, in one line."""
    if options.rounds < 1 or options.seconds <= 0:
        return "--rounds and --seconds have to be above zero"
    if options.size < 16:
        return "--size has to be 16 at least: every workload carries a tag by which it is checked"
    if options.subject in options.against:
        return f"{options.subject} cannot be measured against itself"
    for name in (options.subject, *options.against):
        if problem := PEERS[name].missing():
            return problem
    if options.json and not options.json.resolve().parent.is_dir():
        return f"--json: {options.json.resolve().parent} is no directory"
    return None


def schedule(
    rounds: int, scenarios: Sequence[str], servers: Sequence[str]
) -> Iterator[tuple[int, str, str]]:
    """(round, scenario, server) in the order of measuring: servers alternate which goes first."""
    for number in range(rounds):
        for scenario in scenarios:
            for server in servers if number % 2 == 0 else reversed(servers):
                yield number, scenario, server


class Progress:
    """One line per measurement on a terminal, nothing anywhere else."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._started = time.monotonic()
        self._shown = sys.stderr.isatty()

    def step(self, one: dict[str, Any]) -> None:
        """Shows what was just measured and how long the rest will take."""
        self._done += 1
        if self._shown:
            left = (time.monotonic() - self._started) / self._done * (self._steps - self._done)
            print(
                f"{self._done}/{self._steps} round {one['round'] + 1} {one['scenario']:<10} "
                f"{one['server']:<11} {one['generator']['rate']:>9,.0f}/s "
                f"{report.cpu_us_per_job(one):>7.1f} µs CPU  {left / 60:.1f} min left",
                file=sys.stderr,
            )


def collect(options: argparse.Namespace, into: dict[str, Any]) -> None:
    """Measures everything; what is complete is in `into` at any moment, also when interrupted."""
    program = build()
    servers = [options.subject, *options.against]
    server_cpus = generator_cpus = None
    if options.pin:
        server_cpus, generator_cpus = split_cpus(sorted(os.sched_getaffinity(0)))
    progress = Progress(options.rounds * len(options.scenario) * len(servers))
    for number, scenario, name in schedule(options.rounds, options.scenario, servers):
        load = Load(
            scenario=scenario,
            seconds=options.seconds,
            warmup=min(0.3, options.seconds / 3),
            size=options.size,
            unique=options.unique,
            backlog=options.backlog,
            timeout=options.timeout,
            clients=options.clients,
            workers=options.workers,
            outstanding=options.outstanding,
        )
        server, figures = measure(
            PEERS[name],
            program,
            load,
            extra=shlex.split(options.extra) if name == options.subject else (),
            server_cpus=server_cpus,
            generator_cpus=generator_cpus,
        )
        facts = into["servers"][name]
        facts["version"], facts["command"] = server.version, shlex.join(server.command)
        one = {"round": number, "scenario": scenario, "server": name, **figures}
        into["rounds"].append(one)
        progress.step(one)


def _terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        0; 1 when a server failed or answered wrongly; 2 for wrong options; 130 when interrupted.
    """
    options = parser().parse_args(arguments)
    if options.render:
        return render(options.render)
    if options.quick:
        options.rounds, options.seconds = 2, 0.3
        options.backlog = min(options.backlog, 2000)
    if problem := check(options):
        print(f"benchmarks.run: {problem}", file=sys.stderr)
        return 2
    result: dict[str, Any] = {
        "format": report.FORMAT,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": procfs.machine_facts(),
        "options": {
            key: str(value) if isinstance(value, Path) else value
            for key, value in vars(options).items()
        },
        "servers": {
            name: {"title": PEERS[name].title, "version": "", "command": ""}
            for name in (options.subject, *options.against)
        },
        "rounds": [],
    }
    signal.signal(signal.SIGTERM, _terminated)
    status = 0
    try:
        collect(options, result)
    except KeyboardInterrupt:
        print("benchmarks.run: interrupted, this is what was complete", file=sys.stderr)
        status = 130
    except (GeneratorError, ServerError) as error:
        print(f"benchmarks.run: {error}", file=sys.stderr)
        status = 1
    result["summary"] = report.summarise(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if result["summary"]:
        print(report.table(result))
    return status


def render(file: Path) -> int:
    """Prints the report in `file` as Markdown. Returns 0, or 2 when it is none."""
    try:
        found = json.loads(file.read_text())
        if found["format"] != report.FORMAT:
            raise ValueError(f"format {found['format']}, this version reads {report.FORMAT}")
        found["summary"] = report.summarise(found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"benchmarks.run: {file} is no report of this program: {error}", file=sys.stderr)
        return 2
    print(report.markdown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
