"""The audit log on disk: in order, whole, opened anew, and never in the way."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import PATIENCE, TRIGEAR
from trigear.cli import audit_log
from trigear.cli.audit_log import AuditLog
from trigear.cli.report import Failure, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Running


def numbers_in(path: Path) -> list[object]:
    return [json.loads(line)["number"] for line in path.read_text().splitlines()]


def test_entries_are_written_in_order_into_a_file_that_is_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(str(path))
    for number in range(1000):
        log({"number": number})
    log.close()
    assert numbers_in(path) == list(range(1000))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_opened_anew_gets_what_comes_from_then_on(tmp_path: Path) -> None:
    path, old = tmp_path / "audit.log", tmp_path / "audit.log.1"
    log = AuditLog(str(path))
    for number in range(100):
        log({"number": number})
    path.rename(old)
    log.reopen()
    for number in range(100, 200):
        log({"number": number})
    path.chmod(0o600)
    log.close()
    assert numbers_in(old) == list(range(100))
    assert numbers_in(path) == list(range(100, 200))


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="No such file or directory; name another with --audit-log"):
        AuditLog(str(tmp_path / "none" / "audit.log"))
    log = AuditLog(str(tmp_path / "audit.log"))
    log.target = str(tmp_path / "none" / "audit.log")
    with pytest.raises(OSError, match="No such file"):
        log.reopen()
    log({"number": 1})
    log.close()
    assert numbers_in(tmp_path / "audit.log") == [1]


def test_standard_error_takes_entries_too(capfd: pytest.CaptureFixture[str]) -> None:
    log = AuditLog("-")
    log({"number": 1})
    log.close()
    assert capfd.readouterr().err == '{"number": 1}\n'


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[tuple[AuditLog, int]]:
    """A log whose disk hangs: a pipe that nobody reads, and its other end."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    log = AuditLog(str(path))
    yield log, reader
    os.close(reader)


def drained(log: AuditLog, reader: int) -> list[dict[str, object]]:
    """What comes out of the pipe until the log is closed."""
    data = []

    def read() -> None:
        while piece := os.read(reader, 65536):
            data.append(piece)

    thread = threading.Thread(target=read)
    thread.start()
    log.close()
    thread.join()
    return [json.loads(line) for line in b"".join(data).splitlines()]


def test_a_disk_that_hangs_holds_up_nobody_and_what_is_left_out_is_counted(
    hung: tuple[AuditLog, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "MOST_WAITING", 50)
    log, reader = hung
    filler = "x" * 200_000
    log({"number": 0, "filler": filler})
    while log._waiting:  # until the thread has it, and hangs
        pass
    for number in range(1, 61):
        log({"number": number})
    assert log.lost == 10
    # As when the disk works again: there is room, and what was lost is told first.
    log._waiting.popleft()
    log({"number": 61})
    found = drained(log, reader)
    assert [each.get("number", each.get("entries")) for each in found] == [
        0,
        *range(2, 51),
        10,
        61,
    ]
    assert found[-2]["event"] == "audit.lost"


def test_the_end_does_not_wait_for_a_disk_that_hangs(
    hung: tuple[AuditLog, int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(audit_log, "PATIENCE", 0.01)
    log, reader = hung
    log({"filler": "x" * 200_000})
    log.close()
    assert "does not take its last entries" in caplog.text
    os.read(reader, 1)


def test_a_full_disk_loses_entries_and_says_how_many(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog("/dev/full")
    for number in (1, 2, 3):
        log({"number": number})
        while log.lost < 1:
            pass
    log.target = str(path)
    log.reopen()
    log({"number": 4})
    log.close()
    *lost, last = [json.loads(line) for line in path.read_text().splitlines()]
    assert {each["event"] for each in lost} == {"audit.lost"}
    assert last == {"number": 4}
    assert caplog.text.count("entries are lost") == 1


def test_a_line_that_was_cut_off_spoils_no_other(hung: tuple[AuditLog, int]) -> None:
    log, reader = hung
    os.set_blocking(log._descriptor, False)
    log({"filler": "x" * 200_000})
    while not log.lost:
        pass
    assert log._torn
    os.read(reader, 1 << 20)
    os.set_blocking(log._descriptor, True)
    log({"number": 1})
    log.close()
    first, *rest = os.read(reader, 1 << 20).split(b"\n")
    assert first == b""
    assert [json.loads(line).get("entries") for line in rest[:-1]] == [1, None]


# The server


def test_the_server_writes_it_and_opens_it_anew(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    path = tmp_path / "audit.log"
    server = start(
        *TRIGEAR,
        *("server", "--listen", "127.0.0.1:0", "--store", "memory", "--audit-log", "audit.log"),
    )
    assert server.ask("create function f\x1b") == "OK\r\n"
    path.rename(tmp_path / "old")
    server.send(signal.SIGHUP)
    assert "audit log reopened" in server.read_until("SIGHUP: ")
    assert server.ask("drop function f\x1b") == "OK\r\n"
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    old = [json.loads(line) for line in (tmp_path / "old").read_text().splitlines()]
    new = [json.loads(line) for line in path.read_text().splitlines()]
    (created,) = [entry for entry in old if entry["event"] == "admin"]
    assert created["time"].endswith("Z")
    assert (created["command"], created["arguments"]) == ("create function", ["f\\x1b"])
    assert (created["peer"], created["tenant"], created["outcome"]) == (
        "127.0.0.1",
        "default",
        "done",
    )
    events = [entry["event"] for entry in new]
    assert events.count("admin") == 1
    assert "config.reload" in events


def test_a_place_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    place = str(tmp_path / "none" / "audit.log")
    done = subprocess.run(
        [
            *(*TRIGEAR, "server", "--listen", "127.0.0.1:0", "--store", "memory"),
            *("--audit-log", place),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == Status.NO
    assert done.stderr.endswith(
        f"audit log {place}: No such file or directory; name another with --audit-log\n"
    )
