"""JOB_CREATED of a background job leaves after the sync that covers its job, not a byte earlier.
Seen from outside, in the system calls of a loaded server."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.crash.process import DurableServer
from tests.crash.trace import CALLS, judge
from trigear.wire.codec import request
from trigear.wire.packets import JOB_CREATED, SUBMIT_JOB_BG

if TYPE_CHECKING:
    from pathlib import Path

CONNECTIONS = 4
OUTSTANDING = 32
ROUNDS = 6

WITHOUT_SYNCS = (
    "import sys, trigear.stores.sqlite as store; store.SYNCHRONOUS = 'OFF';"
    " from trigear.cli import main; sys.argv[0] = 'trigear'; main()"
)


def traced(folder: Path, strace: str, *program: str) -> list[str]:
    """What a server like this does while several clients submit as fast as they can."""
    trace = folder / "trace"
    watched = (strace, "-f", "-y", "-s", "20000", "-e", f"trace={CALLS}", "-o", str(trace))
    server = DurableServer(folder, program=(*watched, *program))
    server.start()
    links = [server.link() for _ in range(CONNECTIONS)]
    (pid,) = links[0].command("getpid")
    packets = [request(SUBMIT_JOB_BG, b"f", b"", b"w")] * OUTSTANDING
    for link in links:
        link.send_all(packets)
    for _ in range(ROUNDS):
        for link in links:
            for _ in packets:
                assert link.receive()[0] == JOB_CREATED
            link.send_all(packets)
    for link in links:
        for _ in packets:
            assert link.receive()[0] == JOB_CREATED
        link.close()
    # The tracer ends with the server.
    os.kill(int(pid.removeprefix("OK ")), signal.SIGTERM)
    server.wait()
    return trace.read_text(encoding="latin-1").splitlines()


@pytest.mark.slow
def test_no_job_is_announced_before_it_is_on_the_disk(tmp_path: Path, strace: str):
    verdict = judge(traced(tmp_path, strace, sys.executable, "-m", "trigear"))
    assert verdict.announced == CONNECTIONS * OUTSTANDING * (ROUNDS + 1)
    assert verdict.early == []


@pytest.mark.slow
def test_a_server_that_does_not_sync_is_found_out(tmp_path: Path, strace: str):
    verdict = judge(traced(tmp_path, strace, sys.executable, "-c", WITHOUT_SYNCS))
    assert verdict.announced == CONNECTIONS * OUTSTANDING * (ROUNDS + 1)
    assert len(verdict.early) > verdict.announced // 2


HANDLE = "H:here:%020d"


def row(number: int, thread: int = 2) -> str:
    return f'{thread}  pwrite64(7</x/jobs.sqlite3-wal>, "..{HANDLE % number}..", 8192, 0) = 8192'


def sync(thread: int = 2) -> str:
    return f"{thread}  fdatasync(7</x/jobs.sqlite3-wal>) = 0"


def reply(number: int, thread: int = 1) -> str:
    return f'{thread}  sendto(9<UNIX:[1]>, "..{HANDLE % number}", 55, 0, NULL, 0) = 55'


@pytest.mark.parametrize(
    ("lines", "early"),
    [
        ([row(1), sync(), reply(1)], 0),
        ([row(1), row(2), sync(), reply(1), reply(2), row(3), sync(), reply(3)], 0),
        ([row(1), reply(1), sync()], 1),
        ([sync(), row(1), reply(1)], 1),
        ([reply(1)], 1),
        # A sync that was under way when the row was written covers nothing.
        (
            [
                "2  fdatasync(7</x/jobs.sqlite3-wal> <unfinished ...>",
                row(1, thread=3),
                "2  <... fdatasync resumed>)            = 0",
                reply(1),
            ],
            1,
        ),
        # A sync that has not returned yet covers nothing, either.
        (
            [
                row(1),
                "2  fdatasync(7</x/jobs.sqlite3-wal> <unfinished ...>",
                reply(1),
                "2  <... fdatasync resumed>)            = 0",
            ],
            1,
        ),
        (
            [
                row(1),
                "2  fdatasync(7</x/jobs.sqlite3-wal> <unfinished ...>",
                "2  <... fdatasync resumed>)            = 0",
                reply(1),
            ],
            0,
        ),
        # Nor does one that failed, or one of another file.
        ([row(1), sync().replace("= 0", "= -1 EIO (Input/output error)"), reply(1)], 1),
        ([row(1), sync().replace("-wal", ""), reply(1)], 1),
        (["strace: some remark", row(1), sync(), reply(1), "2  +++ exited with 0 +++"], 0),
    ],
)
def test_the_judge_of_traces_is_right(lines: list[str], early: int):
    verdict = judge(lines)
    assert len(verdict.early) == early
    assert verdict.announced >= 1
