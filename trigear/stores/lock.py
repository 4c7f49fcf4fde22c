"""One owner per store on this machine: a file that is locked for as long as its owner lives.

The system lets go of the lock when the process ends, however it ends, so a lock that is left
behind cannot exist. What stands in the file is for people: who holds the lock.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from trigear.errors import StoreUnusable

if TYPE_CHECKING:
    from trigear.stores.base import Owner


class LockFile:
    """The lock at ``path``, held until :meth:`release`.

    Raises:
        StoreUnusable: another process holds it; the text names it.
        OSError: the file cannot be made.
    """

    def __init__(self, path: str, owner: Owner) -> None:
        self._descriptor = _locked(path)
        text = f"pid {owner.pid} at {owner.address}\n"
        try:
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, text.encode())
        except OSError:
            os.close(self._descriptor)
            raise

    def release(self) -> None:
        """Let go of the lock. The file stays, empty: removing it could pull it out from under
        somebody who is just about to lock it."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def _locked(path: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _still_there(path, descriptor):
                return descriptor
        except BlockingIOError as error:
            # A holder that has only just started has not written its name yet.
            who = os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "just starting"
            os.close(descriptor)
            raise StoreUnusable(
                f"it belongs to another server ({who}); stop that one, or give this one a place of"
                " its own"
            ) from error
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _still_there(path: str, descriptor: int) -> bool:
    """Whether the file that was locked is the one that others would lock."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
