"""Books: jobs by handle, or by what submissions coalesce on.

A dict that gets one entry more than it has room for moves all of them, and with a million of them
everybody waits for a twentieth of a second. So a book that grows is split into many dicts, each of
which moves its own when its time has come.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trigear.broker.jobs import Job

_SPLIT: Final = 4096
"""Entries with which a book is split, once and for all."""

_PARTS: Final = 256
"""A power of two. Ten million entries make parts in which moving all takes some milliseconds."""

_SHIFT: Final = 20
"""A part is chosen by bits of the hash that do not choose the place in a dict of its size."""


class Book:
    """Jobs by their keys."""

    __slots__ = ("_mask", "_parts")

    def __init__(self) -> None:
        self._parts: list[dict[bytes, Job]] = [{}]
        self._mask = 0

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __contains__(self, key: bytes) -> bool:
        return key in self._parts[hash(key) >> _SHIFT & self._mask]

    def get(self, key: bytes) -> Job | None:
        """The job, if there is one."""
        return self._parts[hash(key) >> _SHIFT & self._mask].get(key)

    def add(self, key: bytes, job: Job) -> None:
        """Enter a job, in place of another one if need be."""
        if self._mask:
            self._parts[hash(key) >> _SHIFT & self._mask][key] = job
        else:
            whole = self._parts[0]
            whole[key] = job
            if len(whole) >= _SPLIT:
                self._split()

    def remove(self, key: bytes) -> None:
        """Strike an entry out.

        Raises:
            KeyError: there is none.
        """
        if self._mask:
            index = hash(key) >> _SHIFT & self._mask
            part = self._parts[index]
            del part[key]
            if not part:
                # It would keep the room of its best days.
                self._parts[index] = {}
        else:
            del self._parts[0][key]

    def values(self) -> Iterator[Job]:
        """All of them: as long as they were never many, in the order in which they were entered."""
        return chain.from_iterable(part.values() for part in self._parts)

    def _split(self) -> None:
        (whole,) = self._parts
        mask = _PARTS - 1
        parts: list[dict[bytes, Job]] = [{} for _ in range(_PARTS)]
        for key, job in whole.items():
            parts[hash(key) >> _SHIFT & mask][key] = job
        self._parts = parts
        self._mask = mask
