"""A connection that can be cut after any byte."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TO_SERVER, TO_CLIENT = 0, 1


class Cutter:
    """Passes connections on from a Unix socket in ``folder`` to the one in ``behind``, both named
    as PostgreSQL does. One connection at a time is followed; the last one.

    Once armed, it lets so many bytes through in one direction, then cuts off both ends.
    """

    NAME = ".s.PGSQL.5432"

    def __init__(self, folder: Path, behind: Path) -> None:
        self.passed = [0, 0]
        """How many bytes have gone through since the last arming, in each direction."""
        self._behind = behind / self.NAME
        self._left: list[float] = [float("inf")] * 2
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / self.NAME))
        self._listener.listen()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def arm(self, direction: int, after: int) -> None:
        """Cut after so many more bytes in this direction."""
        self.passed = [0, 0]
        self._left[direction] = after

    def disarm(self) -> None:
        self._left = [float("inf")] * 2

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in [self._accepting, *self._threads]:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._pass_on, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(str(self._behind))
            ends = (client, server)
            while True:
                for end in select.select(ends, (), ())[0]:
                    direction = TO_SERVER if end is client else TO_CLIENT
                    data = end.recv(65536)
                    if not data:
                        return
                    part = data[: int(min(self._left[direction], len(data)))]
                    self._left[direction] -= len(part)
                    self.passed[direction] += len(part)
                    ends[1 - ends.index(end)].sendall(part)
                    if self._left[direction] <= 0:
                        # The next connection is to be a whole one.
                        self.disarm()
                        return
