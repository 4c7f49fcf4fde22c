"""How a command ends: with a status, and, if it did not work, with one line saying what, why and
what next. A traceback appears with `--debug` and for bugs of ours, never else."""

from __future__ import annotations

import enum
import os
import sys
from typing import TYPE_CHECKING

import click

from trigear.errors import (
    ConfigError,
    ConnectionLost,
    JobLost,
    LoginFailed,
    Refused,
    TrigearError,
    TrigearInternalError,
)

if TYPE_CHECKING:
    from trigear.cli.manners import Manners


class Status(enum.IntEnum):
    """Exit statuses of every command."""

    DONE = 0
    NO = 1
    """The job failed, or the answer is no."""
    USAGE = 2
    NO_SERVER = 3
    NOT_ALLOWED = 4
    TOO_LATE = 5
    """A deadline passed."""
    BUG = 70
    """Something in trigear broke; a supervisor should start it again."""
    INTERRUPTED = 130


class Failure(Exception):
    """A command cannot do what it was asked; its text is the whole line."""

    def __init__(self, message: str, status: int = Status.NO) -> None:
        super().__init__(message)
        self.status = status


def only_one(error: BaseException) -> BaseException:
    """The one exception that a group wraps, however often; the group if it holds several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def status_of(error: BaseException) -> int:
    """The exit status that says best what ``error`` is."""
    match error:
        case Failure():
            return error.status
        case click.ClickException():
            return error.exit_code
        case click.Abort() | KeyboardInterrupt():
            return Status.INTERRUPTED
        case ConfigError():
            # An address that is written well and cannot be had is no fault of the writing.
            cause = error.__cause__
            return status_of(cause) if isinstance(cause, OSError) else Status.USAGE
        case ConnectionLost() | JobLost():
            return Status.NO_SERVER
        case PermissionError() | LoginFailed() | Refused(code="PERMISSION_DENIED"):
            return Status.NOT_ALLOWED
        case Refused(code="AUTHENTICATION_REQUIRED" | "AUTHENTICATION_EXPIRED"):
            return Status.NOT_ALLOWED
        case TimeoutError():
            return Status.TOO_LATE
        case TrigearInternalError():
            return Status.BUG
        case TrigearError() | OSError():
            return Status.NO
        case SystemExit():
            return error.code if isinstance(error.code, int) else Status.NO
        case _:
            return Status.BUG


def line_for(error: BaseException) -> str:
    """``error`` as one line for people."""
    match error:
        case click.UsageError():
            from trigear.cli.hints import for_option

            if (better := for_option(error)) is not None:
                return better
            # click spreads usage, hint and message over several lines.
            where = error.ctx.command_path if error.ctx is not None else None
            hint = f"; see '{where} --help'" if where else ""
            return " ".join(error.format_message().split()).rstrip(".") + hint
        case click.ClickException():
            return error.format_message()
        case click.Abort() | KeyboardInterrupt():
            return "interrupted"
        case OSError() if error.strerror and error.filename is not None:
            return f"{os.fsdecode(error.filename)}: {error.strerror}"
        case OSError() if error.strerror:
            return error.strerror
        case TrigearInternalError():
            return f"{error}; please report it"
        case Failure() | TrigearError() | TimeoutError():
            return str(error) or "the time is up"
        case _:
            return f"internal error, please report it: {type(error).__name__}: {error}"


def report(program: str, error: BaseException, manners: Manners) -> int:
    """Print what went wrong on standard error; return the exit status."""
    status = status_of(error)
    if manners.debug or status == Status.BUG:
        import traceback

        traceback.print_exception(error)
    complain(program, line_for(error), manners)
    return status


def complain(program: str, text: str, manners: Manners) -> None:
    """Print one line about what went wrong on standard error."""
    plain = not manners.color or bool(os.environ.get("NO_COLOR"))
    label = click.style("error:", fg="red", bold=True)
    click.echo(
        f"{program}: {label} {text}",
        file=sys.stderr,
        color=False if plain else None,  # None: colours on a terminal only
    )
