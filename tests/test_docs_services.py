"""The service files on the pages start what they say."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parent.parent / "docs"
BIN = Path(sys.executable).parent

DEFAULTS = "--listen=localhost --daemon --log-file=/var/log/gearman-job-server/gearmand.log"
"""What Debian's /etc/default/gearman-job-server has as PARAMS."""


def commands() -> Iterator[str]:
    """Every command that a service file on a page starts."""
    for page in sorted(DOCS.rglob("*.md")):
        for block in re.findall(r"^```ini\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S):
            yield from re.findall(r"^ExecStart=(.+)$", block, re.M)


def those_of(program: str) -> list[str]:
    found = [command for command in commands() if f"/{program} " in f"{command} "]
    assert found, program
    return found


@pytest.mark.parametrize("command", those_of("gearmand"))
def test_the_service_of_debian_starts_our_server(command: str, tmp_path: Path) -> None:
    port = free_port()
    for name, place in {
        "$PARAMS": f"{DEFAULTS} --port={port}",
        "/opt/trigear/bin": str(BIN),
        "/run/gearman": str(tmp_path),
        "/var/log/gearman-job-server": str(tmp_path),
    }.items():
        command = command.replace(name, place)
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pid = int((tmp_path / "gearmand.pid").read_text())
    try:
        with socket.create_connection(("localhost", port)) as link:
            link.sendall(b"status\n")
            assert link.recv(100) == b".\n"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


# What becomes another user before it starts a worker

ABOUT_USERS = (DOCS / "howto" / "users.md").read_text("utf-8")
STARTERS = re.findall(r"^```sh\n(.*?trigear worker.*?)^```$", ABOUT_USERS, re.M | re.S)


def test_the_page_about_users_shows_two_ways() -> None:
    assert [("setuidgid" in one, "setpriv" in one) for one in STARTERS] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize("script", STARTERS)
@pytest.mark.usefixtures("root", "setuidgid")
def test_a_starter_becomes_the_user_that_it_names(script: str) -> None:
    """What is started here is `id`: not everybody may run the Python of these tests."""
    asking = script.replace("trigear worker who:worker", "id -un")
    done = subprocess.run(["sh", "-c", asking], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("nobody\n", 0), done.stderr


@pytest.mark.parametrize("command", [one for one in those_of("trigear") if " server " in one])
def test_the_service_of_our_own_server_has_good_options(command: str, tmp_path: Path) -> None:
    words = shlex.split(command.replace("/opt/trigear/bin", str(BIN)))
    done = subprocess.run(
        [*words, "--check"],
        env={**os.environ, "STATE_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/jobs.sqlite3" in done.stdout
