"""Who is connected, and what operators ask of the server, by commands."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import PATIENCE, TRIGEAR
from tests.cli.test_logins import add
from trigear.cli.report import Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Running, Said

pytestmark = pytest.mark.slow


@pytest.fixture
def operated(start: Callable[..., Running], tmp_path: Path) -> tuple[Running, str]:
    """A server with an operator, who is whoever runs this, and its address."""
    users = tmp_path / "users.toml"
    add(users, "root", "--uid", str(os.getuid()), "--no-password", "--role", "operator")
    add(users, "ann", "--tenant", "acme", "--role", "admin")
    where = f"unix:{tmp_path}/s"
    options = ["--listen", where, "--auth", "peer", "--users", str(users), "--store", "memory"]
    return start(*TRIGEAR, "server", *options), where


def test_operator_lists_and_ends_sessions_and_steers_the_server(
    operated: tuple[Running, str], trigear: Callable[..., Said]
) -> None:
    server, where = operated

    def admin(*args: str) -> Said:
        return trigear("admin", *args, "--server", where)

    said = admin("whoami", "--json")
    assert json.loads(said.out) == {
        "identity": "default/root",
        "tenant": "default",
        "roles": "operator",
        "method": "peer",
    }
    with server.connect() as idle:
        idle.sendall(b"whoami\n")
        assert idle.recv(100).startswith(b"OK default/root")
        rows = [json.loads(line) for line in admin("sessions", "--json").out.splitlines()]
        assert [row["identity"] for row in rows] == ["default/root", "default/root"]
        number = min(row["session"] for row in rows)
        said = admin("end-session", str(number))
        assert said.err == f"trigear: ended: session {number} at {where}\n"
        assert idle.recv(100).startswith(b"ERR SESSION_ENDED")
    said = admin("end-session", "99")
    assert said.status == Status.NO
    assert f"no session 99 at {where}; `trigear admin sessions` lists them" in said.err
    assert json.loads(admin("end-session", "99", "--json").out) == {"session": 99, "ended": False}
    assert admin("reload").status == Status.DONE
    assert "2 users" in server.read_until("SIGHUP: ")
    assert "say --yes" in admin("drain").err
    assert admin("drain", "--yes").status == Status.DONE
    assert server.process.wait(PATIENCE) == 0


def test_operator_stops_the_server_at_once(
    operated: tuple[Running, str], trigear: Callable[..., Said]
) -> None:
    server, where = operated
    assert trigear("admin", "shutdown", "--yes", "--server", where).status == Status.DONE
    assert server.process.wait(PATIENCE) == 0


def test_server_that_asks_nobody_is_told_by_signals(
    start: Callable[..., Running], trigear: Callable[..., Said], tmp_path: Path
) -> None:
    where = f"unix:{tmp_path}/s"
    server = start(*TRIGEAR, "server", "--listen", where, "--store", "memory")
    said = trigear("admin", "reload", "--server", where)
    assert said.status == Status.NO
    assert "asks nobody who they are, and knows no 'reload': tell it by a signal" in said.err
    assert "`kill -HUP PID`; `trigear admin getpid` says its PID" in said.err
    said = trigear("admin", "whoami", "--server", where)
    assert said.err.endswith("asks nobody who they are, and knows no 'whoami'\n")
    assert "anonymous" in trigear("admin", "sessions", "--server", where).out
    server.send(signal.SIGTERM)
    assert server.process.wait(PATIENCE) == 0


def test_operator_acts_for_a_tenant(
    operated: tuple[Running, str], trigear: Callable[..., Said]
) -> None:
    _, where = operated
    said = trigear("admin", "create-function", "resize", "--server", where)
    assert said.status == Status.NOT_ALLOWED
    acting = ("--server", where, "--tenant", "acme")
    assert trigear("admin", "create-function", "resize", *acting).status == Status.DONE
    assert trigear("admin", "status", "--server", where).out == "acme/resize\t0\t0\t0\n"
    assert trigear("admin", "--tenant", "acme", "status", "--server", where).out == (
        "resize\t0\t0\t0\n"
    )
    for words in (("job", "list"), ("dead", "list"), ("schedule", "list")):
        assert trigear(*words, *acting).status == Status.DONE
    assert trigear("admin", "drop-function", "resize", "--yes", *acting).status == Status.DONE
    assert trigear("admin", "status", *acting).out == ""
    said = trigear("top", "--server", where, "--tenant", "acem")
    assert said.status == Status.NO
    assert f"{where} knows no tenant 'acem': `trigear admin tenants` lists them" in said.err


def test_nobody_else_acts_for_a_tenant(
    start: Callable[..., Running], trigear: Callable[..., Said], tmp_path: Path
) -> None:
    users = tmp_path / "users.toml"
    add(users, "ann", "--uid", str(os.getuid()), "--no-password", "--role", "admin")
    places = [f"unix:{tmp_path}/{name}" for name in ("asking", "open")]
    options = ["--auth", "peer", "--users", str(users)]
    start(*TRIGEAR, "server", "--store", "memory", "--listen", places[0], *options)
    start(*TRIGEAR, "server", "--store", "memory", "--listen", places[1])
    said = [
        trigear("admin", "status", "--tenant", "default", "--server", place) for place in places
    ]
    assert said[0].status == Status.NOT_ALLOWED
    assert f"{places[0]} lets operators alone act for a tenant" in said[0].err
    assert said[1].status == Status.NO
    assert f"{places[1]} asks nobody who they are, and has no tenants" in said[1].err
