"""What protection costs: `python -m benchmarks.security`.

Two questions. How many foreground jobs a server does over TLS with logins, rights, tenants with
quotas and an audit log, beside one that does them over TLS alone, and one without TLS. And how long
somebody waits for an echo who has nothing to do with it, while others offer handshakes and logins.

Everything is on this machine, on the loopback interface, bounded in number and time: the load takes
its processor time from the server, which the figures say.
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from benchmarks import procfs
from benchmarks.servers import HOST, TRIGEAR, free_port
from benchmarks.stats import percentile
from trigear.security import issuing
from trigear.wire.codec import HEADER_SIZE, request
from trigear.wire.packets import ECHO_REQ, OPTION_REQ, SASL_OK, SASL_START

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

USER, PASSWORD = "bench", "a password of the benchmark"
CLIENTS: Final = 16
"""Threads that offer handshakes and logins; the machine has two processors for all."""

OFFERED: Final = ((0, 0), (50, 20), (150, 60), (500, 200))
"""Handshakes a second, and logins by PLAIN a second over connections of their own."""

BETWEEN_ECHOES: Final = 0.01
LEAST_RATIO: Final = 0.85
MOST_WAIT: Final = 0.025


class Place:
    """A folder with certificates, users and a configuration, and servers that are made of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        moment = datetime.now(UTC)
        authority = issuing.make_authority("trigear bench", moment, 1)
        issued = issuing.for_server(authority, [issuing.server_name(HOST)], moment, 1)
        self.ca, _ = issuing.write(folder, "ca", authority)
        self.cert, self.key = issuing.write(folder, "server", issued)
        self.users, self.secret = folder / "users.toml", folder / "password"
        self.secret.write_text(PASSWORD)
        self.secret.chmod(0o600)
        self.config = folder / "trigear.toml"
        self.config.write_text("[tenant.bench]\n")
        self.empty = folder / "empty.toml"
        self.empty.write_text("")
        roles = [word for role in ("submit", "work", "admin") for word in ("--role", role)]
        subprocess.run(
            [
                *(*TRIGEAR, "--quiet", "user", "add", USER, *roles),
                *("--tenant", "bench", "--password-file", str(self.secret)),
                *("--users", str(self.users)),
            ],
            check=True,
        )

    @contextmanager
    def server(self, kind: str) -> Iterator[Server]:
        """One that is `guarded`, speaks `tls` alone, or is `plain`."""
        port = free_port()
        options = ["--config", str(self.config if kind == "guarded" else self.empty)]
        scheme = "gearman" if kind == "plain" else "gearmans"
        if kind != "plain":
            options += ["--cert", str(self.cert), "--key", str(self.key)]
        if kind == "guarded":
            options += ["--auth", "sasl", "--users", str(self.users)]
            options += ["--audit-log", str(self.folder / "audit.log")]
        process = subprocess.Popen(
            [
                *(*TRIGEAR, "server", "--quiet", "--store", "memory"),
                *("--listen", f"{scheme}://{HOST}:{port}", *options),
            ],
        )
        try:
            wait_for(port)
            yield Server(kind, f"{scheme}://{HOST}:{port}", port, process.pid)
        finally:
            process.terminate()
            process.wait()


class Server:
    """One that runs."""

    def __init__(self, kind: str, address: str, port: int, pid: int) -> None:
        self.kind, self.address, self.port, self.pid = kind, address, port, pid


def wait_for(port: int) -> None:
    """Wait until somebody listens there."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit("the server did not start")


# Jobs


def jobs(place: Place, server: Server, seconds: float) -> dict[str, float]:
    """Foreground jobs a second, and the server's processor time for each."""
    options = ["--server", server.address]
    if server.kind != "plain":
        options += ["--ca", str(place.ca)]
    if server.kind == "guarded":
        options += ["--user", USER, "--password-file", str(place.secret)]
    before = procfs.cpu_seconds(server.pid)
    done = subprocess.run(
        [
            *(*TRIGEAR, "bench", "--json", "--yes", "--quiet", *options),
            *("--scenario", "foreground", "--rounds", "1", "--seconds", str(seconds)),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)["scenarios"]["foreground"]
    return {
        "jobs_per_second": found["jobs_per_second"]["median"],
        # Only operators are told the server's pid, by which the command would measure it.
        "cpu_us_per_job": (procfs.cpu_seconds(server.pid) - before) / found["jobs"] * 1e6,
    }


def throughput(place: Place, rounds: int, seconds: float) -> dict[str, Any]:
    """All three, in turns."""
    found: dict[str, list[dict[str, float]]] = {"guarded": [], "tls": [], "plain": []}
    with ExitStack() as stack:
        servers = [stack.enter_context(place.server(kind)) for kind in found]
        for _ in range(rounds):
            for server in servers:
                found[server.kind].append(jobs(place, server, seconds))
    return {
        kind: {name: median(each[name] for each in rounds) for name in rounds[0]}
        for kind, rounds in found.items()
    }


# Floods


class Line:
    """A connection over TLS, in blocking calls."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        plain = socket.create_connection((HOST, port), timeout=30)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._sock = context.wrap_socket(plain, server_hostname=HOST)
        except OSError:
            plain.close()
            raise
        self._rest = b""

    def ask(self, data: bytes, answers: int = 1) -> int:
        """Send something; the type of the last of so many answers."""
        self._sock.sendall(data)
        number = 0
        for _ in range(answers):
            number = self._next()
        return number

    def _next(self) -> int:
        while len(self._rest) < HEADER_SIZE or len(self._rest) < self._size():
            data = self._sock.recv(65536)
            if not data:
                raise ConnectionError("the server has closed the connection")
            self._rest += data
        number = int.from_bytes(self._rest[4:8], "big")
        self._rest = self._rest[self._size() :]
        return number

    def _size(self) -> int:
        return HEADER_SIZE + int.from_bytes(self._rest[8:12], "big")

    def login(self) -> None:
        """By PLAIN."""
        self.ask(request(OPTION_REQ, b"sasl"), 2)
        answer = self.ask(request(SASL_START, f"PLAIN\0\0{USER}\0{PASSWORD}".encode()))
        if answer != SASL_OK:
            raise ConnectionError("the login failed")

    def close(self) -> None:
        self._sock.close()


def flood(port: int, ca: str, handshakes: float, logins: float, seconds: float) -> dict[str, float]:
    """Offer so many of both a second, from threads; how many came about."""
    context = ssl.create_default_context(cafile=ca)
    counts = {"handshakes": 0, "logins": 0, "failed": 0}
    lock = threading.Lock()
    start = time.monotonic()
    total = int((handshakes + logins) * seconds)
    turns = iter(range(total))

    def offer() -> None:
        while True:
            with lock:
                turn = next(turns, None)
            if turn is None:
                return
            wait = start + turn / (handshakes + logins) - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            elif time.monotonic() > start + seconds:
                return
            share = logins / (handshakes + logins)
            with_login = int((turn + 1) * share) > int(turn * share)
            kind = "logins" if with_login else "handshakes"
            try:
                line = Line(port, context)
                if with_login:
                    line.login()
                line.close()
            except OSError:
                kind = "failed"
            with lock:
                counts[kind] += 1

    threads = [threading.Thread(target=offer) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - start
    return {name: count / elapsed for name, count in counts.items()}


def quiet_tenant(place: Place, seconds: float) -> list[dict[str, Any]]:
    """How long an echo takes while others come."""
    context = ssl.create_default_context(cafile=str(place.ca))
    found = []
    with place.server("guarded") as server:
        line = Line(server.port, context)
        line.login()
        for handshakes, logins in OFFERED:
            found.append(_during(place, server, line, handshakes, logins, seconds))
        line.close()
    return found


def _during(
    place: Place, server: Server, line: Line, handshakes: int, logins: int, seconds: float
) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.security", "--flood", str(server.port)]
    command += [str(place.ca), str(handshakes), str(logins), str(seconds)]
    generator = None
    if handshakes + logins:
        generator = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        time.sleep(1.0)  # it imports, and begins
    busy, cpu = procfs.machine_times(), procfs.cpu_seconds(server.pid)
    start = time.monotonic()
    waits = []
    while time.monotonic() < start + seconds - 1.0:
        begin = time.monotonic()
        line.ask(request(ECHO_REQ, b"?"))
        waits.append(time.monotonic() - begin)
        time.sleep(BETWEEN_ECHOES)
    elapsed = time.monotonic() - start
    now = procfs.machine_times()
    came: dict[str, float] = {}
    if generator is not None:
        came = json.loads(generator.communicate()[0])
    return {
        "offered": {"handshakes": handshakes, "logins": logins},
        "came": came,
        "echo_ms": {
            "median": median(waits) * 1e3,
            "p99": percentile(waits, 0.99) * 1e3,
            "most": max(waits) * 1e3,
        },
        "server_cpu": (procfs.cpu_seconds(server.pid) - cpu) / elapsed,
        "machine_busy": (now.busy - busy.busy) / max(1, now.total - busy.total),
    }


# The report


def tell_throughput(found: dict[str, Any]) -> None:
    print("Foreground jobs, medians; processor time is the server's:")
    for kind, each in found.items():
        rate, cost = each["jobs_per_second"], each["cpu_us_per_job"]
        print(f"  {kind:8} {rate:8,.0f} jobs/s {cost:7.1f} µs/job")
    guarded, tls, plain = found["guarded"], found["tls"], found["plain"]
    ratio = guarded["jobs_per_second"] / tls["jobs_per_second"]
    own = tls["cpu_us_per_job"] / guarded["cpu_us_per_job"]
    print(f"  guarded beside TLS alone: {ratio:.2f} of its rate, by processor time {own:.2f}")
    print(f"  demanded: {LEAST_RATIO}: {'reached' if ratio >= LEAST_RATIO else 'MISSED'}")
    print(
        f"  TLS beside plain: {tls['jobs_per_second'] / plain['jobs_per_second']:.2f} of its rate"
    )


def tell_waits(found: list[dict[str, Any]]) -> None:
    print("Echoes of a tenant that has nothing to do with it:")
    for each in found:
        offered, came, echo = each["offered"], each["came"], each["echo_ms"]
        print(
            f"  offered {offered['handshakes']:4} handshakes/s {offered['logins']:4} logins/s;"
            f" came {came.get('handshakes', 0):4.0f} and {came.get('logins', 0):4.0f},"
            f" failed {came.get('failed', 0):.0f};"
            f" echo median {echo['median']:.1f} ms, p99 {echo['p99']:.1f} ms,"
            f" most {echo['most']:.1f} ms; server {each['server_cpu']:.0%} of a processor,"
            f" machine {each['machine_busy']:.0%} busy"
        )
    last = found[-1]
    print(f"  demanded: p99 of {MOST_WAIT * 1e3:.0f} ms at the highest rate:", end=" ")
    print("reached" if last["echo_ms"]["p99"] <= MOST_WAIT * 1e3 else "MISSED", end="")
    short = any(last["came"].get(kind, 0) < 0.9 * rate for kind, rate in last["offered"].items())
    print(", but this machine could not make up so much load" if short else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.security", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of jobs; default 5")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round; default 2")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", choices=["jobs", "waits"], help="one of the two questions")
    parser.add_argument("--flood", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.flood:
        port, ca, *rates = options.flood
        print(json.dumps(flood(int(port), ca, *map(float, rates))))
        return 0
    found: dict[str, Any] = {"machine": procfs.machine_facts()}
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        if options.only != "waits":
            found["jobs"] = throughput(place, options.rounds, options.seconds)
            if not options.json:
                tell_throughput(found["jobs"])
        if options.only != "jobs":
            found["waits"] = quiet_tenant(place, 3 * options.seconds)
            if not options.json:
                tell_waits(found["waits"])
    if options.json:
        print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
