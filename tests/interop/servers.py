"""The two servers as processes: started on a free port, awaited, asked, stopped."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from tests.conftest import PeerTools, free_port
from tests.interop import raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Seen = TypeVar("Seen")

HOST = "127.0.0.1"
START_SECONDS = 20.0
STOP_SECONDS = 5.0
WAIT_SECONDS = 20.0


def gearmand_command(port: int) -> list[str]:
    """The C server of Debian, as its packages install it."""
    return [
        str(PeerTools.gearmand),
        f"--listen={HOST}",
        f"--port={port}",
        "--log-file=stderr",
    ]


def trigear_command(port: int) -> list[str]:
    """The server of this project, from the running interpreter's environment."""
    command = [sys.executable, "-m", "trigear", "server"]
    return [*command, "--listen", HOST, "--port", str(port), "--store", "memory"]


def gearmand_face_command(port: int) -> list[str]:
    """This project's server called by gearmand's name with gearmand's options."""
    return [
        str(pathlib.Path(sys.executable).with_name("gearmand")),
        f"--listen={HOST}",
        f"--port={port}",
        "--log-file=stderr",
    ]


COMMANDS: dict[str, Callable[[int], list[str]]] = {
    "gearmand": gearmand_command,
    "trigear": trigear_command,
}


def wait_until(what: str, look: Callable[[], Seen], seconds: float = WAIT_SECONDS) -> Seen:
    """Look until there is a true answer and return it; after `seconds` raise `TimeoutError`.

    For states of foreign processes, which announce nothing that could be waited for.
    """
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not seen within {seconds:g} s: {what} (last: {seen!r})")
        time.sleep(0.005)
    return seen


@dataclass
class Address:
    """Where a server is, or will be."""

    port: int
    host: str = field(default=HOST, kw_only=True)


@dataclass
class Server(Address):
    """A running server process."""

    name: str
    process: subprocess.Popen[bytes]
    log: pathlib.Path

    def text(self, command: str) -> list[str]:
        """The lines with which the server answers a text command."""
        return raw.text_command(self.host, self.port, command)

    def connect(self) -> raw.RawConnection:
        return raw.RawConnection(self.host, self.port)

    def functions(self) -> dict[str, tuple[int, int, int]]:
        """What `status` says: jobs, running jobs and workers of each function."""
        table = {}
        for line in self.text("status"):
            name, total, running, workers = line.split("\t")
            table[name] = (int(total), int(running), int(workers))
        return table

    def queued_by_priority(self, function: str) -> tuple[int, int, int] | None:
        """What `prioritystatus` says of the function: queued high, normal and low jobs."""
        for line in self.text("prioritystatus"):
            name, high, normal, low, _workers = line.split("\t")
            if name == function:
                return int(high), int(normal), int(low)
        return None

    def waiting_clients(self, unique: str) -> int:
        """How many clients wait for the job with this unique."""
        with self.connect() as connection:
            connection.send(raw.GET_STATUS_UNIQUE, unique.encode())
            return int(connection.expect(raw.STATUS_RES_UNIQUE)[5])

    def wait_for_functions(self, names: Sequence[str]) -> None:
        """Return once somebody works on every one of these functions."""

        def missing() -> bool:
            table = self.functions()
            return all(table.get(name, (0, 0, 0))[2] > 0 for name in names)

        wait_until(f"workers for {', '.join(names)} at {self.name}", missing)


def answers(host: str, port: int) -> bool:
    """Whether a server answers the text command `version` there."""
    try:
        return bool(raw.text_command(host, port, "version", timeout=1.0))
    except OSError:
        return False


def start(
    name: str,
    command: Callable[[int], list[str]],
    directory: pathlib.Path,
    port: int | None = None,
) -> Server:
    """Start a server, on a free port unless told otherwise, and return once it answers."""
    fixed = port is not None
    for attempts_left in (2, 1, 0):
        chosen = port if port is not None else free_port()
        log = directory / f"{name}-{chosen}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command(chosen),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=directory,
            )
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if answers(HOST, chosen):
                return Server(chosen, name, process, log)
            time.sleep(0.01)
        state = "runs" if process.returncode is None else f"ended with {process.returncode}"
        stop(process)
        # A port that was free may be taken a moment later: another one may do.
        if fixed or not attempts_left:
            break
    raise RuntimeError(
        f"{name} does not answer on port {chosen}; it {state} and wrote:\n"
        + log.read_text(errors="replace")
    )


@contextlib.contextmanager
def running(
    name: str,
    command: Callable[[int], list[str]],
    directory: pathlib.Path,
    port: int | None = None,
) -> Iterator[Server]:
    """A server for the length of the block."""
    server = start(name, command, directory, port)
    try:
        yield server
    finally:
        stop(server.process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that this module or a test started."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
