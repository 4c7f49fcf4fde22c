"""A memcached of Debian's, and a package that keeps results there, installed for the test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import START_PATIENCE, install

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "/usr/bin/memcached"
PACKAGE = Path(__file__).with_name("trigear_memcached.py")


class Memcached:
    """A server on a Unix socket, which may live several times."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "m.sock"
        self.url = f"memcached://{self.path}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [PROGRAM, "-s", str(self.path), "-a", "0700", "-U", "0"]
        if os.geteuid() == 0:
            command += ["-u", "root"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        give_up = time.monotonic() + START_PATIENCE
        while not self._answers():
            assert self._process.poll() is None, "memcached does not start"
            assert time.monotonic() < give_up, "memcached does not answer"
            time.sleep(0.01)  # a foreign process has no event to wait for

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(START_PATIENCE)
            try:
                link.connect(str(self.path))
            except OSError:
                return False
            link.sendall(b"version\r\n")
            return link.recv(100).startswith(b"VERSION")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(START_PATIENCE)
        self.path.unlink(missing_ok=True)


@pytest.fixture
def memcached() -> Iterator[Memcached]:
    """A memcached with nothing in it. With CI=true it is installed, and never skipped."""
    if not os.path.exists(PROGRAM):
        if os.environ.get("CI") != "true":
            pytest.skip("Debian package not installed here: memcached")
        if os.geteuid() != 0:
            pytest.fail("only root can install memcached", pytrace=False)
        install(["memcached"])
    # Not pytest's folder: the path of a socket may not be long.
    with tempfile.TemporaryDirectory(prefix="trigear-") as folder:
        server = Memcached(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the package in it, as an installer would have left it there."""
    folder = tmp_path / "site-packages"
    about = folder / "trigear_memcached-1.0.dist-info"
    about.mkdir(parents=True)
    shutil.copy(PACKAGE, folder)
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: trigear-memcached\nVersion: 1.0\n"
    )
    (about / "entry_points.txt").write_text(
        "[trigear.results]\nmemcached = trigear_memcached:results\n"
    )
    return folder
