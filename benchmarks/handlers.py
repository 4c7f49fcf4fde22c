"""Measures what a job costs its worker, for each way of writing one, beside workers of others.

`python -m benchmarks.handlers --help`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

if __package__ in {None, ""}:  # started as a file: the package is one directory up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import procfs
from benchmarks.report import BUSY_OTHERS, MIB, interval, plain
from benchmarks.run import names
from benchmarks.servers import HOST, PEERS, Peer, Server, ServerError
from benchmarks.stats import estimate
from trigear import connect_blocking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trigear.runtime.blocking import BlockingJob

FORMAT = "handlers 1"
ROOT = Path(__file__).resolve().parent.parent
NOOP = ROOT / "benchmarks" / "noop"
WORKLOAD = b"." * 64

PATIENCE = 60.0  # seconds that a step of a worker may take
LEAST_JOBS = 400  # of a round: processor time comes in hundredths of a second
SETTLE = 0.2  # seconds that an idle worker gets before it is looked at


class WorkerError(Exception):
    """A worker did not do its jobs; the text says which."""


# Queues


class Queue(Protocol):
    """Where a worker gets its jobs from."""

    def fill(self, jobs: int) -> None:
        """Queue so many jobs."""

    def wait(self) -> bool:
        """Wait until the last of them is done; False if it takes too long."""

    def close(self) -> None:
        """Hang up."""


class GearmanQueue:
    """The function `noop` of a Gearman server. Only the last job is waited for: so nobody has to
    ask the server how far things are, and whoever submitted has nothing to do meanwhile."""

    def __init__(self, server: Server) -> None:
        self._client = connect_blocking(f"{HOST}:{server.port}", timeout=PATIENCE)
        self._last: BlockingJob | None = None

    def fill(self, jobs: int) -> None:
        for _ in range(jobs - 1):
            self._client.submit_background("noop", WORKLOAD)
        self._last = self._client.job("noop", WORKLOAD)

    def wait(self) -> bool:
        assert self._last is not None
        try:
            self._last.result()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self._client.close()


class DramatiqQueue:
    """Dramatiq's queue in Redis; what knows Dramatiq is another process."""

    def __init__(self, server: Server) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.noop.dramatiq_feed"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(server),
        )

    def _ask(self, word: object) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(word, file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()

    def fill(self, jobs: int) -> None:
        self._ask(jobs)

    def wait(self) -> bool:
        return self._ask(f"wait {PATIENCE:g}") == "done"

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def environment(server: Server) -> dict[str, str]:
    """Variables that tell Dramatiq where Redis is."""
    return {**os.environ, "NOOP_REDIS": f"redis://{HOST}:{server.port}/0"}


def redis(port: int, directory: Path) -> list[str]:
    """Redis, keeping everything in memory."""
    place = ["--port", str(port), "--bind", HOST, "--dir", str(directory)]
    return ["/usr/bin/redis-server", *place, "--save", "", "--appendonly", "no"]


REDIS = Peer("redis", "Redis", "/usr/bin/redis-server", "redis-server", redis)
GEARMAN = PEERS["trigear"]


# Workers


@dataclass(frozen=True, slots=True)
class Kind:
    """One way of writing a worker.

    ``command`` gets the server's port. ``at_once`` is how many jobs it does at the same time,
    ``needs`` a Python package or a program and what to install for it.
    """

    name: str
    title: str
    command: Callable[[int], list[str]]
    at_once: int = 1
    needs: tuple[str, str] = ("", "")
    server: Peer = GEARMAN
    queue: Callable[[Server], Queue] = GearmanQueue

    def missing(self) -> str | None:
        """One line about what has to be installed, or None when it can be started."""
        thing, remedy = self.needs
        if thing.startswith("/"):
            there = Path(thing).exists()
        else:
            there = not thing or importlib.util.find_spec(thing) is not None
        if not there:
            return f"{self.name}: {thing} is not there; install it with: {remedy}"
        return self.server.missing()


def _trigear(*words: str) -> Callable[[int], list[str]]:
    def command(port: int) -> list[str]:
        start = [sys.executable, "-m", "trigear", "worker", "--allow-root", "--log-level", "error"]
        return [*start, "--server", f"{HOST}:{port}", *words]

    return command


def _noop(worker: str, at_once: int) -> Callable[[int], list[str]]:
    return _trigear("--jobs", str(at_once), f"benchmarks.noop.trigear_jobs:{worker}")


def _gear(port: int) -> list[str]:
    return [sys.executable, str(NOOP / "gear_worker.py"), HOST, str(port)]


def _php(port: int) -> list[str]:
    return ["/usr/bin/php", str(NOOP / "worker.php"), HOST, str(port)]


def _gearman(port: int) -> list[str]:
    return ["/usr/bin/gearman", "-w", "-h", HOST, "-p", str(port), "-f", "noop", "--", "true"]


def _dramatiq(threads: int) -> Callable[[int], list[str]]:
    def command(_port: int) -> list[str]:
        start = [sys.executable, "-m", "dramatiq", "--processes", "1", "--threads", str(threads)]
        return [*start, "benchmarks.noop.dramatiq_jobs"]

    return command


ASYNCIO = ("trio_asyncio", "pip install trio-asyncio")
DRAMATIQ = ("dramatiq", "pip install 'dramatiq[redis]'")

KINDS = {
    kind.name: kind
    for kind in (
        Kind("trio", "trigear, `async def`", _noop("on_trio", 1)),
        Kind("trio-16", "trigear, `async def`", _noop("on_trio", 16), 16),
        Kind("thread", "trigear, plain function", _noop("in_thread", 1)),
        Kind("thread-16", "trigear, plain function", _noop("in_thread", 16), 16),
        Kind("asyncio", "trigear, asyncio", _noop("on_asyncio", 1), 1, ASYNCIO),
        Kind("asyncio-16", "trigear, asyncio", _noop("on_asyncio", 16), 16, ASYNCIO),
        Kind("gear", "gear", _gear, 1, ("gear", "pip install gear")),
        Kind("php", "PHP's GearmanWorker", _php, 1, ("/usr/bin/php", "apt install php-gearman")),
        Kind(
            *("dramatiq", "Dramatiq on Redis", _dramatiq(1), 1, DRAMATIQ),
            server=REDIS,
            queue=DramatiqQueue,
        ),
        Kind(
            *("dramatiq-8", "Dramatiq on Redis", _dramatiq(8), 8, DRAMATIQ),
            server=REDIS,
            queue=DramatiqQueue,
        ),
        Kind("program", "trigear, program `true`", _trigear("-f", "noop", "--", "true")),
        Kind(
            *("gearman", "`gearman -w -- true`", _gearman),
            needs=("/usr/bin/gearman", "apt install gearman-tools"),
        ),
    )
}


class Worker:
    """A running worker with everything it started; leaving the `with` block ends it."""

    def __init__(self, kind: Kind, server: Server) -> None:
        self._kind = kind
        self._directory = tempfile.TemporaryDirectory(prefix="trigear-bench-")
        self._output = Path(self._directory.name) / "output"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                kind.command(server.port),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=environment(server),
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.send(signal.SIGKILL)
        self._process.wait()
        self._directory.cleanup()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes."""
        for pid in procfs.descendants(self._process.pid, procfs.read_processes()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def cpu_seconds(self) -> float:
        """Processor time of all of its processes, of those that have ended as well."""
        return procfs.cpu_seconds(self._process.pid)

    def do_all(self, queue: Queue) -> float:
        """Wait until it has done everything.

        Returns:
            How many seconds that took.

        Raises:
            WorkerError: it does not.
        """
        began = time.monotonic()
        if not queue.wait():
            said = self._output.read_text(errors="replace").strip().splitlines()
            last = f"; its last line: {said[-1]}" if said else ""
            raise WorkerError(f"{self._kind.name} does not do its jobs{last}")
        return time.monotonic() - began


def measure(kind: Kind, seconds: float, least: int = LEAST_JOBS) -> dict[str, Any]:
    """One round: a fresh server, a fresh worker, jobs for about so long, and so many at least.

    The worker is warm when it is measured, and it stands still while its queue is filled, so that
    nobody but the worker and its server is at work meanwhile.

    Raises:
        ServerError, WorkerError: one of them does not work.
    """
    with (
        Server(kind.server) as server,
        contextlib.closing(kind.queue(server)) as queue,
        Worker(kind, server) as worker,
    ):
        queue.fill(1)
        worker.do_all(queue)  # it is there
        jobs = 50
        while True:
            time.sleep(SETTLE)
            worker.send(signal.SIGSTOP)
            queue.fill(jobs)
            worker_cpu, server_cpu = worker.cpu_seconds(), server.cpu_seconds()
            busy = procfs.machine_times().busy
            worker.send(signal.SIGCONT)
            took = worker.do_all(queue)
            busy = procfs.machine_times().busy - busy
            worker_cpu = worker.cpu_seconds() - worker_cpu
            server_cpu = server.cpu_seconds() - server_cpu
            if took >= seconds / 2 and jobs >= least:
                break
            jobs = max(least, round(jobs * min(10.0, 1.2 * seconds / took)))
    return {
        "jobs": jobs,
        "rate": jobs / took,
        "worker_us": 1e6 * worker_cpu / jobs,
        "server_us": 1e6 * server_cpu / jobs,
        "others_cores": max(0.0, busy / procfs.TICKS_PER_SECOND - worker_cpu - server_cpu) / took,
    }


# The command line


def parser() -> argparse.ArgumentParser:
    it = argparse.ArgumentParser(prog="benchmarks.handlers", description=__doc__)
    it.add_argument(
        "--kinds",
        type=names(list(KINDS)),
        default=list(KINDS),
        metavar="NAME,...",
        help=f"which: {', '.join(KINDS)} (default: all)",
    )
    it.add_argument("--rounds", type=int, default=9, help="rounds of each (default: 9)")
    it.add_argument("--seconds", type=float, default=2.0, help="length of a round (default: 2)")
    it.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    it.add_argument("--render", type=Path, metavar="JSON", help="print such a file, and end")
    return it


def versions() -> str:
    """What was measured, for those who did not see the machine."""
    found = []
    for package in ("trigear", "trio", "trio-asyncio", "gear", "dramatiq", "redis"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    for title, command in (
        ("PHP's extension", 'php -r \'echo phpversion("gearman"), " on PHP ", PHP_VERSION;\''),
        ("libgearman", "gearman -V | cut -d' ' -f2"),
        ("Redis", "redis-server --version | cut -d' ' -f3 | cut -d= -f2"),
    ):
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip():
            found.append(f"{title} {done.stdout.strip()}")
    return ", ".join(found)


def schedule(rounds: int, kinds: Sequence[str]) -> Iterator[tuple[int, str]]:
    """(round, kind) in the order of measuring: forwards and backwards in turn."""
    for number in range(rounds):
        for kind in kinds if number % 2 == 0 else reversed(kinds):
            yield number, kind


def markdown(found: dict[str, Any]) -> str:
    """The table, and what must be known to judge it."""
    machine, options = found["machine"], found["options"]
    heads = ("worker", "jobs at once", "jobs/s", "worker µs/job", "server µs/job")
    out = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    rounds: list[dict[str, Any]] = found["rounds"]
    for name in options["kinds"]:
        mine = [one for one in rounds if one["kind"] == name]
        if mine:
            rate, worker, server = (
                estimate([one[key] for one in mine]).as_dict()
                for key in ("rate", "worker_us", "server_us")
            )
            kind = KINDS[name]
            cells = (interval(rate), interval(worker), plain(server["median"]))
            out.append("| " + " | ".join((kind.title, str(kind.at_once), *cells)) + " |")
    least = min(sum(one["kind"] == name for one in rounds) for name in options["kinds"])
    out += [
        "",
        f"Measured {found['started'][:10]} on {machine['cpu']}, {machine['usable_cores']} cores, "
        f"{machine['memory_bytes'] / MIB / 1024:.0f} GiB, {machine['kernel']}, "
        f"{machine['python']}, over loopback; {found['versions']}. Medians of {least} interleaved "
        f"rounds of about {options['seconds']:g} s; in parentheses the interval that encloses the "
        "true median with a probability of at least 90 %. Processor time is user and system time "
        "of all processes.",
    ]
    if (others := statistics.median(one["others_cores"] for one in rounds)) > BUSY_OTHERS:
        out[-1] += f" Other programs used {others:.2f} processors meanwhile: rates suffered."
    return "\n".join(out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        0; 1 when a worker or server failed; 2 for wrong options; 130 when interrupted.
    """
    options = parser().parse_args(arguments)
    if options.render:
        found = json.loads(options.render.read_text())
        if found.get("format") != FORMAT:
            print(f"benchmarks.handlers: {options.render} is no report of it", file=sys.stderr)
            return 2
        print(markdown(found))
        return 0
    if options.rounds < 1 or options.seconds <= 0:
        print("benchmarks.handlers: --rounds and --seconds have to be above 0", file=sys.stderr)
        return 2
    for name in options.kinds:
        if problem := KINDS[name].missing():
            print(f"benchmarks.handlers: {problem}", file=sys.stderr)
            return 2
    found = {
        "format": FORMAT,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": procfs.machine_facts(),
        "versions": versions(),
        "options": {
            "kinds": options.kinds,
            "rounds": options.rounds,
            "seconds": options.seconds,
        },
        "commands": {name: shlex.join(KINDS[name].command(4730)) for name in options.kinds},
        "rounds": [],
    }
    status = 0
    try:
        for number, name in schedule(options.rounds, options.kinds):
            one = measure(KINDS[name], options.seconds)
            found["rounds"].append({"round": number, "kind": name, **one})
            if sys.stderr.isatty():
                print(
                    f"round {number + 1} {name:<12}{one['rate']:>9,.0f}/s"
                    f"{one['worker_us']:>9.1f} µs worker{one['server_us']:>7.1f} µs server",
                    file=sys.stderr,
                )
    except KeyboardInterrupt:
        print("benchmarks.handlers: interrupted, this is what there is", file=sys.stderr)
        status = 130
    except (ServerError, WorkerError) as error:
        print(f"benchmarks.handlers: {error}", file=sys.stderr)
        status = 1
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if found["rounds"]:
        print(markdown(found))
    return status


if __name__ == "__main__":
    sys.exit(main())
