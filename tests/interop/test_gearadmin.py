"""The tool `gearadmin` says the same of trigear as of gearmand, but for a short list of reasons."""

from __future__ import annotations

import collections
import contextlib
import pathlib
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

import trigear
from tests.interop import raw, servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PeerTools
    from tests.interop.servers import Server

pytestmark = pytest.mark.peers

ALLOWED = pathlib.Path(__file__).with_name("gearadmin_differences.txt")
AT_MOST = 12

# What is asked, in this order. {…} stands for a handle of the scene.
STEPS: dict[str, list[str]] = {
    "version": ["--server-version"],
    "verbose": ["--server-verbose"],
    "pid": ["--getpid"],
    "status": ["--status"],
    "workers": ["--workers"],
    "priority status": ["--priority-status"],
    "jobs": ["--show-jobs"],
    "unique jobs": ["--show-unique-jobs"],
    "several at once": ["--status", "--priority-status", "--getpid"],
    "create": ["--create-function", "fresh"],
    "create again": ["--create-function", "fresh"],
    "create one in use": ["--create-function", "resize"],
    "status with a created function": ["--status"],
    "drop": ["--drop-function", "fresh"],
    "drop again": ["--drop-function", "fresh"],
    "drop one in use": ["--drop-function", "resize"],
    "cancel a waiting job": ["--cancel-job", "{mail-normal}"],
    "cancel it again": ["--cancel-job", "{mail-normal}"],
    "cancel an unknown job": ["--cancel-job", "H:nowhere:1"],
    "cancel a running job": ["--cancel-job", "{resize}"],
    "status after cancelling": ["--status"],
    "priority status after cancelling": ["--priority-status"],
    "jobs after cancelling": ["--show-jobs"],
    "unique jobs after cancelling": ["--show-unique-jobs"],
    "an unknown operation": ["--shutdown"],
    "no operation": [],
}


@dataclass(frozen=True)
class Difference:
    """A line only one of the servers causes, or one line in place of another; `-` is no line."""

    step: str
    gearmand: str
    trigear: str


@contextlib.contextmanager
def scene(server: Server) -> Iterator[dict[str, str]]:
    """Workers and jobs in every state; yields the handles of the jobs by name."""
    handles: dict[str, str] = {}
    with (
        server.connect() as busy,
        server.connect() as idle,
        server.connect() as client,
        server.connect() as producer,
    ):

        def submit(connection: raw.RawConnection, kind: int, name: str, unique: bytes) -> None:
            function = name.partition("-")[0].encode()
            connection.send(kind, function, unique, b"workload")
            handles[name] = connection.expect(raw.JOB_CREATED)[0].decode()

        busy.send(raw.SET_CLIENT_ID, b"busy")
        busy.send(raw.CAN_DO, b"resize")
        busy.send(raw.CAN_DO, b"mail")
        submit(client, raw.SUBMIT_JOB, "resize", b"picture-1")
        busy.send(raw.GRAB_JOB)
        handle = busy.expect(raw.JOB_ASSIGN)[0]
        busy.send(raw.WORK_STATUS, handle, b"1", b"4")
        client.expect(raw.WORK_STATUS)
        idle.send(raw.CAN_DO, b"resize")
        idle.send(raw.PRE_SLEEP)
        idle.settle()
        submit(producer, raw.SUBMIT_JOB_HIGH_BG, "mail-high", b"mail-1")
        submit(producer, raw.SUBMIT_JOB_BG, "mail-normal", b"mail-2")
        submit(producer, raw.SUBMIT_JOB_LOW_BG, "mail-low", b"")
        submit(producer, raw.SUBMIT_JOB_BG, "nobody", b"orphan")
        yield handles


def ask(tool: pathlib.Path, server: Server, arguments: list[str]) -> list[str]:
    """What gearadmin writes, and its exit status if that is not 0."""
    done = subprocess.run(
        [tool, "-h", server.host, "-p", str(server.port), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    lines = (done.stdout + done.stderr).splitlines()
    return lines + ([f"(exit status {done.returncode})"] if done.returncode else [])


def named(line: str, server: Server, handles: dict[str, str]) -> str:
    """The line with what cannot be equal replaced by names."""
    for name, handle in handles.items():
        line = re.sub(rf"(?<!\S){re.escape(handle)}(?!\S)", f"<{name}>", line)
    line = line.replace(trigear.__version__, "<trigear's version>")
    if line == str(server.process.pid):
        line = "<pid>"
    return re.sub(r"^\d+( \S+ \S+ :)", r"<descriptor>\1", line).replace("\t", " ").rstrip()


def transcript(tool: pathlib.Path, server: Server) -> dict[str, collections.Counter[str]]:
    """What each step caused to be written, lines in no order."""
    said = {}
    with scene(server) as handles:
        for step, arguments in STEPS.items():
            filled = [handles[word[1:-1]] if word.startswith("{") else word for word in arguments]
            lines = [named(line, server, handles) for line in ask(tool, server, filled)]
            said[step] = collections.Counter(lines)
    return said


def differences(
    gearmand: dict[str, collections.Counter[str]], ours: dict[str, collections.Counter[str]]
) -> list[Difference]:
    """The lines that differ, paired in sorted order as far as there are pairs."""
    found = []
    for step in STEPS:
        missing = sorted((gearmand[step] - ours[step]).elements())
        surplus = sorted((ours[step] - gearmand[step]).elements())
        length = max(len(missing), len(surplus))
        missing += ["-"] * (length - len(missing))
        surplus += ["-"] * (length - len(surplus))
        found += [Difference(step, *pair) for pair in zip(missing, surplus, strict=True)]
    return found


def allowed() -> dict[Difference, str]:
    """The file's lines: step | gearmand's line | trigear's line | reason."""
    entries = {}
    for line in ALLOWED.read_text().splitlines():
        if line and not line.startswith("#"):
            step, gearmand, ours, reason = (field.strip() for field in line.split(" | "))
            assert Difference(step, gearmand, ours) not in entries, line
            entries[Difference(step, gearmand, ours)] = reason
    return entries


@pytest.fixture(scope="module")
def transcripts(
    peer_tools: PeerTools, directory: pathlib.Path
) -> dict[str, dict[str, collections.Counter[str]]]:
    """What gearadmin writes of each server in the same state, the steps in the same order."""
    said = {}
    for name, command in servers.COMMANDS.items():
        with servers.running(name, command, directory) as server:
            said[name] = transcript(peer_tools.gearadmin, server)
    return said


def test_gearadmin_says_of_trigear_what_it_says_of_gearmand(
    transcripts: dict[str, dict[str, collections.Counter[str]]],
) -> None:
    found = differences(transcripts["gearmand"], transcripts["trigear"])
    assert [difference for difference in found if difference not in allowed()] == []


def test_every_allowed_difference_is_there_has_a_reason_and_they_are_few(
    transcripts: dict[str, dict[str, collections.Counter[str]]],
) -> None:
    found = differences(transcripts["gearmand"], transcripts["trigear"])
    assert [difference for difference in allowed() if difference not in found] == []
    assert all(allowed().values())
    assert len(allowed()) <= AT_MOST


def test_gearadmin_has_an_operation_in_the_steps_for_each_it_offers(peer_tools: PeerTools) -> None:
    help_text = subprocess.run(
        [peer_tools.gearadmin, "--help"], capture_output=True, text=True, check=False
    ).stdout
    offered = set(re.findall(r"--[a-z-]+", help_text)) - {"--help", "--host", "--port", "--ssl"}
    assert offered
    assert offered <= {word for words in STEPS.values() for word in words}
