"""The front door of the command line: version, help, what is no command, how commands fail."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

import trigear as package
from trigear.cli import main
from trigear.cli.report import Failure, Status, line_for, status_of
from trigear.cli.root import COMMANDS, run, trigear_command
from trigear.errors import ConfigError, ConnectionLost, Refused, StoreError, TrigearInternalError
from trigear.model import COMPILED

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Said

VERSION = f"trigear {package.__version__}{' (compiled)' if COMPILED else ''}\n"


def test_version_is_the_package_version(trigear: Callable[..., Said]) -> None:
    said = trigear("--version")
    assert (said.status, said.out) == (0, VERSION)


def test_module_runs_like_the_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trigear", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == VERSION


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_list_of_commands_names_each_with_a_line_of_help(
    name: str, trigear: Callable[..., Said]
) -> None:
    assert re.search(rf"^  {name} +\S", trigear("--help").out, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_command_has_help_of_its_own(name: str, trigear: Callable[..., Said]) -> None:
    said = trigear(name, "--help")
    assert said.status == 0
    assert said.out.startswith(f"Usage: trigear {name}")


def test_no_command_at_all_shows_the_help_as_a_mistake(trigear: Callable[..., Said]) -> None:
    said = trigear()
    assert said.status == Status.USAGE
    assert "Commands:" in said.err


def test_unknown_command_is_told_the_nearest_one(trigear: Callable[..., Said]) -> None:
    said = trigear("sevrer")
    assert said.status == Status.USAGE
    assert "no command 'sevrer': did you mean 'server'?" in said.line


def test_unknown_command_like_no_other_is_told_all_there_are(
    trigear: Callable[..., Said],
) -> None:
    assert ", ".join(COMMANDS) in trigear("xyzzy").line


def test_unknown_option_is_one_line_that_names_the_help(trigear: Callable[..., Said]) -> None:
    said = trigear("server", "--prot", "1")
    assert said.status == Status.USAGE
    assert "--prot" in said.line
    assert said.line.endswith("see 'trigear server --help'")


@pytest.mark.parametrize("before", [True, False])
def test_debug_shows_the_traceback_wherever_it_stands(
    *, before: bool, trigear: Callable[..., Said]
) -> None:
    wrong = ["server", "--store", "nowhere"]
    said = trigear("--debug", *wrong) if before else trigear("server", "--debug", *wrong[1:])
    assert said.status == Status.USAGE
    assert "Traceback" in said.err
    assert "nowhere" in said.err.splitlines()[-1]


def test_quiet_and_verbose_contradict_each_other(trigear: Callable[..., Said]) -> None:
    said = trigear("--quiet", "server", "-v")
    assert said.status == Status.USAGE
    assert "contradict" in said.line


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Failure("no"), Status.NO),
        (Failure("no", Status.TOO_LATE), Status.TOO_LATE),
        (click.UsageError("what?"), Status.USAGE),
        (ConfigError("port", "is odd"), Status.USAGE),
        (ConnectionLost("gone"), Status.NO_SERVER),
        (Refused("PERMISSION_DENIED", "no"), Status.NOT_ALLOWED),
        (PermissionError(errno.EACCES, "no", "/x"), Status.NOT_ALLOWED),
        (TimeoutError(), Status.TOO_LATE),
        (OSError(errno.EADDRINUSE, "in use"), Status.NO),
        (StoreError("full"), Status.NO),
        (KeyboardInterrupt(), Status.INTERRUPTED),
        (click.Abort(), Status.INTERRUPTED),
        (TrigearInternalError("broken"), Status.BUG),
        (ZeroDivisionError("ours"), Status.BUG),
    ],
)
def test_each_kind_of_error_has_its_status_and_one_line(error: Exception, status: int) -> None:
    assert status_of(error) == status
    assert line_for(error)
    assert "\n" not in line_for(error)


def test_setting_that_cannot_be_had_ends_as_its_cause_says() -> None:
    error = ConfigError("listen", "permission denied")
    error.__cause__ = PermissionError(errno.EACCES, "no")
    assert status_of(error) == Status.NOT_ALLOWED


def test_error_that_trio_wrapped_is_reported_as_itself(capfd: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def wrapped() -> None:
        inner = ExceptionGroup("inner", [Failure("the thing itself", Status.NO_SERVER)])
        raise ExceptionGroup("outer", [inner])

    assert run(wrapped, "trigear", []) == Status.NO_SERVER
    assert capfd.readouterr().err == "trigear: error: the thing itself\n"


def test_bug_of_ours_shows_its_traceback_unasked(capfd: pytest.CaptureFixture[str]) -> None:
    @click.command()
    def broken() -> None:
        raise ZeroDivisionError("of ours")

    assert run(broken, "trigear", []) == Status.BUG
    err = capfd.readouterr().err
    assert "Traceback" in err
    assert "please report it: ZeroDivisionError: of ours" in err


def test_program_called_gearmand_has_gearmands_face(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(Path("/usr/sbin/gearmand")), "--version"])
    assert main() == 0
    assert capfd.readouterr().out.startswith("\ngearmand 2.0.0+trigear.")


def test_group_itself_is_called_trigear() -> None:
    assert trigear_command.name == "trigear"
