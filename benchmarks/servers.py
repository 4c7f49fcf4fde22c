"""The servers that can be measured, and one of them running as a child process."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from benchmarks import database, procfs
from trigear.security import issuing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

HOST = "127.0.0.1"
START_SECONDS = 20.0
STOP_SECONDS = 5.0

# -P: the trigear that is installed, not one that happens to lie in the current directory.
TRIGEAR = (sys.executable, "-P", "-m", "trigear")


class ServerError(Exception):
    """A server could not be started; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One way of starting a Gearman server.

    `program` is the file that must exist, `package` what to install when it does not. `command`
    gets the port and an empty directory for files the server insists on. With `database` a
    PostgreSQL server runs there as well, which is not measured. With `tls` it speaks TLS 1.3 and
    nothing else.
    """

    name: str
    title: str
    program: str
    package: str
    command: Callable[[int, Path], list[str]]
    database: bool = False
    tls: bool = False

    def missing(self) -> str | None:
        """One line about what has to be installed, or None when the server can be started."""
        if self.database and database.programs() is None:
            return f"{self.name}: there is no PostgreSQL; apt install {database.PACKAGE}"
        if Path(self.program).exists():
            return None
        return (
            f"{self.name}: {self.program} is not there; install it with: apt install {self.package}"
        )


def _gearmand(threads: int) -> Callable[[int, Path], list[str]]:
    def command(port: int, directory: Path) -> list[str]:
        return [
            *("/usr/sbin/gearmand", "-t", str(threads), "--port", str(port), "--listen", HOST),
            *("--log-file", "none", "--pid-file", str(directory / "gearmand.pid")),
        ]

    return command


def _gearmand_sqlite(port: int, directory: Path) -> list[str]:
    queue = ["-q", "libsqlite3", "--libsqlite3-db", str(directory / "queue.sqlite3")]
    return [*_gearmand(4)(port, directory), *queue]


def _gearmand_postgresql(port: int, directory: Path) -> list[str]:
    conninfo = f"host={database.place(directory)} user={database.ROLE} dbname=postgres"
    return [*_gearmand(4)(port, directory), "-q", "Postgres", f"--libpq-conninfo={conninfo}"]


def _perl(port: int, _directory: Path) -> list[str]:
    return ["/usr/bin/gearmand", f"--port={port}", f"--listen={HOST}"]


def _trigear(store: str) -> Callable[[int, Path], list[str]]:
    def command(port: int, directory: Path) -> list[str]:
        return [
            *(*TRIGEAR, "server"),
            *("--listen", HOST, "--port", str(port)),
            *("--store", store, "--state-dir", str(directory)),
        ]

    return command


def _trigear_tls(port: int, directory: Path) -> list[str]:
    moment = datetime.now(UTC)
    authority = issuing.make_authority("trigear bench", moment, 1)
    issued = issuing.for_server(authority, [issuing.server_name(HOST)], moment, 1)
    cert, key = issuing.write(directory, "server", issued)
    return [
        *(*TRIGEAR, "server", "--listen", f"gearmans://{HOST}:{port}"),
        *("--tls-min", "1.3", "--cert", str(cert), "--key", str(key)),
        *("--store", "memory", "--state-dir", str(directory)),
    ]


def _trigear_postgresql(port: int, directory: Path) -> list[str]:
    host = quote(str(database.place(directory)), safe="")
    return _trigear(f"postgresql://{database.ROLE}@{host}/postgres")(port, directory)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("trigear", "trigear", sys.executable, "python3", _trigear("memory")),
        Peer("trigear-tls", "trigear, TLS 1.3", sys.executable, "python3", _trigear_tls, tls=True),
        Peer("trigear-sqlite", "trigear, SQLite", sys.executable, "python3", _trigear("sqlite")),
        Peer(
            "trigear-postgresql",
            "trigear, PostgreSQL",
            sys.executable,
            "python3",
            _trigear_postgresql,
            database=True,
        ),
        Peer("gearmand", "gearmand -t 4", "/usr/sbin/gearmand", "gearman-job-server", _gearmand(4)),
        Peer(
            "gearmand-t1", "gearmand -t 1", "/usr/sbin/gearmand", "gearman-job-server", _gearmand(1)
        ),
        Peer(
            "gearmand-sqlite",
            "gearmand -q libsqlite3",
            "/usr/sbin/gearmand",
            "gearman-job-server",
            _gearmand_sqlite,
        ),
        Peer(
            "gearmand-postgresql",
            "gearmand -q Postgres",
            "/usr/sbin/gearmand",
            "gearman-job-server",
            _gearmand_postgresql,
            database=True,
        ),
        Peer("perl", "Perl Gearman::Server", "/usr/bin/gearmand", "gearman-server", _perl),
    )
}


def free_port() -> int:
    """A TCP port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def ask_version(port: int, *, tls: bool = False) -> str | None:
    """The server's answer to the text command `version`, or None while it does not give one."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        s = stack.enter_context(socket.create_connection((HOST, port), timeout=1))
        if tls:
            # Nothing secret is said; who answers is a child of this process.
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            s = stack.enter_context(context.wrap_socket(s))
        s.sendall(b"version\n")
        answer = b""
        while not answer.endswith(b"\n"):
            got = s.recv(200)
            if not got:
                return None
            answer += got
        return answer.decode("latin-1").strip().removeprefix("OK").strip()
    return None


class Server:
    """A running server; leaving the `with` block stops it and everything it started.

    Args:
        peer: which server.
        extra: further words for its command line.
        cpus: processors it may use, None for all of them.
        patience: seconds it may take until it answers the text command `version`.
        environment: further variables for it.

    Raises (on entering):
        ServerError: it ended, or gave no answer in time.
    """

    def __init__(
        self,
        peer: Peer,
        extra: Sequence[str] = (),
        cpus: frozenset[int] | None = None,
        patience: float = START_SECONDS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.peer = peer
        self.port = free_port()
        self.version = ""
        self.command: list[str] = []
        self._extra = list(extra)
        self._cpus = cpus
        self._patience = patience
        self._environment = {**os.environ, **(environment or {})}
        preloaded = (environment or {}).get("LD_PRELOAD")
        self._preloaded = None if preloaded is None else Path(preloaded)
        self._beside = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        made = tempfile.TemporaryDirectory(prefix="trigear-bench-")
        directory = Path(self._beside.enter_context(made))
        self.command = [*self.peer.command(self.port, directory), *self._extra]
        try:
            if self.peer.database:
                self._beside.enter_context(database.postgresql(directory, self._preloaded))
            with (directory / "output").open("wb") as output, pinned(self._cpus):
                # A session of its own: an interrupt from the keyboard reaches the harness alone,
                # which then stops the server itself, in the same way as at the end of a round.
                self._process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=self._environment,
                )
            self._wait_until_ready(directory / "output")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            for sign, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, None)):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, sign)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(seconds)
                    break
        self._beside.close()

    def _wait_until_ready(self, output: Path) -> None:
        assert self._process is not None
        give_up = time.monotonic() + self._patience
        while time.monotonic() < give_up:
            if (status := self._process.poll()) is not None:
                raise ServerError(self._explain(f"ended with status {status}", output))
            if (version := ask_version(self.port, tls=self.peer.tls)) is not None:
                self.version = version
                return
            time.sleep(0.02)
        raise ServerError(self._explain(f"gave no version within {self._patience:g} s", output))

    def _explain(self, what: str, output: Path) -> str:
        lines = output.read_text(errors="replace").strip().splitlines()
        said = f"; its last line: {lines[-1].strip()}" if lines else ""
        return f"{self.peer.name} {what}{said}\n  command: {shlex.join(self.command)}"

    def cpu_seconds(self) -> float:
        """Processor time it has used so far, threads and children included."""
        return procfs.cpu_seconds(self.pid)

    def memory(self) -> procfs.Memory:
        """Its memory now and at its highest."""
        return procfs.memory(self.pid)


@contextlib.contextmanager
def pinned(cpus: frozenset[int] | None) -> Iterator[None]:
    """Children started inside may use `cpus` only; this process gets its own set back after."""
    before = os.sched_getaffinity(0)
    if cpus:
        os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
