"""A loss of power at any moment loses no job that was announced."""

from __future__ import annotations

import os
import random
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.crash.power import CALLS, Change, Disk, Survey, Sync, Talk, events_of, survey
from tests.crash.process import DurableServer
from trigear.wire.codec import request
from trigear.wire.packets import (
    CAN_DO,
    GRAB_JOB,
    JOB_ASSIGN,
    JOB_CREATED,
    SUBMIT_JOB_BG,
    WORK_COMPLETE,
)

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = int(os.environ.get("TRIGEAR_POWER_ROUNDS", "12"))
SOME = int(os.environ.get("TRIGEAR_POWER_IMAGES", "2"))
BATCH = 8

# The log is written back to the main file every few commits, which else is seldom.
PROGRAM = (
    "import sys, trigear.stores.sqlite as store; connect = store.SqliteStore._connect\n"
    "def checkpointing(self):\n"
    "    found = connect(self)\n"
    "    found.execute('PRAGMA wal_autocheckpoint = 16')\n"
    "    return found\n"
    "store.SqliteStore._connect = checkpointing\n"
    "from trigear.cli import main; sys.argv[0] = 'trigear'; {change}; main()"
)


def surveyed(folder: Path, strace: str, change: str = "pass") -> Survey:
    """Lose the power of a server at every sync, while jobs come and go."""
    trace = folder / "trace"
    watched = (strace, "-f", "-y", "-xx", "-s", "300000", "-e", f"trace={CALLS}", "-o", str(trace))
    server = DurableServer(
        folder, program=(*watched, sys.executable, "-c", PROGRAM.format(change=change))
    )
    with DurableServer(folder) as fresh:
        database = fresh.database
        fresh.stop()
    files = {str(database): database.read_bytes(), f"{database}-wal": b""}
    server.start()
    with server.link() as client, server.link() as worker:
        (pid,) = client.command("getpid")
        worker.send(CAN_DO, b"f")
        for number in range(ROUNDS):
            work = b"%d" % number * 700
            client.send_all([request(SUBMIT_JOB_BG, b"f", b"", work)] * BATCH)
            for _ in range(BATCH):
                assert client.receive()[0] == JOB_CREATED
            # Fewer than come, so that something is always there to be lost.
            for _ in range(BATCH - 3):
                worker.send(GRAB_JOB)
                said, payload = worker.receive()
                assert said == JOB_ASSIGN
                worker.send(WORK_COMPLETE, payload.split(b"\0", 1)[0], b"")
    os.kill(int(pid.removeprefix("OK ")), signal.SIGKILL)
    server.wait()
    with open(trace, encoding="latin-1") as lines:
        events = events_of(lines, files)
    image = folder / "image"
    image.mkdir()
    created = {handle for event in events if isinstance(event, Talk) for handle in event.created}
    assert len(created) == ROUNDS * BATCH
    return survey(events, files, image, random.Random(7), SOME)


@pytest.mark.slow
def test_power_lost_at_any_sync_loses_no_announced_job(tmp_path: Path, strace: str) -> None:
    found = surveyed(tmp_path, strace)
    print(f"power lost at {found.points} points, {found.images} images of the files")
    assert found.faults == []
    assert found.points > 2 * ROUNDS
    assert found.images > found.points


@pytest.mark.slow
def test_jobs_of_a_server_that_does_not_sync_are_lost(tmp_path: Path, strace: str) -> None:
    found = surveyed(tmp_path, strace, "store.SYNCHRONOUS = 'OFF'")
    assert any("is lost" in fault for fault in found.faults)


# The replay itself


def wal(data: bytes, place: int) -> str:
    text = "".join(f"\\x{byte:02x}" for byte in data)
    return f'2  pwrite64(7</x/db-wal>, "{text}", {len(data)}, {place}) = {len(data)}'


def test_a_trace_is_read_in_its_order() -> None:
    created = b"\0RES\0\0\0\x08\0\0\0\x1cH:h:" + b"%020d" % 1
    ended = b"\0REQ\0\0\0\x0d\0\0\0\x1dH:h:" + b"%020d" % 2 + b"\0"
    said = "".join(f"\\x{byte:02x}" for byte in created)
    heard = "".join(f"\\x{byte:02x}" for byte in ended)
    lines = [
        wal(b"ab", 4),
        "2  fdatasync(7</x/db-wal> <unfinished ...>",
        wal(b"c", 9).replace("2  ", "3  "),
        "2  <... fdatasync resumed>) = 0",
        "2  ftruncate(7</x/db-wal>, 3) = 0",
        "2  fdatasync(7</x/db-wal>) = -1 EIO (Input/output error)",
        "2  fdatasync(7</x/other>) = 0",
        f'1  sendto(9<UNIX:[1]>, "{said}", 9, 0, NULL, 0) = 9',
        f'1  recvfrom(9<UNIX:[1]>, "{heard}", 9, 0, NULL, NULL) = 9',
        "strace: a remark",
        "4  <... pwrite64 resumed>) = 3",
    ]
    assert events_of(lines, ["/x/db-wal"]) == [
        Change("/x/db-wal", 4, b"ab"),
        Change("/x/db-wal", 9, b"c"),
        Sync("/x/db-wal", 1),
        Change("/x/db-wal", 3, None),
        Talk((b"H:h:" + b"%020d" % 1,), ()),
        Talk((), (b"H:h:" + b"%020d" % 2,)),
    ]


def test_only_what_was_written_before_a_sync_began_is_certain() -> None:
    disk = Disk({"f": bytearray(b"....")})
    for place, event in enumerate(
        [Change("f", 0, b"a"), Change("f", 1, b"b"), Change("g", 0, b"z"), Sync("f", 1)]
    ):
        disk.take(place, event)
    assert disk.files == {"f": bytearray(b"a...")}
    nothing, everything, *_ = disk.images(random.Random(1), 0)
    assert nothing == {"f": b"a..."}
    assert everything == {"f": b"ab..", "g": b"z"}


def test_torn_writes_are_torn_at_sectors() -> None:
    disk = Disk({"f": bytearray(1024)})
    disk.take(0, Change("f", 0, b"x" * 1024))
    disk.take(1, Change("f", 1500, None))
    images = {bytes(image["f"]) for image in disk.images(random.Random(1), 20)}
    halves = {bytes(image[:512]) for image in images} | {bytes(image[512:1024]) for image in images}
    assert halves == {bytes(512), b"x" * 512}
    assert {len(image) for image in images} == {1024, 1500}
