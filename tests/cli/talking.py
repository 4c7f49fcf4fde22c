"""A terminal for commands that behave otherwise on one."""

from __future__ import annotations

import os
import select
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import PATIENCE, TRIGEAR

if TYPE_CHECKING:
    import signal


Command = "Callable[..., Said]"


class Terminal:
    """`trigear` as a process whose every stream is a terminal."""

    def __init__(self, *args: str, streams: str = "ioe") -> None:
        self.here, there = os.openpty()
        taken = {name: there if name in streams else subprocess.DEVNULL for name in "ioe"}
        self.process = subprocess.Popen(
            [*TRIGEAR, *args], stdin=taken["i"], stdout=taken["o"], stderr=taken["e"]
        )
        os.close(there)
        self.seen = ""

    def read_until(self, words: str) -> str:
        """All that is seen, once ``words`` are among it."""
        give_up = time.monotonic() + PATIENCE
        while words not in self.seen:
            assert self.read(give_up), f"ended without {words!r}: {self.seen!r}"
        return self.seen

    def read(self, give_up: float) -> bool:
        ready, _, _ = select.select([self.here], [], [], max(0, give_up - time.monotonic()))
        if not ready:
            pytest.fail(f"nothing more after {self.seen!r}")
        try:
            data = os.read(self.here, 65536)
        except OSError:  # how Linux says that nobody has the other side open
            data = b""
        self.seen += data.decode().replace("\r\n", "\n")
        return bool(data)

    def type(self, text: str) -> None:
        os.write(self.here, text.encode())

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit status; all that was shown is in ``seen``."""
        give_up = time.monotonic() + PATIENCE
        while self.read(give_up):
            pass
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.here)
