"""What a command line asks for, worked out: the same for both faces of the server."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trigear.cli.logs import LogSettings
from trigear.cli.store import StorePlan
from trigear.engine.config import HANDLE_NAME_LIMIT, ServerConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from trigear.cli.logins import LoginPlan


@dataclass(frozen=True, slots=True)
class PidFileSettings:
    """Where the process id goes; a place that nobody chose may turn out unwritable."""

    path: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that starting a server needs to know.

    ``results`` is the URL of the place where results are kept, None for beside the jobs.
    ``audit`` is where the audit log goes: the absolute path of a file, `-` for standard error, or
    None for nowhere. ``notes`` are said once at the start, as warnings, ``hint`` as no more than
    that. ``reread`` reads the configuration anew, for a running server that is asked to.
    ``failure`` is the exit status of whatever goes wrong, where one status is all there is.
    """

    program: str = "trigear"
    config: ServerConfig = field(default_factory=ServerConfig)
    store: StorePlan = field(default_factory=StorePlan)
    results: str | None = None
    log: LogSettings = field(default_factory=LogSettings)
    audit: str | None = None
    pid_file: PidFileSettings | None = None
    daemon: bool = False
    run_as: str | None = None
    run_as_option: str = "--run-as"
    descriptors: int | None = None
    insecure_open: bool = False
    logins: LoginPlan | None = None
    quiet: bool = False
    notes: tuple[str, ...] = ()
    hint: str | None = None
    reread: Callable[[], Plan] | None = None
    failure: int | None = None


def attempts_for(job_retries: int) -> int:
    """gearmand's number of retries as a number of attempts.

    -1 means without limit, which attempts write as 0. A job is given up when it is lost for the
    N-th time, and with 0 at the first loss as with 1.
    """
    return 0 if job_retries < 0 else max(1, job_retries)


def handle_prefix() -> bytes:
    """What job handles begin with unless somebody says otherwise: `H:` and this machine's name."""
    name = platform.node().encode()[:HANDLE_NAME_LIMIT] or b"localhost"
    return b"H:" + bytes(byte if 32 < byte != 127 else ord("_") for byte in name)


def absolute(path: str, folder: str) -> str:
    """``path`` as seen from ``folder``: a daemon leaves the directory it was started in."""
    return os.path.normpath(os.path.join(folder, path))


def at(folder: str, address: str) -> str:
    """``address``, its path absolute if it is a Unix socket."""
    scheme, colon, path = address.partition(":")
    return f"unix:{absolute(path, folder)}" if scheme == "unix" and colon and path else address
