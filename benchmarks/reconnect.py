"""How long workers need to be at work again after a restart: `python -m benchmarks.reconnect`.

Many workers, each with a connection of its own over TLS and a login by SASL, wait for jobs. The
server is killed and started again. What is measured is the time from the moment at which it serves
until it knows all of them again, and the processor time that this costs it. The workers are
trigear's own, all in this process, on the same machine: a good part of the time is theirs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import resource
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import trio

import trigear
from benchmarks import procfs
from benchmarks.servers import HOST, TRIGEAR, free_port
from trigear.security import issuing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WORKERS = 2000
PATIENCE = 120.0
"""Seconds until all workers are there."""

LOOK_SECONDS = 0.1
DESCRIPTORS = 100
"""That a process needs besides one for each connection."""

USER, PASSWORD = "bench", "a password of the benchmark"


class Fortress:
    """A server with TLS and users, which can be started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        moment = datetime.now(UTC)
        authority = issuing.make_authority("trigear bench", moment, 1)
        issued = issuing.for_server(authority, [issuing.server_name(HOST)], moment, 1)
        self.ca, _ = issuing.write(folder, "ca", authority)
        cert, key = issuing.write(folder, "server", issued)
        users, secret = folder / "users.toml", folder / "password"
        secret.write_text(PASSWORD)
        roles = [word for role in ("submit", "work", "admin") for word in ("--role", role)]
        subprocess.run(
            [
                *(*TRIGEAR, "--quiet", "user", "add", USER, *roles),
                *("--password-file", str(secret), "--users", str(users)),
            ],
            check=True,
        )
        self._command = [
            *(*TRIGEAR, "server", "--listen", f"gearmans://{HOST}:{self.port}"),
            *("--cert", str(cert), "--key", str(key), "--auth", "sasl", "--users", str(users)),
            *("--store", "memory", "--state-dir", str(folder), "--audit-log", str(folder / "log")),
        ]
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"gearmans://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; returns when it serves."""
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if " listening on " in line:
                return
        raise SystemExit(f"the server did not start: {' '.join(self._command)}")

    async def listen(self) -> None:
        """Read what it says, so that it never has to wait for a reader. Ends with the server."""
        assert self._process is not None
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            await trio.to_thread.run_sync(stream.read)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


async def measure(folder: Path, workers: int, rounds: int) -> list[dict[str, Any]]:
    """Let them connect, and again after each restart."""
    fortress = Fortress(folder)
    found = []
    async with trio.open_nursery() as nursery:
        try:
            fortress.start()
            nursery.start_soon(fortress.listen)
            for _ in range(workers):
                nursery.start_soon(work, fortress)
            first = await until_there(fortress, workers)
            for _ in range(rounds):
                fortress.kill()
                fortress.start()
                nursery.start_soon(fortress.listen)
                again = await until_there(fortress, workers)
                found.append({"first": first, **again})
        finally:
            # Also for those that listen to it: they hear its end.
            fortress.kill()
        nursery.cancel_scope.cancel()
    return found


async def work(fortress: Fortress) -> None:
    worker = trigear.Worker()
    worker.register("bench", nothing)
    await worker.run(fortress.address, tls=fortress_tls(fortress), auth=auth_of_all)


async def nothing(_job: trigear.WorkerJob) -> bytes:
    return b""


def fortress_tls(fortress: Fortress) -> trigear.ClientTLS:
    return trigear.ClientTLS(ca=str(fortress.ca))


auth_of_all = trigear.Auth(USER, PASSWORD)
"""One for all, as in a process with many workers: a password is stretched once."""


async def until_there(fortress: Fortress, workers: int) -> dict[str, float]:
    """Wait until the server knows so many workers; how long that took it, and what it cost it."""
    begin, before = time.monotonic(), procfs.cpu_seconds(fortress.pid)
    with trio.fail_after(PATIENCE):
        while await there(fortress) < workers:  # noqa: ASYNC110  another process
            await trio.sleep(LOOK_SECONDS)
    seconds = time.monotonic() - begin
    return {"seconds": seconds, "server_cpu": procfs.cpu_seconds(fortress.pid) - before}


async def there(fortress: Fortress) -> int:
    """How many workers the server knows; who asks is one of very many who want to come in."""
    try:
        async with trigear.connect_admin(
            fortress.address, tls=fortress_tls(fortress), auth=auth_of_all
        ) as admin:
            found = [one.workers for one in await admin.status() if one.function == "bench"]
    except trigear.ConnectionLost:
        return 0
    return sum(found)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let no worker say that its server is gone: that is meant here."""
    log = logging.getLogger("trigear")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    it = argparse.ArgumentParser(prog="benchmarks.reconnect", description=__doc__)
    it.add_argument("--workers", type=int, default=WORKERS, help="(default: 2000)")
    it.add_argument("--rounds", type=int, default=3, help="restarts (default: 3)")
    it.add_argument("--json", action="store_true", help="print every round as JSON")
    return it


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0; it raises where something went wrong."""
    options = parser().parse_args(arguments)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < options.workers + DESCRIPTORS:
        most = min(hard, options.workers + DESCRIPTORS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    with quiet(), tempfile.TemporaryDirectory(prefix="trigear-bench-") as folder:
        rounds = trio.run(measure, Path(folder), options.workers, options.rounds)
    if options.json:
        print(json.dumps(rounds))
        return 0
    seconds = sorted(one["seconds"] for one in rounds)
    cpu = median(one["server_cpu"] for one in rounds) / options.workers * 1e3
    print(
        f"{options.workers:,} workers, TLS and SASL: at work again {median(seconds):.1f} s after"
        f" the server serves (from {seconds[0]:.1f} to {seconds[-1]:.1f} s);"
        f" {cpu:.1f} ms of the server's processor time for each"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
