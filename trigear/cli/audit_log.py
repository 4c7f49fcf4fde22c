"""The audit log on disk: one JSON object on each line.

Entries are written by a thread of their own, in the order in which they came, so that a disk that
hangs holds up nobody. What comes while ``MOST_WAITING`` wait already is left out, and so is what
cannot be written; in front of the next one an entry `audit.lost` says how many there were.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from trigear.cli.report import Failure, Status

if TYPE_CHECKING:
    from collections.abc import Mapping

log: Final = logging.getLogger("trigear.server")

STDERR: Final = "-"

MOST_WAITING: Final = 20_000

PATIENCE: Final = 5.0
"""Seconds that the end of the server waits for the disk."""


class AuditLog:
    """An audit log that is open.

    Args:
        target: a file; `-` for standard error.

    Raises:
        Failure: it cannot be opened.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.lost = 0
        """Entries that were left out, and not told of yet."""
        self._waiting: deque[Mapping[str, object] | int] = deque()
        """Entries, and descriptors to go on with."""
        self._some = threading.Condition()
        self._ends = False
        self._failing = False
        self._torn = False
        """Whether the last line that was written is not whole."""
        try:
            self._descriptor = self._opened()
        except OSError as error:
            status = Status.NOT_ALLOWED if isinstance(error, PermissionError) else Status.NO
            raise Failure(
                f"audit log {target}: {error.strerror}; name another with --audit-log", status
            ) from error
        self._thread = threading.Thread(target=self._work, name="audit log", daemon=True)
        self._thread.start()

    def _opened(self) -> int:
        if self.target == STDERR:
            return os.dup(2)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(self.target, flags, 0o600)

    def __call__(self, entry: Mapping[str, object]) -> None:
        """Have an entry written. Returns at once."""
        with self._some:
            if len(self._waiting) >= MOST_WAITING:
                self.lost += 1
                return
            if self.lost:
                self._waiting.append(_lost(self.lost))
                self.lost = 0
            self._waiting.append(entry)
            self._some.notify()

    def reopen(self) -> None:
        """Go on in a fresh file of the same name, behind what waits still.

        Raises:
            OSError: it cannot be opened; the old one goes on being written.
        """
        fresh = self._opened()
        with self._some:
            self._waiting.append(fresh)
            self._some.notify()

    def close(self) -> None:
        """Write what waits, and end; a disk that hangs is not waited for any longer."""
        with self._some:
            self._ends = True
            self._some.notify()
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            log.error("audit log %s: it does not take its last entries", self.target)

    def _work(self) -> None:
        while True:
            with self._some:
                while not self._waiting and not self._ends:
                    self._some.wait()
                if not self._waiting:
                    break
                taken, self._waiting = self._waiting, deque()
            entries: list[Mapping[str, object]] = []
            for item in taken:
                if isinstance(item, int):
                    self._write(entries)
                    entries = []
                    os.close(self._descriptor)
                    self._descriptor = item
                else:
                    entries.append(item)
            self._write(entries)
        os.close(self._descriptor)

    def _write(self, entries: list[Mapping[str, object]]) -> None:
        lines = b"".join(json.dumps(entry, default=str).encode() + b"\n" for entry in entries)
        data = b"\n" + lines if self._torn else lines
        try:
            while data:
                written = os.write(self._descriptor, data)
                self._torn = data[written - 1 : written] != b"\n"
                data = data[written:]
        except OSError as error:
            with self._some:
                self.lost += min(data.count(b"\n"), len(entries))
            if not self._failing:
                log.error("audit log %s: %s; entries are lost", self.target, error.strerror)
            self._failing = True
        else:
            self._failing = False


def _lost(count: int) -> Mapping[str, object]:
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"time": time, "event": "audit.lost", "entries": count}
