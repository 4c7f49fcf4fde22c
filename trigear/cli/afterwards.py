"""What a command does when it has changed a file that a server reads: tell that server, and say so.

Of a configuration the server is the one that it would start: it has the lock of its store, is the
one that goes by its users, or its process id is in the file for that. Of a file of users it is
every server that goes by it: they have locks beside it. Their processes are told by SIGHUP.
"""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING, Final

import click

from trigear.cli.report import Failure, line_for
from trigear.errors import TrigearError

if TYPE_CHECKING:
    from trigear.cli.plan import Plan

NOBODY: Final = "no server runs here: applies at the next start"

_PROGRAMS: Final = (b"trigear", b"gearmand")


def tell_server(config: str | None = None) -> str:
    """Have the server that runs here take over what stands in its files.

    Args:
        config: its configuration file; None: the one it would read.

    Returns:
        What to say about that, for the end of a remark.
    """
    try:
        pid = running_server(config)
    except (click.ClickException, TrigearError, Failure) as error:
        return f"no server can take it over: {line_for(error)}"
    return NOBODY if pid is None else _tell(pid)


def tell_servers_of(users: str) -> str:
    """Have the servers that go by a file of users take over what stands there.

    Args:
        users: the file.

    Returns:
        What to say about that, for the end of a remark.
    """
    from trigear.cli.logins import claims_of

    told = [_tell(pid) for claim in claims_of(users) if (pid := _holder(claim)) is not None]
    return "; ".join(told) or NOBODY


def _tell(pid: int) -> str:
    try:
        os.kill(pid, signal.SIGHUP)
    except ProcessLookupError:
        return NOBODY
    except PermissionError:
        return f"process {pid} is somebody else's: let its user run `kill -HUP {pid}`"
    return f"reload sent to process {pid}"


def running_server(config: str | None = None) -> int | None:
    """The process id of the server that runs with this configuration, if one runs here.

    Raises:
        ConfigError, Failure, click.ClickException: no server could be started with it.
    """
    from trigear.cli.config import server_context
    from trigear.cli.server import plan_of

    plan = plan_of(server_context(config), os.getcwd())
    return _owner_of_store(plan) or _owner_of_users(plan) or _named_in_file(plan)


def _owner_of_store(plan: Plan) -> int | None:
    path = plan.store.path
    if path is None:
        return None
    return _holder(f"{os.path.realpath(path)}.lock")


def _owner_of_users(plan: Plan) -> int | None:
    if plan.logins is None:
        return None
    from trigear.cli.logins import claims_of

    # Of several that go by the same users nobody can tell here which one this is.
    found = [pid for claim in claims_of(plan.logins.path) if (pid := _holder(claim)) is not None]
    return found[0] if len(found) == 1 else None


def _holder(lock: str) -> int | None:
    """The process that has a lock."""
    from trigear.stores.lock import holder_of

    try:
        holder = holder_of(lock)
    except OSError:
        return None
    found = None if holder is None else re.match(r"pid ([0-9]{1,10}) ", holder)
    return None if found is None else int(found[1])


def _named_in_file(plan: Plan) -> int | None:
    """What the file says, if it is a server that has this id: it may be an old one's."""
    if plan.pid_file is None:
        return None
    try:
        with open(plan.pid_file.path, "rb") as file:
            text = file.read(20).strip()
        pid = int(text) if text.isdigit() else 0
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).split(b"\0")
    except OSError:
        return None
    named = any(os.path.basename(word) in _PROGRAMS for word in words)
    return pid if pid > 0 and named else None
