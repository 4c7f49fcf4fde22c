"""Deadlines in one heap, with cancelling that costs nothing until it pays to clean up."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Final

from trigear.model import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

TURN: Final = 256
"""Calls made in a row before others have their turn."""

_SLACK: Final = 512
"""Cancelled timers that are never worth a clean-up."""


class Timers:
    """Calls that are due at a time. A timer is a list ``[when, number, call, *args]``.

    A cancelled timer stays in the heap with its call taken out; when more than half of the heap
    is such, the heap is built anew.
    """

    __slots__ = ("_cancelled", "_heap", "_number")

    def __init__(self) -> None:
        self._heap: list[list[Any]] = []
        self._number = 0
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def set(self, when: float, call: Callable[..., None], *args: object) -> list[Any]:
        """Arrange for ``call(*args, now)`` at ``when``; returns the timer."""
        self._number += 1
        timer = [when, self._number, call, *args]
        heappush(self._heap, timer)
        return timer

    def cancel(self, timer: list[Any]) -> None:
        """Take a timer back. One that has been called or cancelled before is left alone."""
        if len(timer) == 2:
            return
        del timer[2:]
        self._cancelled += 1
        if self._cancelled > _SLACK and self._cancelled * 2 > len(self._heap):
            self._heap = [timer for timer in self._heap if len(timer) > 2]
            heapify(self._heap)
            self._cancelled = 0

    def next(self) -> float:
        """When the next timer is due; infinity if none is set."""
        heap = self._heap
        while heap and len(heap[0]) == 2:
            heappop(heap)
            self._cancelled -= 1
        return heap[0][0] if heap else NEVER

    def run(self, moment: float, *args: object, turn: int = TURN) -> None:
        """Make the calls that are due at ``moment``, in order, with ``args`` behind their own.

        At most ``turn`` of them: while :meth:`next` is not later than the moment there are more.
        """
        while turn and self.next() <= moment:
            turn -= 1
            timer = heappop(self._heap)
            _, _, call, *own = timer
            del timer[2:]
            call(*own, *args)
