"""The log: where lines go, how they look, what happens when the file is rotated away."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from typing import TYPE_CHECKING

import pytest

from trigear.cli import logs
from trigear.cli.logs import (
    LEVELS,
    SYSLOG_PRIORITIES,
    GearmandFormatter,
    HumanFormatter,
    JsonFormatter,
    Log,
    LogSettings,
    LogStyle,
    give_file_to,
    one_line,
)
from trigear.cli.report import Failure, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"


@pytest.fixture
def opened() -> Iterator[Callable[..., Log]]:
    """Open a log; the root logger is afterwards as it was."""
    root = logging.getLogger()
    before, raising, level = list(root.handlers), logging.raiseExceptions, root.level
    found: list[Log] = []

    def open_log(settings: LogSettings) -> Log:
        found.append(Log(settings))
        return found[-1]

    yield open_log
    for log in found:
        log.close()
    root.handlers[:] = before
    root.setLevel(level)
    logging.raiseExceptions = raising


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "trigear.server", "levelno": 20, "levelname": "INFO", "msg": message}
    )
    made.args = args
    made.__dict__.update(extra)
    return made


def with_error(message: str, error: Exception) -> logging.LogRecord:
    try:
        raise error
    except type(error):
        return record(message, exc_info=sys.exc_info())


def test_line_for_people_has_time_level_and_message() -> None:
    line = HumanFormatter().format(record("%d jobs", 3))
    assert re.fullmatch(rf"{TIME} INFO     3 jobs", line)


def test_line_in_gearmands_face_looks_like_gearmands() -> None:
    line = GearmandFormatter().format(record("ready"))
    assert re.fullmatch(r"   INFO \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} \[  main \] ready", line)


def test_json_line_is_one_object_with_what_the_record_carries() -> None:
    line = JsonFormatter().format(record("f\n%s", "x", function=b"re\xffsize", jobs=2))
    assert "\n" not in line
    found = json.loads(line)
    assert re.fullmatch(TIME, found.pop("time"))
    assert found == {
        "level": "info",
        "logger": "trigear.server",
        "message": "f\nx",
        "function": "re\\xffsize",
        "jobs": 2,
    }


def test_what_is_beside_the_message_cannot_replace_it() -> None:
    found = json.loads(JsonFormatter().format(record("said", level="forged", thing=object)))
    assert (found["level"], found["message"]) == ("info", "said")
    assert "object" in found["thing"]


@pytest.mark.parametrize("formatter", [HumanFormatter(), GearmandFormatter()])
def test_text_of_a_peer_cannot_forge_a_line(formatter: logging.Formatter) -> None:
    forged = "f\n2026-01-01 ERROR all is lost\x1b[2J\u2028\x85"
    line = formatter.format(record("function %s", forged))
    assert len(line.splitlines()) == 1
    assert line.endswith("f\\x0a2026-01-01 ERROR all is lost\\x1b[2J\\x2028\\x85")


@pytest.mark.parametrize("formatter", [HumanFormatter(), GearmandFormatter()])
def test_traceback_stands_indented_below_its_line(formatter: logging.Formatter) -> None:
    text = formatter.format(with_error("broken", ValueError("a\nINFO forged")))
    first, *rest = text.split("\n")
    assert first.endswith("broken")
    assert rest
    assert all(line.startswith("    | ") for line in rest)


def test_traceback_in_json_is_a_string_of_its_own() -> None:
    found = json.loads(JsonFormatter().format(with_error("broken", ValueError("why"))))
    assert found["exception"].endswith("ValueError: why")


def test_ordinary_text_is_left_as_it_is() -> None:
    assert one_line("größer als 5 µs") == "größer als 5 µs"


def test_levels_are_gearmands_from_grave_to_light_and_known_to_the_system_log() -> None:
    assert list(LEVELS) == sorted(LEVELS, key=LEVELS.__getitem__, reverse=True)
    assert list(LEVELS) == list(SYSLOG_PRIORITIES)
    assert list(SYSLOG_PRIORITIES.values()) == list(range(8))


def test_level_decides_what_is_written(tmp_path: Path, opened: Callable[..., Log]) -> None:
    path = tmp_path / "x.log"
    opened(LogSettings(target=str(path), level="NOTICE"))
    log = logging.getLogger("trigear.test")
    log.info("light")
    log.log(logs.NOTICE, "noticed")
    log.error("grave")
    assert [line.split()[1] for line in path.read_text().splitlines()] == ["NOTICE", "ERROR"]


def test_log_on_stderr_and_log_nowhere(
    capsys: pytest.CaptureFixture[str], opened: Callable[..., Log]
) -> None:
    log = opened(LogSettings())
    assert log.on_stderr
    logging.getLogger("trigear.test").warning("seen")
    log.close()
    assert capsys.readouterr().err.endswith("WARNING  seen\n")
    nowhere = opened(LogSettings(target="none"))
    assert not nowhere.on_stderr
    logging.getLogger("trigear.test").warning("unseen")
    assert capsys.readouterr().err == ""


def test_file_that_was_rotated_away_is_opened_anew(
    tmp_path: Path, opened: Callable[..., Log]
) -> None:
    path = tmp_path / "x.log"
    log = opened(LogSettings(target=str(path)))
    writer = logging.getLogger("trigear.test")
    writer.warning("before")
    path.rename(tmp_path / "old.log")
    writer.warning("between")
    log.reopen()
    writer.warning("after")
    assert [line.split()[-1] for line in (tmp_path / "old.log").read_text().splitlines()] == [
        "before",
        "between",
    ]
    assert path.read_text().split()[-1] == "after"


def test_file_that_cannot_be_opened_anew_goes_on_being_written(
    tmp_path: Path, opened: Callable[..., Log]
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = opened(LogSettings(target=str(folder / "x.log")))
    folder.rename(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        log.reopen()
    logging.getLogger("trigear.test").warning("still here")
    assert "still here" in (tmp_path / "gone" / "x.log").read_text()


def test_reopening_a_log_that_is_no_file_does_nothing(opened: Callable[..., Log]) -> None:
    opened(LogSettings()).reopen()


def test_file_that_cannot_be_opened_stops_the_start(
    tmp_path: Path, opened: Callable[..., Log]
) -> None:
    path = tmp_path / "absent" / "x.log"
    with pytest.raises(Failure, match=f"log file {path}: No such file") as caught:
        opened(LogSettings(target=str(path)))
    assert caught.value.status == Status.NO


def test_gearmands_face_logs_to_stderr_instead_and_says_so(
    tmp_path: Path, opened: Callable[..., Log]
) -> None:
    log = opened(LogSettings(target=str(tmp_path / "absent" / "x.log"), forgiving=True))
    assert log.on_stderr
    assert log.complaint is not None
    assert "logging to stderr instead" in log.complaint


def test_system_log_gets_message_and_priority(
    monkeypatch: pytest.MonkeyPatch, opened: Callable[..., Log]
) -> None:
    # What the C library does with it cannot be seen from here; what it is given can.
    sent: list[tuple[int, str]] = []
    monkeypatch.setattr(logs.syslog, "syslog", lambda priority, text: sent.append((priority, text)))
    opened(LogSettings(target="syslog", style=LogStyle.JSON))
    logging.getLogger("trigear.test").error("one\ntwo")
    logging.getLogger("trigear.test").log(logs.FATAL, "over", exc_info=ValueError("why"))
    assert sent == [
        (SYSLOG_PRIORITIES["ERROR"], "one\\x0atwo"),
        (SYSLOG_PRIORITIES["FATAL"], "over (ValueError: why)"),
    ]


def test_system_log_may_come_beside_a_file(tmp_path: Path, opened: Callable[..., Log]) -> None:
    log = opened(LogSettings(target=str(tmp_path / "x.log"), syslog=True))
    assert len(log.handlers) == 2


def test_disk_that_is_full_does_not_stop_the_server(
    opened: Callable[..., Log], capsys: pytest.CaptureFixture[str]
) -> None:
    if not os.path.exists("/dev/full"):
        pytest.fail("this system has no /dev/full")
    opened(LogSettings(target="/dev/full"))
    logging.getLogger("trigear.test").error("lost")
    assert capsys.readouterr().err == ""


def test_new_log_file_belongs_to_the_user_who_will_write_it(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        uid, gid = 65534, 65534
    give_file_to(str(path), uid, gid)
    assert (path.stat().st_uid, path.stat().st_gid) == (uid, gid)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("dangling", [True, False])
def test_existing_log_file_is_not_given_away(tmp_path: Path, *, dangling: bool) -> None:
    # A link in somebody's folder must not make root create or give away what it points to.
    target, link = tmp_path / "precious", tmp_path / "x.log"
    if not dangling:
        target.write_text("secret")
    link.symlink_to(target)
    give_file_to(str(link), 65534, 65534)
    assert target.exists() is not dangling
    if not dangling:
        assert target.stat().st_uid == os.getuid()
