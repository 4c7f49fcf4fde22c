"""Fixtures that every test may use: the Gearman programs of Debian, called by full path.

Our own `gearmand` stands before Debian's on the PATH of a virtual environment, so that a bare name
would test us against ourselves.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from trigear.model import COMPILED

if TYPE_CHECKING:
    from collections.abc import Iterator

# Who runs the tests in the background of a script has interrupts ignored, and every program that
# they start would ignore them as well.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

START_PATIENCE = 20.0  # seconds a foreign server may take until it answers
INSTALL_PATIENCE = 600.0  # seconds for one call of apt-get

FUZZ_VARIABLE = "TRIGEAR_FUZZ_EXAMPLES"
FUZZ_EXAMPLES = 5_000  # in an ordinary run; `nox -s fuzz` asks for many more

# An ordinary run tries the same examples every time, so that it fails for a change and not by
# chance; the fuzz session looks for new ones. How long an example takes says nothing here.
settings.register_profile(
    "trigear",
    deadline=None,
    derandomize=FUZZ_VARIABLE not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("trigear")


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No server that a test starts gets at the jobs of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("STATE_DIRECTORY", raising=False)
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """A command that is run inside of a test sets up the log of the whole process."""
    root = logging.getLogger()
    level, handlers, raising = root.level, list(root.handlers), logging.raiseExceptions
    yield
    root.setLevel(level)
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
    logging.raiseExceptions = raising


@pytest.fixture(autouse=True)
def pure(request: pytest.FixtureRequest) -> None:
    """What is compiled has its constants and methods built in: nothing of a test's can replace
    them, and the test is left to a run without compiling."""
    if COMPILED and request.node.get_closest_marker("pure"):
        pytest.skip("it replaces what is compiled")


@pytest.fixture
def untraced() -> Iterator[None]:
    """Measure no coverage in this test: what does the same things a hundred thousand times takes
    several times longer with it, and covers nothing that no other test does."""
    tracer = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(tracer)


@pytest.fixture(scope="session")
def fuzz_examples() -> int:
    """How many inputs a fuzz test tries."""
    return int(os.environ.get(FUZZ_VARIABLE, FUZZ_EXAMPLES))


@dataclass(frozen=True)
class PeerTools:
    """Where Debian 12 keeps the programs that trigear must get along with."""

    gearmand: Path = Path("/usr/sbin/gearmand")  # the C server, 1.1.20
    perl_gearmand: Path = Path("/usr/bin/gearmand")  # Perl's Gearman::Server
    gearman: Path = Path("/usr/bin/gearman")
    gearadmin: Path = Path("/usr/bin/gearadmin")
    php: Path = Path("/usr/bin/php")  # with the extension "gearman"
    perl: Path = Path("/usr/bin/perl")  # with Gearman::Client


def answers(*command: str | Path) -> str | None:
    """Standard output of a command that succeeds, else None."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def missing_packages(tools: PeerTools) -> list[str]:
    """Debian packages that would have to be installed first."""
    modules = answers(tools.php, "-m")
    present = {
        "gearman-job-server": tools.gearmand.exists(),
        "gearman-server": tools.perl_gearmand.exists(),
        "gearman-tools": tools.gearman.exists() and tools.gearadmin.exists(),
        "libgearman-client-perl": answers(tools.perl, "-MGearman::Client", "-e1") is not None,
        "php-cli": modules is not None,
        "php-gearman": modules is not None and "gearman" in modules.split(),
    }
    return [package for package, there in present.items() if not there]


def install(packages: list[str]) -> None:
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-q"],
        ["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(
            command,
            env=quiet,
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_PATIENCE,
        )
        if done.returncode != 0:
            pytest.fail(f"{' '.join(command)}: {done.stdout}{done.stderr}", pytrace=False)


@pytest.fixture(scope="session")
def peer_tools() -> PeerTools:
    """Debian's Gearman programs. With CI=true they are installed, and never skipped."""
    tools = PeerTools()
    missing = missing_packages(tools)
    if not missing:
        return tools
    if os.environ.get("CI") != "true":
        pytest.skip(f"Debian packages not installed here: {' '.join(missing)}")
    if os.geteuid() != 0:
        pytest.fail(f"only root can install what is missing: {' '.join(missing)}", pytrace=False)
    install(missing)
    still = missing_packages(tools)
    if still:
        pytest.fail(f"installed, but still not usable: {' '.join(still)}", pytrace=False)
    return tools


@pytest.fixture(scope="session")
def strace() -> str:
    """The path of strace, which must be able to trace here. With CI=true it is installed, and never
    skipped."""
    program = "/usr/bin/strace"
    in_ci = os.environ.get("CI") == "true"
    if not os.path.exists(program):
        if not in_ci:
            pytest.skip("Debian package not installed here: strace")
        if os.geteuid() != 0:
            pytest.fail("only root can install strace", pytrace=False)
        install(["strace"])
    if answers(program, "-o", "/dev/null", "true") is None:
        if not in_ci:
            pytest.skip("strace may not trace here")
        pytest.fail("strace may not trace here", pytrace=False)
    return program


def program(path: str, package: str) -> str:
    """The path of a program of Debian's. With CI=true it is installed, and never skipped."""
    if not os.path.exists(path):
        if os.environ.get("CI") != "true":
            pytest.skip(f"Debian package not installed here: {package}")
        if os.geteuid() != 0:
            pytest.fail(f"only root can install {package}", pytrace=False)
        install([package])
    return path


@pytest.fixture(scope="session")
def setuidgid() -> str:
    """The path of daemontools' setuidgid."""
    return program("/usr/bin/setuidgid", "daemontools")


@pytest.fixture(scope="session")
def stunnel() -> str:
    """The path of stunnel."""
    return program("/usr/bin/stunnel", "stunnel4")


@pytest.fixture(scope="session")
def root() -> None:
    """That these tests run as root, who may become others. With CI=true they must."""
    if os.geteuid() != 0:
        if os.environ.get("CI") != "true":
            pytest.skip("only root can become another user")
        pytest.fail("only root can become another user", pytrace=False)


@dataclass
class ForeignServer:
    """A running server that is not ours; `process` belongs to the fixture that started it."""

    host: str
    port: int
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def ask(self, line: bytes, end: bytes = b"\n") -> bytes:
        """The answer to one administrative command, up to and including `end`."""
        with socket.create_connection((self.host, self.port), timeout=START_PATIENCE) as link:
            link.sendall(line + b"\n")
            answer = b""
            while not answer.endswith(end):
                chunk = link.recv(65536)
                if not chunk:
                    raise ConnectionError(f"{self.address} hung up after {answer!r}")
                answer += chunk
            return answer

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=START_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def wait_until_it_answers(server: ForeignServer) -> bool:
    """Connect and ask until there is an answer; False if the process has ended instead."""
    give_up = time.monotonic() + START_PATIENCE
    while server.process.poll() is None:
        with contextlib.suppress(OSError):
            server.ask(b"version")
            return True
        if time.monotonic() > give_up:
            server.stop()
            pytest.fail(f"{server.process.args!r} does not answer", pytrace=False)
        time.sleep(0.01)  # a foreign process has no event to wait for
    return False


def run_gearmand_c(tools: PeerTools, log: Path, *options: str) -> ForeignServer:
    """Debian's gearmand on a free port of the loopback, answering when this returns."""
    # A port that is free now may be taken a moment later: then the server ends and we try another.
    for _ in range(5):
        port = free_port()
        command = [str(tools.gearmand), "--listen=127.0.0.1", f"--port={port}"]
        with log.open("ab") as sink:
            process = subprocess.Popen(
                [*command, "--log-file=stderr", *options],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=log.parent,
            )
        server = ForeignServer("127.0.0.1", port, process)
        if wait_until_it_answers(server):
            return server
    pytest.fail(f"gearmand does not start: {log.read_text(errors='replace')}", pytrace=False)


@pytest.fixture
def gearmand_c(peer_tools: PeerTools, tmp_path: Path) -> Iterator[ForeignServer]:
    """A fresh /usr/sbin/gearmand for this test alone."""
    server = run_gearmand_c(peer_tools, tmp_path / "gearmand-c.log")
    yield server
    server.stop()
