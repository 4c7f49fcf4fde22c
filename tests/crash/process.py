"""A server with a durable queue as a process that can be killed and started again, and blocking
connections to it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Self

from trigear.wire.codec import request
from trigear.wire.packets import GET_STATUS, STATUS_RES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PATIENCE = 60.0

TRIGEAR = (sys.executable, "-m", "trigear")


class Link:
    """A connection that speaks packets. Ends with ``ConnectionError`` when the server does."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(path))
        self._stream = self.sock.makefile("rb")

    def send(self, number: int, *args: bytes) -> None:
        self.sock.sendall(request(number, *args))

    def send_all(self, packets: Sequence[bytes]) -> None:
        self.sock.sendall(b"".join(packets))

    def receive(self) -> tuple[int, bytes]:
        """The next packet's number and payload."""
        head = self._stream.read(12)
        if len(head) < 12:
            raise ConnectionResetError("the server is gone")
        size = int.from_bytes(head[8:])
        payload = self._stream.read(size)
        if len(payload) < size:
            raise ConnectionResetError("the server is gone")
        return int.from_bytes(head[4:8]), payload

    def command(self, line: str) -> list[str]:
        """The lines of the answer to a text command: up to the dot, or one if there is no table."""
        self.sock.sendall(line.encode() + b"\n")
        found = []
        while True:
            line = self._stream.readline().decode().rstrip("\r\n")
            if line == ".":
                return found
            found.append(line)
            if line.startswith(("OK", "ERR")):
                return found

    def wait_until_loaded(self) -> None:
        """Wait until the server has loaded all that its store holds: before that its lists are not
        complete, and it does not say of a handle that it knows it not."""
        self.send(GET_STATUS, b"H:nobody:0")
        said, payload = self.receive()
        assert (said, payload) == (STATUS_RES, b"H:nobody:0\x000\x000\x000\x000")

    def line(self) -> str:
        """The next line of text."""
        return self._stream.readline().decode().rstrip("\r\n")

    def close(self) -> None:
        self._stream.close()
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DurableServer:
    """A server on a Unix socket in ``folder``, its queue beside it; it may live several times.

    Args:
        folder: where its files are.
        program: what is started; gets trigear's arguments.
        options: more arguments.
        store: where the queue is if not beside it.
        face: whether these make it gearmand, which has other options for the rest.
    """

    def __init__(
        self,
        folder: Path,
        *,
        program: Sequence[str] = TRIGEAR,
        options: Sequence[str] = (),
        store: str | None = None,
        face: bool = False,
    ) -> None:
        self.folder = folder
        self.path = folder / "x.sock"
        self.database = folder / "state" / "jobs.sqlite3"
        self.lines: list[str] = []
        """What it said on standard error in this life, up to the start."""
        places = ["--state-dir", str(folder / "state")]
        if store is not None:
            places = ["--store", store]
        if face:
            places = ["--log-file", "stderr", "--pid-file", str(folder / "x.pid")]
        listen = ["--listen", f"unix:{self.path}"]
        self._command = [*program, "server", *listen, *places, *options]
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> str:
        """Start it and wait until it serves; returns the line that says so."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        self.lines = []
        for line in self._process.stderr:
            self.lines.append(line)
            if " listening on " in line:
                return line
        status = self._process.wait()
        raise AssertionError(f"it ended with status {status}: {''.join(self.lines)}")

    def kill(self) -> None:
        """As a loss of power would be for the process: it gets to do nothing any more."""
        self._end(signal.SIGKILL)

    def stop(self) -> str:
        """Stop it gracefully; returns what it said meanwhile."""
        return self._end(signal.SIGTERM)

    def wait(self) -> None:
        """Wait until it has ended by itself."""
        process, self._process = self._process, None
        assert process is not None
        assert process.stderr is not None
        process.stderr.read()
        process.stderr.close()
        process.wait(PATIENCE)

    def _end(self, number: signal.Signals) -> str:
        process, self._process = self._process, None
        if process is None:
            return ""
        assert process.stderr is not None
        with process.stderr:
            process.send_signal(number)
            process.wait(PATIENCE)
            return process.stderr.read()

    def link(self) -> Link:
        return Link(self.path)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
