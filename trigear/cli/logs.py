"""Where the server's log goes and how its lines look.

Loggers are those of the standard library; code below writes to `trigear.…` and knows nothing of
this. Three styles: lines for people, one JSON object per line, and gearmand's lines in its face.
Text that came from a peer (a function's name, a client id) is printed with its control characters
escaped, so that nobody can forge a line. Workloads are never logged by anyone.
"""

from __future__ import annotations

import contextlib
import datetime
import enum
import json
import logging
import os
import sys
import syslog
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

from trigear.cli.report import Failure, Status

FATAL: Final = 70
ALERT: Final = 60
NOTICE: Final = 25

LEVELS: Final = {
    "FATAL": FATAL,
    "ALERT": ALERT,
    "CRITICAL": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "NOTICE": NOTICE,
    "INFO": logging.INFO,
    "DEBUG": logging.DEBUG,
}
"""gearmand's names, the gravest first; what the text command `verbose` answers is one of them."""

SYSLOG_PRIORITIES: Final = {
    "FATAL": syslog.LOG_EMERG,
    "ALERT": syslog.LOG_ALERT,
    "CRITICAL": syslog.LOG_CRIT,
    "ERROR": syslog.LOG_ERR,
    "WARNING": syslog.LOG_WARNING,
    "NOTICE": syslog.LOG_NOTICE,
    "INFO": syslog.LOG_INFO,
    "DEBUG": syslog.LOG_DEBUG,
}

_CONTROL_CHARACTERS: Final = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
}
_ORDINARY_ATTRIBUTES: Final = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
}


class LogStyle(enum.Enum):
    """How a line looks."""

    HUMAN = "human"
    JSON = "json"
    GEARMAND = "gearmand"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What the user chose.

    ``target`` is `stderr`, `none`, `syslog` or the absolute path of a file; ``syslog`` asks for the
    system log beside it. With ``forgiving``, a file that cannot be opened is replaced by standard
    error and a line that says so, which is what gearmand does.
    """

    target: str = "stderr"
    style: LogStyle = LogStyle.HUMAN
    level: str = "INFO"
    syslog: bool = False
    forgiving: bool = False
    program: str = "trigear"

    @property
    def is_file(self) -> bool:
        return self.target not in {"stderr", "none", "syslog"}


def one_line(text: str) -> str:
    """``text`` with everything escaped that could end a line or drive a terminal."""
    return text.translate(_CONTROL_CHARACTERS)


class HumanFormatter(logging.Formatter):
    """`2026-05-04T03:02:01.000+02:00 INFO    message`."""

    def format(self, record: logging.LogRecord) -> str:
        head = f"{local_time(record)} {record.levelname:<8}"
        return f"{head} {one_line(record.getMessage())}{self.details(record)}"

    def details(self, record: logging.LogRecord) -> str:
        if not record.exc_info:
            return ""
        # Indented, so that a peer's text inside cannot pass for a line of its own.
        lines = self.formatException(record.exc_info).split("\n")
        return "".join(f"\n    | {one_line(line)}" for line in lines)


class GearmandFormatter(HumanFormatter):
    """gearmand's lines: level, time, thread, message."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.datetime.fromtimestamp(record.created)  # local, as gearmand's
        return (
            f"{record.levelname:>7} {when:%Y-%m-%d %H:%M:%S.%f} [  main ] "
            f"{one_line(record.getMessage())}{self.details(record)}"
        )


class JsonFormatter(logging.Formatter):
    """One object per line: time, level, logger, message, what the record carries beside them."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": local_time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in record.__dict__.items():
            if name not in _ORDINARY_ATTRIBUTES:
                line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=json_text)


def json_text(value: object) -> str:
    """What JSON has no form for: bytes as the text they mostly are, the rest as it prints."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def local_time(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC).astimezone()
    return moment.isoformat(timespec="milliseconds")


FORMATTERS: Final = {
    LogStyle.HUMAN: HumanFormatter,
    LogStyle.JSON: JsonFormatter,
    LogStyle.GEARMAND: GearmandFormatter,
}


if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
else:
    _StreamHandler = logging.StreamHandler


class Stderr(_StreamHandler):
    """Log lines on standard error, until nobody reads them any more."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def handleError(self, record: logging.LogRecord) -> None:
        """The reader is gone: what is in the stream's buffer would fail the program at its end."""
        if isinstance(sys.exception(), OSError):
            with contextlib.suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)
        else:
            super().handleError(record)


class LogFile(logging.Handler):
    """A file that can be opened anew under the same name, after it was rotated away.

    Each line is one write, with no buffer before it: a line is in the file when the call returns,
    and what a full disk does not take is lost instead of piling up.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.descriptor = self.opened()

    def opened(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):
            os.write(self.descriptor, line)

    def reopen(self) -> None:
        """Go on in a fresh file of the same name; without one, in the old file.

        Raises:
            OSError: it cannot be opened.
        """
        fresh = self.opened()
        old, self.descriptor = self.descriptor, fresh
        os.close(old)

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        super().close()


class Syslog(logging.Handler):
    """The system's log, facility `daemon`."""

    def __init__(self, program: str) -> None:
        super().__init__()
        syslog.openlog(program, syslog.LOG_PID, syslog.LOG_DAEMON)

    def emit(self, record: logging.LogRecord) -> None:
        priority = SYSLOG_PRIORITIES.get(record.levelname, syslog.LOG_INFO)
        # The message without a formatter's time and level: syslog writes its own.
        text = one_line(record.getMessage())
        if record.exc_info:
            kind, error, _ = record.exc_info
            text += one_line(f" ({kind.__name__}: {error})") if kind is not None else ""
        with contextlib.suppress(ValueError):  # a NUL in spite of the escaping
            syslog.syslog(priority, text)


class Log:
    """The open log of this process.

    Raises:
        Failure: the file cannot be opened.
    """

    def __init__(self, settings: LogSettings) -> None:
        self.settings = settings
        self.handlers: list[logging.Handler] = []
        self.file: LogFile | None = None
        self.complaint: str | None = None
        for name, number in LEVELS.items():
            logging.addLevelName(number, name)
        # A log that cannot be written must not make every call print a traceback.
        logging.raiseExceptions = False
        self.choose()
        root = logging.getLogger()
        self.level_before = root.level
        root.setLevel(LEVELS[settings.level])
        for handler in self.handlers:
            if not isinstance(handler, Syslog):
                handler.setFormatter(FORMATTERS[settings.style]())
            root.addHandler(handler)

    def choose(self) -> None:
        settings = self.settings
        if settings.target == "stderr":
            self.handlers.append(Stderr())
        elif settings.is_file:
            try:
                self.file = LogFile(settings.target)
            except OSError as error:
                if not settings.forgiving:
                    status = Status.NOT_ALLOWED if isinstance(error, PermissionError) else Status.NO
                    raise Failure(
                        f"log file {settings.target}: {error.strerror};"
                        " name another with --log-file, or write to stderr",
                        status,
                    ) from error
                self.complaint = (
                    f"log file {settings.target}: {error.strerror}; logging to stderr instead"
                )
                self.handlers.append(Stderr())
            else:
                self.handlers.append(self.file)
        if settings.syslog or settings.target == "syslog":
            self.handlers.append(Syslog(settings.program))
        if not self.handlers:
            self.handlers.append(logging.NullHandler())

    @property
    def on_stderr(self) -> bool:
        """Whether lines go to standard error."""
        return any(isinstance(handler, Stderr) for handler in self.handlers)

    def reopen(self) -> None:
        """Open the file anew, for whoever rotates it; other targets need nothing.

        Raises:
            OSError: it cannot be opened; the old file goes on being written.
        """
        if self.file is not None:
            self.file.reopen()

    def close(self) -> None:
        """Stop logging; called once, at the end."""
        root = logging.getLogger()
        root.setLevel(self.level_before)
        for handler in self.handlers:
            root.removeHandler(handler)
            handler.close()


def give_file_to(path: str, uid: int, gid: int, *, mode: int = 0o640) -> None:
    """Create a log file for a user to whom privileges will be dropped.

    Only a file that does not exist yet is created and given away. One that exists is left alone
    and opened later with the user's own rights: opening or giving away as root what a name in
    somebody's directory points to would let them write where root can.
    """
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    except OSError:
        return  # it exists, or cannot be made: opening it as the user finds out and says so
    try:
        os.fchown(descriptor, uid, gid)
    finally:
        os.close(descriptor)
