"""Fixtures for the command line: a silent environment, and servers as real processes."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.plain import server_in_thread
from trigear.cli.root import run_gearmand, run_trigear
from trigear.wire.codec import request

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator

    from tests.cli.talking import Terminal

PATIENCE = 30.0  # seconds until a test gives up on a process or a socket

TRIGEAR = [sys.executable, "-m", "trigear"]
GEARMAND = [str(Path(sys.executable).with_name("gearmand"))]


@pytest.fixture(autouse=True)
def silent_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no file of whoever runs the tests changes what a command does."""
    for name in os.environ:
        if name.startswith(("TRIGEAR_", "GEARMAN")):
            monkeypatch.delenv(name)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("NO_COLOR", "1")


@dataclass(frozen=True)
class Said:
    """How a command that ran in this process ended."""

    status: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on standard error."""
        assert self.err.count("\n") == 1, self.err
        return self.err.rstrip("\n")


@pytest.fixture
def trigear(capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run `trigear` with these arguments."""

    def run(*args: str) -> Said:
        status = run_trigear(args)
        return Said(status, *capfd.readouterr())

    return run


@pytest.fixture
def gearmand(capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run `gearmand` with these arguments."""

    def run(*args: str) -> Said:
        status = run_gearmand(args)
        return Said(status, *capfd.readouterr())

    return run


class Running:
    """A server process that said it serves."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.address = ""

    def read_until(self, words: str) -> str:
        """The next line on standard error that has ``words`` in it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if words in line:
                return line
        pytest.fail(f"no line with {words!r}; status {self.process.wait()}: {''.join(self.lines)}")

    def wait_for_start(self) -> None:
        line = self.read_until(" listening on ")
        self.address = line.split(" listening on ")[1].split(";")[0].split(", ")[0]

    def connect(self) -> socket.socket:
        return connect(self.address)

    def ask(self, text: str) -> str:
        return ask(self.address, text)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit status; what was said until then is in ``lines``."""
        assert self.process.stderr is not None
        self.lines += self.process.stderr
        return self.process.wait(timeout=PATIENCE)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


def connect(address: str) -> socket.socket:
    if address.startswith("unix:"):
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(PATIENCE)
        link.connect(address.removeprefix("unix:"))
        return link
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE)


def ask(address: str, text: str) -> str:
    """The first line of the answer to a text command."""
    with connect(address) as link, link.makefile("rwb") as stream:
        stream.write(text.encode() + b"\n")
        stream.flush()
        return stream.readline().decode()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a server and wait until it says that it serves."""
    with contextlib.ExitStack() as stack:

        def run(*command: str, cwd: Path | None = None) -> Running:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                cwd=cwd or tmp_path,
            )
            running = Running(process)
            stack.callback(running.kill)
            running.wait_for_start()
            return running

        yield run


class Peer:
    """One end of a connection that speaks packets; enough of a client or a worker for a test."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.stream = link.makefile("rb")

    def send(self, number: int, *args: bytes) -> None:
        self.link.sendall(request(number, *args))

    def receive(self) -> tuple[int, bytes]:
        """The next packet's number and payload; (-1, b"") at the end of the connection."""
        header = self.stream.read(12)
        if len(header) < 12:
            return -1, b""
        return int.from_bytes(header[4:8]), self.stream.read(int.from_bytes(header[8:12]))

    def close(self) -> None:
        self.stream.close()
        self.link.close()


@pytest.fixture
def peer() -> Iterator[Callable[[Running], Peer]]:
    """Connect to a server, as a client or a worker."""
    with contextlib.ExitStack() as stack:

        def open_one(server: Running) -> Peer:
            one = Peer(server.connect())
            stack.callback(one.close)
            return one

        yield open_one


@pytest.fixture
def as_root() -> None:
    """This test changes users, which only root can."""
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("only root can become another user", pytrace=False)
        pytest.skip("only root can become another user")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder of ours that every user may look into; pytest's own is closed to others."""
    with tempfile.TemporaryDirectory(prefix="trigear-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


# Commands that talk to a server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server, named by the environment."""
    with server_in_thread() as (address,):
        monkeypatch.setenv("TRIGEAR_SERVERS", address)
        yield address


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address where no server is, named by the environment."""
    monkeypatch.setenv("GEARMAN_SERVERS", "127.0.0.1:1")
    return "127.0.0.1:1"


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Set what commands in this process find on standard input."""

    def put(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return put


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Run `trigear` on a terminal."""
    from tests.cli.talking import Terminal

    opened: list[Terminal] = []

    def run(*args: str, streams: str = "ioe") -> Terminal:
        opened.append(Terminal(*args, streams=streams))
        return opened[-1]

    yield run
    for one in opened:
        one.close()
