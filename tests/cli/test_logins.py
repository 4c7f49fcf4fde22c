"""Servers that ask who is there, as real processes."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
from typing import TYPE_CHECKING

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
    client = ScramClient(SHA_256, name, password.encode(), b"clientnonce")
    with server.connect() as link, link.makefile("rwb") as stream:

        def ask(line: bytes) -> bytes:
            stream.write(line + b"\n")
            stream.flush()
            return stream.readline()

        first = base64.b64encode(client.first())
        challenge = ask(b"auth SCRAM-SHA-256 " + first).removeprefix(b"+ ")
        final = base64.b64encode(client.final(base64.b64decode(challenge)))
        answers = [ask(final)]
        if answers[0].startswith(b"OK"):
            answers.append(ask(then.encode()))
        return [answer.decode() for answer in answers]


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
