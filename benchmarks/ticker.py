"""How punctual a Trio task is inside a flooded server: `python -m benchmarks.ticker --help`.

The server runs in this very process and event loop, beside a task that wants to wake up every few
milliseconds. What makes that task late makes every deadline and every other connection late too.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from benchmarks import procfs
from benchmarks.generator import GeneratorError, Load, build
from benchmarks.servers import HOST
from benchmarks.stats import percentile
from trigear.engine.config import ServerConfig
from trigear.runtime.listeners import bind
from trigear.runtime.server import Server, serve

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path

# Seconds that still count after the flood.
AFTERMATH = 1.0


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late the ticks were, in milliseconds."""

    ticks: int
    p50: float
    p95: float
    p99: float
    most: float


def summarise(late: Sequence[float]) -> Lateness:
    """Percentiles of `late`, which is in seconds."""
    shares = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "most": 1.0}
    return Lateness(
        ticks=len(late),
        **{name: round(percentile(late, share) * 1000, 3) for name, share in shares.items()},
    )


async def tick(interval: float, late: list[float]) -> None:
    """Wakes up every `interval` seconds and notes how late it was, until cancelled.

    The plan is fixed in advance: after a stall every tick that was missed counts with its own
    lateness. A ticker that planned from its last wake-up would ask less often just when it matters.
    """
    due = trio.current_time() + interval
    while True:
        await trio.sleep_until(due)
        # One wake-up counts for all ticks it is too late for: waking up once more for each lets
        # the event loop do other work in between, and one stall would look like many.
        moment = trio.current_time()
        while due <= moment:
            late.append(moment - due)
            due += interval


async def watch(interval: float, seconds: float) -> Lateness:
    """The lateness over `seconds` of whatever else runs meanwhile."""
    late: list[float] = []
    with trio.move_on_after(seconds):
        await tick(interval, late)
    return summarise(late)


async def flood(program: Path, port: int, load: Load) -> subprocess.CompletedProcess[bytes]:
    """Runs the generator in a process of its own, to its end."""
    command = [str(program), "--host", HOST, "--port", str(port), *load.words()]
    return await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)


async def measure(program: Path, load: Load, interval: float) -> dict[str, Any]:
    """Lateness without load for a while, then under the flood.

    Args:
        program: the compiled generator.
        load: the flood.
        interval: seconds between ticks.

    Raises:
        GeneratorError: the server gave a wrong answer, or none.
    """
    config = ServerConfig(listen=(f"{HOST}:0",))
    late: list[float] = []
    async with trio.open_nursery() as nursery:
        # As in `trigear server`: the process is nothing else, and garbage is collected when idle.
        run = partial(serve, config, bind(config), own_process=True)
        server: Server = await nursery.start(run)
        idle = await watch(interval, min(2.0, load.seconds))
        nursery.start_soon(tick, interval, late)
        port = int(server.addresses[0].rpartition(":")[2])
        done = await flood(program, port, load)
        # A server that puts work off until the flood is over is late then.
        await trio.sleep(AFTERMATH)
        nursery.cancel_scope.cancel()
    if done.returncode:
        raise GeneratorError(done.stderr.decode(errors="replace").strip())
    figures = json.loads(done.stdout)
    return {
        "machine": procfs.machine_facts(),
        "interval_ms": interval * 1000,
        "connections": figures["clients"],
        "idle": asdict(idle),
        "flooded": asdict(summarise(late)),
        "generator": figures,
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    it = argparse.ArgumentParser(prog="benchmarks.ticker", description=__doc__)
    it.add_argument("--seconds", type=float, default=10.0, help="of flood (default: 10)")
    it.add_argument("--interval", type=float, default=5.0, help="ms between ticks (default: 5)")
    it.add_argument("--connections", type=int, default=200, help="that flood (default: 200)")
    it.add_argument("--mix", choices=("echo", "submit", "both"), default="both", help="of what")
    it.add_argument("--limit", type=float, help="fail if the 99th percentile is later, in ms")
    it.add_argument("--json", action="store_true", help="print everything as JSON")
    return it


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        0; 1 when a tick was later than `--limit` allows or the server answered wrongly.
    """
    options = parser().parse_args(arguments)
    # That the server is stopped with jobs in its queue is no news here.
    logging.getLogger("trigear").setLevel(logging.ERROR)
    load = Load("flood", seconds=options.seconds, clients=options.connections, mix=options.mix)
    try:
        found = trio.run(measure, build(), load, options.interval / 1000)
    except GeneratorError as error:
        print(f"benchmarks.ticker: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        for name in ("idle", "flooded"):
            late = found[name]
            print(
                f"{name:<8} {late['ticks']} ticks of {options.interval:g} ms, late by p50 "
                f"{late['p50']:.1f}, p95 {late['p95']:.1f}, p99 {late['p99']:.1f}, at most "
                f"{late['most']:.1f} ms"
            )
        flooding = found["generator"]
        print(
            f"{found['connections']} connections, {flooding['rate']:,.0f} requests/s, between "
            f"{flooding['least_per_client']:,} and {flooding['most_per_client']:,} answered each"
        )
    if options.limit is not None and found["flooded"]["p99"] > options.limit:
        print(f"benchmarks.ticker: p99 is over {options.limit:g} ms", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
