"""Commands that speak TLS and log in, as real processes with a real server."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from tests.cli.at_work import ROOT, beginning, write
from tests.cli.conftest import PATIENCE, TRIGEAR
from tests.cli.talking import Terminal
from tests.security.certificates import SERVER, Authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.at_work import AtWork
    from tests.cli.conftest import Running

pytestmark = pytest.mark.slow


@dataclass
class House:
    """A server with TLS and users, and what it takes to get in."""

    folder: Path
    users: Path
    server: Running
    ca: str
    authority: Authority

    def add(self, name: str, *options: str) -> str:
        """Add a user, and keep the password in a file; its path."""
        self.user("add", name, *options)
        return str(self.folder / name)

    def user(self, command: str, name: str, *options: str) -> None:
        """A command about a user; what it makes for a password is kept in a file."""
        done = subprocess.run(
            [*TRIGEAR, "user", command, name, "--users", str(self.users), *options],
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        )
        if done.stdout:
            place = self.folder / name
            place.write_text(done.stdout)
            place.chmod(0o600)
        self.server.send(signal.SIGHUP)
        self.server.read_until("SIGHUP: ")

    def run(self, *args: str, data: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*TRIGEAR, *args],
            input=data,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            env=os.environ | {"TRIGEAR_SERVERS": self.server.address} | env,
            cwd=self.folder,
        )


@pytest.fixture
def house(start: Callable[..., Running], tmp_path: Path) -> House:
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    here = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    cert, key = authority.issue("localhost", names=here, usage=[SERVER]).write(tmp_path, "server")
    users = tmp_path / "users.toml"
    users.write_text("version = 1\n")
    users.chmod(0o600)
    server = start(
        *TRIGEAR,
        *("server", "--listen", "gearmans://127.0.0.1:0", "--store", "memory"),
        *("--auth", "sasl", "--users", str(users), "--cert", cert, "--key", key),
        *("--client-certs", "optional", "--client-ca", str(tmp_path / "ca.pem")),
    )
    return House(tmp_path, users, server, str(tmp_path / "ca.pem"), authority)


@pytest.fixture
def begin(house: House) -> Iterator[Callable[..., AtWork]]:
    with beginning(house.server.address) as run:
        yield run


def test_a_worker_and_a_command_log_in_and_nothing_shows_the_password(
    house: House, begin: Callable[..., AtWork]
) -> None:
    shop = house.add("shop", "--role", "work")
    ann = house.add("ann", "--role", "submit", "--role", "admin")
    secrets = [(house.folder / name).read_text().strip() for name in ("shop", "ann")]
    write(house.folder, "one")
    worker = begin(
        *ROOT,
        *("--ca", house.ca, "--user", "shop", "--password-file", shop),
        *("--log-level", "debug", "jobs:worker"),
        cwd=house.folder,
    )
    access = ["--ca", house.ca, "--user", "ann", "--password-file", ann]
    done = house.run("submit", "version", "", *access)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("one ")
    (pid,) = worker.processes()
    for place in ("cmdline", "environ"):
        for process in (pid, worker.process.pid):
            with open(f"/proc/{process}/{place}", "rb") as file:
                shown = file.read()
            assert not [secret for secret in secrets if secret.encode() in shown]

    # The same from a context, without a word of it on the command line.
    house.run("context", "add", "here", house.server.address, *access, "--use")
    for command in (["admin", "status"], ["top", "--once", "--interval", "100ms"]):
        done = house.run(*command, TRIGEAR_SERVERS="")
        assert (done.returncode, done.stderr) == (0, ""), command
    bench = ["bench", "--seconds", "0.01", "--rounds", "1", "--scenario", "oneatatime", "-y"]
    house.add("bench", "--role", "submit", "--role", "work", "--role", "admin")
    done = house.run(*bench, "--ca", house.ca, TRIGEAR_USER="bench", TRIGEAR_PASSWORD_FILE="bench")
    assert done.returncode == 0, done.stderr

    # Another password, and new processes that know it: those that are there keep what they have.
    house.user("passwd", "shop", "--overlap", "1h")
    worker.send(signal.SIGHUP)
    worker.read_until("took over from")
    secrets.append((house.folder / "shop").read_text().strip())
    os.chmod(house.folder / "shop", 0o644)
    worker.send(signal.SIGHUP)
    assert "chmod 600" in worker.read_until("the password stays what it was")
    worker.read_until("took over from")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    house.server.send(signal.SIGTERM)
    assert house.server.wait() == 0
    said = "".join(worker.lines + house.server.lines)
    assert "default/shop by SCRAM-SHA-256-PLUS" in said
    assert not [secret for secret in secrets if secret in said]


def test_what_is_wrong_is_said_with_what_to_do(house: House, begin: Callable[..., AtWork]) -> None:
    ann = house.add("ann", "--role", "submit")
    wrong = house.folder / "wrong"
    wrong.write_text("guess\n")
    wrong.chmod(0o600)

    def fails(status: int, *args: str) -> str:
        done = house.run("submit", "-b", "f", "x", *args)
        assert done.returncode == status, done.stderr
        assert done.stdout == ""
        assert "guess" not in done.stderr
        return done.stderr

    access = ["--user", "ann", "--password-file", ann]
    assert "name the authority that signed it (ca, or --ca FILE)" in fails(3, *access)
    assert "log in with --user NAME, and --password-file" in fails(4, "--ca", house.ca)
    wrongly = ["--ca", house.ca, "--user", "ann", "--password-file", str(wrong)]
    said = fails(4, "--debug", *wrongly)
    assert "Traceback" in said
    assert "refuses the login: Authentication failed" in said
    plain = house.server.address.removeprefix("gearmans://")
    assert "write gearmans://HOST:PORT" in fails(4, "--server", plain, *access)
    done = house.run("admin", "status", "--ca", house.ca, *access)
    assert done.returncode == 4
    assert "PERMISSION_DENIED" in done.stderr

    # A worker that is not let in ends with the same status, and is not started again and again.
    for args in (
        ["--user", "ann", "--password-file", str(wrong)],  # a wrong password
        ["--user", "ann", "--password-file", ann],  # a user who may not work
    ):
        worker = begin(
            *ROOT, "--ca", house.ca, *args, "-f", "f", "cat", cwd=house.folder, waiting=False
        )
        assert worker.wait() == 4, worker.lines
        assert len([line for line in worker.lines if "error" in line]) == 1


def test_a_certificate_says_who_it_is(house: House) -> None:
    cert, key = house.authority.client("ann").write(house.folder, "client")
    house.add("ann", "--role", "submit", "--no-password", "--cert", "cn:ann")
    access = ["--ca", house.ca, "--cert", cert, "--key", key]
    done = house.run("submit", "-b", "f", "x", *access, "--user", "ann")
    assert done.returncode == 0, done.stderr
    assert "default/ann by EXTERNAL" in house.server.read_until(" is default/ann")
    done = house.run("submit", "-b", "f", "x", *access, "--user", "bob")
    assert done.returncode == 4


def test_a_password_is_asked_for_on_a_terminal(house: House) -> None:
    ann = house.add("ann", "--role", "submit")
    with open(ann) as file:
        password = file.read()
    shell = Terminal(
        *("submit", "-b", "f", "x", "--server", house.server.address),
        *("--ca", house.ca, "--user", "ann"),
    )
    shell.read_until("Password of ann: ")
    shell.type(password)
    assert shell.wait() == 0
    assert password.strip() not in shell.seen
    assert "H:" in shell.seen


@pytest.mark.parametrize("jail", [[], ["--chroot", "."]])
def test_files_are_read_before_root_is_given_up(
    as_root: None,
    house: House,
    begin: Callable[..., AtWork],
    open_folder: Path,
    jail: list[str],
) -> None:
    shop = house.add("shop", "--role", "work")
    ann = house.add("ann", "--role", "submit")
    cert, key = house.authority.client("shop").write(house.folder, "client")
    write(open_folder, "one")
    worker = begin(
        *("--run-as", "nobody", *jail, "--ca", house.ca, "--cert", cert, "--key", key),
        *("--user", "shop", "--password-file", shop, "jobs:worker"),
        cwd=open_folder,
    )
    access = ["--ca", house.ca, "--user", "ann", "--password-file", ann]
    done = house.run("submit", "whoami", "", *access)
    assert done.returncode == 0, done.stderr
    nobody = pwd.getpwnam("nobody").pw_uid
    assert done.stdout.startswith(f"{nobody} ")
    # Whoever starts new processes can still read what they need.
    worker.send(signal.SIGHUP)
    worker.read_until("took over from")
    assert house.run("submit", "version", "", *access).returncode == 0
