"""Others' foreground jobs beside durable submissions: `python -m benchmarks.beside --help`.

First the rate is measured at which the server takes durable background jobs when they come as fast
as they can. Then they come at a share of that rate, evenly, and a client of its own submits one
foreground job after the other to a worker of its own. What those take is what everybody else
notices of the durable load.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import procfs
from benchmarks.generator import GeneratorError, Load, build
from benchmarks.servers import HOST, PEERS, Server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CLIENTS = 16
OUTSTANDING = 64


def generate(program: Path, port: int, load: Load) -> subprocess.Popen[str]:
    """The generator, running."""
    command = [str(program), "--host", HOST, "--port", str(port), *load.words()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def figures(generator: subprocess.Popen[str]) -> dict[str, Any]:
    """What it found, when it has ended.

    Raises:
        GeneratorError: the server gave a wrong answer, or none.
    """
    out, err = generator.communicate()
    if generator.returncode:
        raise GeneratorError(err.strip())
    found: dict[str, Any] = json.loads(out)
    return found


def measure(program: Path, peer: str, seconds: float, share: float) -> dict[str, Any]:
    """One round: the highest rate, and foreground jobs alone and beside a share of it."""
    durable = Load("background", seconds=seconds, clients=CLIENTS, outstanding=OUTSTANDING)
    alone = Load("oneatatime", seconds=seconds)
    with Server(PEERS[peer]) as server:
        most = figures(generate(program, server.port, durable))["rate"]
    with Server(PEERS[peer]) as server:
        quiet = figures(generate(program, server.port, alone))
        paced = Load(
            "background",
            seconds=seconds + 1,
            clients=CLIENTS,
            outstanding=OUTSTANDING,
            interval=CLIENTS / (most * share),
        )
        flood = generate(program, server.port, paced)
        beside = figures(generate(program, server.port, alone))
        reached = figures(flood)["rate"]
    return {"most": most, "reached": reached, "alone": quiet, "beside": beside}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    it = argparse.ArgumentParser(prog="benchmarks.beside", description=__doc__)
    it.add_argument("--server", choices=sorted(PEERS), default="trigear-sqlite")
    it.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    it.add_argument("--seconds", type=float, default=3.0, help="of each window (default: 3)")
    it.add_argument("--share", type=float, default=0.5, help="of the highest rate (default: 0.5)")
    it.add_argument("--json", action="store_true", help="print everything as JSON")
    return it


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        0; 1 when the server answered wrongly.
    """
    options = parser().parse_args(arguments)
    try:
        program = build()
        rounds = [
            measure(program, options.server, options.seconds, options.share)
            for _ in range(options.rounds)
        ]
    except GeneratorError as error:
        print(f"benchmarks.beside: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"machine": procfs.machine_facts(), "rounds": rounds}, indent=1))
        return 0
    most = median(one["most"] for one in rounds)
    reached = median(one["reached"] for one in rounds)
    print(f"durable submissions: {most:,.0f}/s at most; beside the others {reached:,.0f}/s")
    for name in ("alone", "beside"):
        p50, p99 = (
            median(one[name]["latency_us"][key] for one in rounds) for key in ("p50", "p99")
        )
        print(f"foreground jobs {name:<7} p50 {p50 / 1000:.2f} ms, p99 {p99 / 1000:.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
