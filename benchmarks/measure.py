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
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.generator import Load
    from benchmarks.servers import Peer

# A quiet connection beside a queue that is filled and emptied asks five hundred times a second.
PAUSE_INTERVAL = 0.002
# It is stopped when that is done, and gives up by itself after so many seconds.
PAUSE_SECONDS = 600.0
# It may have so many requests on the way: one that waited for each answer would ask less often just
# while it is kept waiting.
UNANSWERED = 64
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
        self.windows: list[float] = []
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
        self.windows.append(self._server.cpu_seconds() - self._cpu)
        self.server_seconds += self.windows[-1]
        busy = procfs.machine_times().busy - self._machine.busy
        self.machine_seconds += busy / procfs.TICKS_PER_SECOND
        self.wall_seconds += time.monotonic() - self._wall
        self.memory_end = self._server.memory().now


class Beside:
    """One more connection to the server, which asks for echoes at its own pace.

    Args:
        program: the compiled generator.
        server: whom it asks.
        cpus: processors it may use.
    """

    def __init__(
        self, program: Path, server: Server, load: Load, cpus: frozenset[int] | None
    ) -> None:
        self._load = replace(
            *(load,), scenario="echo", clients=1, outstanding=UNANSWERED, warmup=0, size=64
        )
        self._load = replace(self._load, workers=None, idle=0, keep=0, empty=False)
        self._program, self._server, self._cpus = program, server, cpus
        self._stack = contextlib.ExitStack()
        self._running: Generator | None = None

    def start(self, seconds: float, interval: float) -> None:
        """Asks every `interval` seconds from now on."""
        load = replace(self._load, seconds=seconds, interval=interval)
        generator = Generator(self._program, self._server.port, load, cpus=self._cpus)
        self._running = self._stack.enter_context(generator)
        self._running.begin()

    def result(self, *, now: bool = False) -> dict[str, float]:
        """The latencies since `start`, when its time is over or, with `now`, until now.

        Raises:
            GeneratorError: the server gave a wrong answer, or none.
        """
        assert self._running is not None
        figures = self._running.stop() if now else self._running.result()
        latency: dict[str, float] = figures["latency_us"]
        return latency

    def close(self) -> None:
        """Ends it, if it has not ended."""
        self._stack.close()


def measure(
    peer: Peer,
    program: Path,
    load: Load,
    *,
    extra: Sequence[str] = (),
    pauses: bool = False,
    environment: Mapping[str, str] | None = None,
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
        pauses: ask for echoes while a queue is filled that stays, and from then on.
        environment: further variables for the server.
        server_cpus: processors the server may use; None for all.
        generator_cpus: processors the generator may use; None for all.

    Returns:
        The server, stopped, for its version and command; and the round's figures.

        Memory when idle workers connected and while a queue was filled is in `memory_at`, what the
        server spent in each window in `window_cpu_seconds`; with `pauses` the latencies of echoes
        while the queue was filled and afterwards in `pauses_us`.

    Raises:
        ServerError: the server did not start.
        GeneratorError: it gave a wrong answer, or none.
    """
    load = replace(load, tls=peer.tls)
    edges: dict[str, list[int]] = {}
    waits: dict[str, dict[str, float]] = {}
    server = Server(peer, extra, server_cpus, environment=environment)
    with server, contextlib.ExitStack() as stack:
        meter = Meter(server)
        beside = Beside(program, server, load, generator_cpus)
        stack.callback(beside.close)
        generator = stack.enter_context(Generator(program, server.port, load, cpus=generator_cpus))
        for word in generator.windows():
            if word == "begin":
                if load.scenario == "flood":
                    beside.start(load.seconds * QUIET_SHARE, QUIET_INTERVAL)
                meter.begin()
            elif word == "end":
                meter.end()
            else:
                edges.setdefault(word, []).append(server.memory().now)
                if pauses and word == "filled":
                    waits["filling"] = beside.result(now=True)
                if pauses and word in {"fill", "filled"}:
                    beside.start(PAUSE_SECONDS, PAUSE_INTERVAL)
        figures = generator.result()
        # Of the flood the figure of interest is what it does to somebody else.
        latency = beside.result() if load.scenario == "flood" else figures["latency_us"]
        if pauses:
            waits["emptying"] = beside.result(now=True)
        peak = server.memory().peak
    others = meter.machine_seconds - meter.server_seconds - figures["cpu_seconds"]
    return server, {
        "generator": figures,
        "server_cpu_seconds": round(meter.server_seconds, 4),
        "window_cpu_seconds": [round(seconds, 4) for seconds in meter.windows],
        "memory_begin": meter.memory_begin,
        "memory_end": meter.memory_end,
        "peak_memory": peak,
        "memory_at": edges,
        "pauses_us": waits,
        "others_cores": round(max(0.0, others) / meter.wall_seconds, 3),
        "latency_us": latency,
    }
