"""PostgreSQL servers of our own, for as long as a test or a whole run needs them.

Each has its files, its socket and its settings in a folder that nobody else uses; whatever runs on
the machine otherwise is left alone. PostgreSQL refuses to run as root, so that root's tests start
it as the user of the Debian package.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

PATIENCE = 60.0
"""Seconds that a server may take to start or stop."""

PACKAGE = "postgresql"
ADMIN = "admin"
ROLE = "trigear"

FAST = {"fsync": "off", "synchronous_commit": "on", "full_page_writes": "off"}
"""For tests that kill no machine: nothing is lost with a process."""

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0777",
    "max_wal_size": "256MB",
    "shared_buffers": "32MB",
    "max_connections": "40",
    "log_min_messages": "warning",
}


def programs() -> Path | None:
    """Where Debian keeps the newest PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    return found[-1].parent if found else None


def _version(path: Path) -> float:
    return float(path.parts[-3])


@functools.cache
def needed() -> Path:
    """Where the programs are. With CI=true they are installed, and never skipped."""
    found = programs()
    if found is None:
        if os.environ.get("CI") != "true":
            pytest.skip(f"Debian package not installed here: {PACKAGE}")
        if os.geteuid() != 0:
            pytest.fail(f"only root can install {PACKAGE}", pytrace=False)
        from tests.conftest import install

        install([PACKAGE])
        found = programs()
        if found is None:
            pytest.fail(f"installed, but still not there: {PACKAGE}", pytrace=False)
    return found


class Cluster:
    """A server with a database `trigear` that belongs to the role `trigear`, not yet started.

    Args:
        settings: of postgresql.conf.
        port: where it listens on this machine beside the socket.
        hba: lines of pg_hba.conf before the one that trusts everybody on the socket.
        standby_of: another one that runs; this one follows it, with the same content.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        port: int | None = None,
        hba: str = "",
        standby_of: Cluster | None = None,
    ) -> None:
        self._programs = needed()
        self._who: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._who = {"user": "postgres", "group": "postgres", "extra_groups": []}
        self.folder = Path(tempfile.mkdtemp(prefix="trigear-pg-", dir="/tmp"))
        self.folder.chmod(0o755)
        if self._who:
            shutil.chown(self.folder, "postgres", "postgres")
        self.data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        if standby_of is None:
            self._call("initdb", "-A", "trust", "-U", ADMIN, "-E", "UTF8", "--no-locale", "-N")
        else:
            source = f"host={standby_of.folder} user={ADMIN} application_name=standby"
            self._call("pg_basebackup", "-R", "-N", "-c", "fast", "-d", source)
        given: dict[str, object] = {**_SETTINGS, **(settings or {})}
        self.port = port or 5432
        if port is not None:
            given |= {"listen_addresses": "127.0.0.1", "port": port}
        lines = [f"{name} = '{value}'" for name, value in given.items()]
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("\n".join([*lines, f"unix_socket_directories = '{self.folder}'", ""]))
        hba_file = self.data / "pg_hba.conf"
        hba_file.write_text(f"{hba}\n{hba_file.read_text(encoding='utf-8')}", encoding="utf-8")
        self._new = standby_of is None

    def _call(self, program: str, *options: str) -> None:
        done = subprocess.run(
            [self._programs / program, "-D", self.data, *options],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            **self._who,
        )
        assert done.returncode == 0, done.stderr

    def keep(self, name: str, content: bytes) -> Path:
        """Write a file that only the server may read."""
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(0o600)
        if self._who:
            shutil.chown(path, "postgres", "postgres")
        return path

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "log").open("ab") as sink:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.data],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd="/",
                preexec_fn=_end_with_the_tests,
                **self._who,
            )
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                self.admin("postgres").close()
                break
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > give_up:
                    log = (self.folder / "log").read_text(errors="replace")
                    raise AssertionError(f"PostgreSQL does not start: {log}") from error
                time.sleep(0.02)  # a foreign process has no event to wait for
        if self._new:
            self._new = False
            self.run(f"CREATE ROLE {ROLE} LOGIN", database="postgres")
            self.run(f"CREATE DATABASE {ROLE} OWNER {ROLE}", database="postgres")

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop it in order; sessions that there are end. SIGQUIT leaves it no time to save."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(PATIENCE)

    def kill(self) -> None:
        """Kill all of its processes."""
        process, self._process = self._process, None
        assert process is not None
        for pid in (process.pid, *self._children(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(PATIENCE)

    def pause(self) -> None:
        """Let all of its processes stand still."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        for pid in (self._process.pid, *self._children(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    @staticmethod
    def _children(parent: int) -> list[int]:
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(status.read_text().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(status.parent.name))
        return found

    def promote(self) -> None:
        """Make a standby a server of its own."""
        self.run("SELECT pg_promote()", database="postgres")

    def remove(self) -> None:
        """Stop it and remove its files."""
        if self._process is not None:
            self.resume()
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder)

    def url(self, user: str = ROLE, database: str = ROLE, **words: str) -> str:
        """How the database is named for trigear."""
        return url_of(self, user=user, database=database, **words)

    def admin(self, database: str = ROLE) -> psycopg.Connection[Any]:
        """A superuser's connection."""
        return psycopg.connect(
            host=str(self.folder),
            port=self.port,
            user=ADMIN,
            dbname=database,
            autocommit=True,
            connect_timeout=5,
        )

    def run(self, *statements: str, database: str = ROLE) -> list[tuple[Any, ...]]:
        """Do these statements as superuser; the rows of the last one if it has some."""
        with contextlib.closing(self.admin(database)) as connection:
            rows: list[tuple[Any, ...]] = []
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
            return rows


def _end_with_the_tests() -> None:
    """Have the system end this process with its parent, however that ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGQUIT)


def url_of(*clusters: Cluster, user: str = ROLE, database: str = ROLE, **words: str) -> str:
    """One URL for several servers."""
    hosts = ",".join(quote(str(cluster.folder), safe="") for cluster in clusters)
    query = "&".join(f"{word}={quote(value, safe='')}" for word, value in words.items())
    return f"postgresql://{user}@{hosts}/{database}" + (f"?{query}" if query else "")


_numbers = itertools.count(1)


def new_schema() -> str:
    """A name that no test has used."""
    return f"place{next(_numbers)}"


@functools.cache
def shared() -> Cluster:
    """A server for everybody, started when it is first asked for."""
    cluster = Cluster(FAST)
    atexit.register(cluster.remove)
    cluster.start()
    return cluster
