"""One owner per store on this machine: a file that is locked for as long as its owner lives.

The system lets go of the lock when the process ends, however it ends, so a lock that is left
behind cannot exist. What stands in the file is for people: who holds the lock.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING, Final

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


PROBES: Final = 3
"""How often a lock is tried that somebody else has: :func:`holder_of` has it for a moment."""

PROBE_SECONDS: Final = 0.05


def _locked(path: str) -> int:
    probes = 0
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _still_there(path, descriptor):
                return descriptor
        except BlockingIOError as error:
            who = _name_in(descriptor)
            os.close(descriptor)
            probes += 1
            if probes < PROBES:
                time.sleep(PROBE_SECONDS)
                continue
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


def holder_of(path: str) -> str | None:
    """Who holds the lock, for people; None if nobody does.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # Shared, so that two who ask do not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _name_in(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _name_in(descriptor: int) -> str:
    # A holder that has only just started has not written its name yet.
    return os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "just starting"
