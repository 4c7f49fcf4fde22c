"""One round: a fresh server, one load, and what the server spent on it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks import procfs
from benchmarks.generator import Generator
from benchmarks.servers import Server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.generator import Load
    from benchmarks.servers import Peer

# A quiet connection beside the flood asks a hundred times a second.
QUIET_INTERVAL = 0.01
# It stops a little before the flood does, so that none of its requests sees an idle server.
QUIET_SHARE = 0.9


class Meter:
    """Adds up what server and machine spent between `begin` and `end`, over any windows."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.server_seconds = 0.0
        self.machine_seconds = 0.0
        self.wall_seconds = 0.0
        self.memory_begin = 0
        self.memory_end = 0

    def begin(self) -> None:
        """Call it while the server is idle, right before the load starts."""
        self.memory_begin = self.memory_begin or self._server.memory().now
        self._wall = time.monotonic()
        self._machine = procfs.machine_times()
        self._cpu = self._server.cpu_seconds()

    def end(self) -> None:
        """Call it right after the last answer."""
        self.server_seconds += self._server.cpu_seconds() - self._cpu
        busy = procfs.machine_times().busy - self._machine.busy
        self.machine_seconds += busy / procfs.TICKS_PER_SECOND
        self.wall_seconds += time.monotonic() - self._wall
        self.memory_end = self._server.memory().now


def measure(
    peer: Peer,
    program: Path,
    load: Load,
    *,
    extra: Sequence[str] = (),
    server_cpus: frozenset[int] | None = None,
    generator_cpus: frozenset[int] | None = None,
) -> tuple[Server, dict[str, Any]]:
    """Starts the server, runs the load against it, stops it.

    Every round gets a fresh server, all scenarios and all servers alike. Background submissions
    leave a queue behind that would make the next round another experiment; emptying it instead
    would be unfair the other way, for it takes a server with a slow search by handle minutes and
    leaves each heap in a state of its own. A fresh process also makes the peak of its memory belong
    to the round. What a start costs (imports, a cold interpreter) is kept out by the warm-up, which
    is not measured.

    Args:
        peer: the server to start.
        program: the compiled generator.
        load: what it asks for.
        extra: further words for the server's command line.
        server_cpus: processors the server may use; None for all.
        generator_cpus: processors the generator may use; None for all.

    Returns:
        The server, stopped, for its version and command; and the round's figures.

        Memory when idle workers connected and while a queue was filled is in `memory_at`.

    Raises:
        ServerError: the server did not start.
        GeneratorError: it gave a wrong answer, or none.
    """
    load = replace(load, tls=peer.tls)
    edges: dict[str, list[int]] = {}
    with Server(peer, extra, server_cpus) as server:
        meter = Meter(server)
        quiet: Generator | None = None
        with contextlib.ExitStack() as stack:
            generator = stack.enter_context(
                Generator(program, server.port, load, cpus=generator_cpus)
            )
            for word in generator.windows():
                if word == "begin":
                    if load.scenario == "flood":
                        quiet = stack.enter_context(
                            Generator(
                                program,
                                server.port,
                                replace(
                                    load,
                                    scenario="echo",
                                    seconds=load.seconds * QUIET_SHARE,
                                    warmup=0,
                                    clients=1,
                                    outstanding=1,
                                    interval=QUIET_INTERVAL,
                                ),
                                handshake=False,
                                cpus=generator_cpus,
                            )
                        )
                    meter.begin()
                elif word == "end":
                    meter.end()
                else:
                    edges.setdefault(word, []).append(server.memory().now)
            figures = generator.result()
            latency = quiet.result()["latency_us"] if quiet else figures["latency_us"]
        peak = server.memory().peak
    others = meter.machine_seconds - meter.server_seconds - figures["cpu_seconds"]
    return server, {
        "generator": figures,
        "server_cpu_seconds": round(meter.server_seconds, 4),
        "memory_begin": meter.memory_begin,
        "memory_end": meter.memory_end,
        "peak_memory": peak,
        "memory_at": edges,
        "others_cores": round(max(0.0, others) / meter.wall_seconds, 3),
        # Of the flood the figure of interest is what it does to somebody else.
        "latency_us": latency,
    }
