"""Files that are changed as a whole: under a lock, and so that who reads sees the old contents or
the new ones, never a part, also when the writer is killed or the power fails."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Be the only one who changes a file, which need not be there; others wait.

    Raises:
        OSError: the lock, a file beside it, cannot be had.
    """
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _give_to(descriptor, os.stat(_folder(path)))
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace(
    path: str, data: bytes, *, owner: os.stat_result | None = None, mode: int = 0o600
) -> None:
    """Put new contents in the place of a file; call it under the lock.

    Args:
        path: where it is, or is to be.
        data: all of the new contents.
        owner: of whom it is to be, as far as that can be said; None: of the folder's owner.
        mode: who may do what with it, from the moment at which it is there.

    Raises:
        OSError: it cannot be written. The old contents are there still.
    """
    beside = f"{path}.new"
    # What a killed writer left behind. Nobody else is at it: the lock is ours.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _give_to(descriptor, owner or os.stat(_folder(path)))
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.rename(beside, path)
    except OSError:
        os.unlink(beside)
        raise
    folder = os.open(_folder(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _give_to(descriptor: int, owner: os.stat_result) -> None:
    """What root makes in somebody's folder is theirs, else they could not use it."""
    with contextlib.suppress(PermissionError):
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _folder(path: str) -> str:
    return os.path.dirname(path) or "."
