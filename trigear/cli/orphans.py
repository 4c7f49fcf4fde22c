"""What is left of a worker process that was killed outright: the programs that it ran for jobs.

A worker process tells its supervisor of every process group that it begins and ends. When it dies,
the supervisor ends those that are left, as the worker would have done: SIGTERM, and SIGKILL two
seconds later. (The system's own way, PR_SET_PDEATHSIG, watches the thread that started the program,
not the process, and does not reach what the program has started.)

Code of others can speak on that channel, too, with the rights of the user who does the jobs. So a
supervisor that is root believes only in groups of that user's: these it could end by itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
from typing import Final

log: Final = logging.getLogger("trigear.worker")

TERM_GRACE: Final = 2.0
"""Seconds between SIGTERM and SIGKILL."""

LOOK_SECONDS: Final = 0.1
"""How often groups are looked at that were told to end."""


class Group:
    """A process group, by the number of the process that leads it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.kill_at = 0.0
        # A number may be given again; what this is bound to is the process.
        try:
            self._leader = os.pidfd_open(number)
        except (OSError, AttributeError):
            self._leader = -1

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.number, number)

    @property
    def is_gone(self) -> bool:
        """Whether nobody of it is left."""
        try:
            os.killpg(self.number, 0)
        except (ProcessLookupError, PermissionError):
            return True
        return self._leader_ended() and self._number_is_given_again()

    def _leader_ended(self) -> bool:
        if self._leader < 0:
            return False
        poll = select.poll()
        poll.register(self._leader, select.POLLIN)
        return bool(poll.poll(0))

    def _number_is_given_again(self) -> bool:
        # The number stays taken while anybody of the group lives; only then it is another's.
        try:
            os.kill(self.number, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return not is_zombie(self.number)

    def close(self) -> None:
        if self._leader >= 0:
            os.close(self._leader)
            self._leader = -1


class Programs:
    """The process groups that one worker process has begun and not ended.

    Args:
        user: whose they are, if the supervisor has more rights than that user; else None.
    """

    def __init__(self, user: int | None) -> None:
        self._user = user
        self._groups: dict[int, Group] = {}

    def began(self, number: int) -> None:
        group = Group(number)
        if self._user is not None and owner_of(number) != self._user:
            log.warning("process group %d is not of user %d: left alone", number, self._user)
            group.close()
            return
        self._groups[number] = group

    def ended(self, number: int) -> None:
        group = self._groups.pop(number, None)
        if group is not None:
            group.close()

    def take(self) -> list[Group]:
        """Those that are left; they are the caller's now."""
        groups, self._groups = list(self._groups.values()), {}
        return groups


class Orphans:
    """Process groups whose worker process is dead, until they are, too."""

    def __init__(self) -> None:
        self._groups: list[Group] = []

    def __bool__(self) -> bool:
        return bool(self._groups)

    def adopt(self, groups: list[Group], now: float) -> None:
        """Tell them to end."""
        for group in groups:
            if group.is_gone:
                group.close()
                continue
            log.warning("program %d has outlived its worker process: told to end", group.number)
            group.signal(signal.SIGTERM)
            group.kill_at = now + TERM_GRACE
            self._groups.append(group)

    def look(self, now: float) -> None:
        """Let go of those that are gone, and end those that do not go."""
        for group in list(self._groups):
            if not group.is_gone:
                if now < group.kill_at:
                    continue
                log.warning("program %d does not end: killed", group.number)
                group.signal(signal.SIGKILL)
            group.close()
            self._groups.remove(group)

    def kill(self) -> None:
        """End all of them, at once."""
        self.look(float("inf"))


def owner_of(process: int) -> int | None:
    """The number of a process' user, or None if it is gone or the system does not tell."""
    return _status_of(process, "Uid:")


def is_zombie(process: int) -> bool:
    """Whether a process has ended and nobody has asked how."""
    try:
        with open(f"/proc/{process}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[:1] == [b"Z"]
    except OSError:
        return False


def _status_of(process: int, field: str) -> int | None:
    try:
        with open(f"/proc/{process}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith(field):
                    return int(line.split()[1])
    except OSError:
        pass
    return None
