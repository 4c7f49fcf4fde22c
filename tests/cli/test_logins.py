"""Servers that ask who is there, as real processes."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
from typing import TYPE_CHECKING, BinaryIO

import pytest

from tests.cli.conftest import PATIENCE, TRIGEAR
from tests.cli.test_start import fails
from trigear.security.scram import SHA_256, ScramClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Running

pytestmark = pytest.mark.slow

SERVER = [*TRIGEAR, "server", "--listen", "127.0.0.1:0", "--store", "memory", "--auth", "sasl"]


def add(users: Path, name: str, *options: str) -> str:
    """Add a user; its password."""
    command = [*TRIGEAR, "user", "add", name, "--users", str(users), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    return done.stdout.strip()


def log_in(server: Running, name: str, password: str, then: str) -> list[str]:
    """What a server says to a login in text, and to a command behind it."""
    with server.connect() as link, link.makefile("rwb") as stream:
        answers = [as_user(stream, name, password)]
        if answers[0].startswith(b"OK"):
            answers.append(asked(stream, then.encode()))
        return [answer.decode() for answer in answers]


def asked(stream: BinaryIO, line: bytes) -> bytes:
    """The first line of an answer."""
    stream.write(line + b"\n")
    stream.flush()
    return stream.readline()


def as_user(stream: BinaryIO, name: str, password: str) -> bytes:
    """Log in; what the server says to that."""
    client = ScramClient(SHA_256, name, password.encode(), b"clientnonce")
    first = base64.b64encode(client.first())
    challenge = asked(stream, b"auth SCRAM-SHA-256 " + first).removeprefix(b"+ ")
    return asked(stream, base64.b64encode(client.final(base64.b64decode(challenge))))


def test_server_without_users_says_how_to_add_one_and_lets_them_in_after_sighup(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    users = tmp_path / "users.toml"
    server = start(*SERVER, "--users", str(users))
    assert "nobody can log in yet: trigear user add NAME" in "".join(server.lines)
    assert "AUTHENTICATION_REQUIRED" in server.ask("status")
    password = add(users, "alice", "--role", "operator")
    server.send(signal.SIGHUP)
    assert "1 user" in server.read_until("SIGHUP: ")
    said = log_in(server, "alice", password, "getpid")
    assert said[0].startswith("OK default/alice default operator ")
    assert said[1] == f"OK {server.process.pid}\n"
    assert "AUTHENTICATION_FAILED" in log_in(server, "alice", "guess", "getpid")[0]
    os.chmod(users, 0o644)
    server.send(signal.SIGHUP)
    assert "the users stay who they were" in server.read_until("chmod 600")
    users.unlink()
    server.send(signal.SIGHUP)
    assert "not there any more; the users stay who they were" in server.read_until("any more")
    assert len(log_in(server, "alice", password, "getpid")) == 2


def test_system_user_is_known_on_a_unix_socket(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    users = tmp_path / "users.toml"
    add(users, "alice", "--uid", str(os.getuid()), "--no-password", "--role", "admin")
    options = ["--listen", f"unix:{tmp_path}/s", "--auth", "peer", "--users", str(users)]
    server = start(*TRIGEAR, "server", "--store", "memory", *options)
    assert server.ask("whoami") == "OK default/alice default admin peer\r\n"
    assert server.ask("status") == ".\n"
    assert "PERMISSION_DENIED" in server.ask("getpid")


def test_users_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    users = tmp_path / "users.toml"
    users.write_text("version = 1\n")
    users.chmod(0o644)
    assert "chmod 600" in fails(*SERVER, "--users", str(users))[1]
    users.chmod(0o600)
    users.write_text("version = 2\n")
    assert "no version this program reads" in fails(*SERVER, "--users", str(users))[1]
    assert "not a directory" in fails(*SERVER, "--users", f"{users}/x")[1].lower()


def test_logins_beyond_this_machine_need_tls(tmp_path: Path) -> None:
    options = ["--listen", "0.0.0.0:0", "--users", str(tmp_path / "u")]
    assert "need TLS" in fails(*SERVER, *options)[1]
    assert "need TLS" in fails(*SERVER, *options, "--insecure-open")[1]


def test_t39_servers_are_told_of_other_users_and_put_them_out(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    users = tmp_path / "users.toml"
    password = add(users, "alice", "--role", "operator")

    def change(*args: str) -> str:
        command = [*TRIGEAR, "user", *args, "--users", str(users)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
        return done.stderr

    nobody = "no server runs here: applies at the next start\n"
    assert change("disable", "alice") == f"trigear: 'alice' is shut out; {nobody}"
    servers = [start(*SERVER, "--users", str(users)) for _ in range(2)]
    told = "; ".join(f"reload sent to process {each.process.pid}" for each in servers)
    assert change("enable", "alice") == f"trigear: 'alice' may log in; {told}\n"
    for server in servers:
        assert "1 user" in server.read_until("SIGHUP: ")
    assert len(log_in(servers[0], "alice", password, "getpid")) == 2
    with servers[1].connect() as link, link.makefile("rwb") as stream:
        said = as_user(stream, "alice", password)
        assert said.startswith(b"OK default/alice")
        assert change("remove", "alice", "--yes") == f"trigear: removed 'alice'; {told}\n"
        assert stream.readline() == b"ERR AUTHENTICATION_EXPIRED Session+expired\r\n"
        assert stream.readline() == b""
    assert "0 users, 1 connection ended" in servers[1].read_until("SIGHUP: ")
    for server in servers:
        server.send(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
    assert change("add", "bob", "--role", "work").splitlines()[0].endswith(nobody.strip())


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    users = tmp_path / "users.toml"
    command = [*SERVER, "--users", str(users), "--check"]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    assert list(tmp_path.iterdir()) == []
