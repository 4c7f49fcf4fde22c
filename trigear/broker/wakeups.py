"""Who is woken when there is a job.

A wake-up *covers* one runnable job from the moment NOOP is sent until the worker grabs, sleeps
again, leaves, or a second has passed; then the wake-up is handed on. As many sleepers are woken as
there are runnable jobs not covered, the longest asleep first. Waking all of 2,000 for one job costs
four hundred times as much as waking one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from trigear.model import NEVER

if TYPE_CHECKING:
    from trigear.broker.functions import Function
    from trigear.broker.peers import Peer
    from trigear.model import Now

WAKE_SECONDS: Final = 1.0
"""How long a woken worker may take to grab before another is woken in its place."""


class Wakeups:
    """The sleepers' side of the broker.

    ``policy`` is None to wake as many sleepers as there are jobs to cover; a number wakes at least
    that many for every job queued, 0 all of them.
    """

    __slots__ = ("_policy", "_sent")

    def __init__(self, policy: int | None) -> None:
        self._policy = policy
        self._sent: deque[tuple[float, Peer, int]] = deque()

    def wake(self, function: Function, now: Now, *, fresh: bool = False) -> None:
        """Wake as many sleepers as are needed; ``fresh``: because a job was queued just now."""
        sleepers = function.sleepers
        if not sleepers or function.paused:
            return
        need = function.runnable - function.covering
        if fresh and self._policy is not None:
            need = max(need, self._policy or len(sleepers))
        if need <= 0:
            return
        if need == 1 and not function.ghosted:
            self.rouse(peer := next(iter(sleepers)))
            self.send(peer, function, now)
            return
        for peer in list(sleepers):
            if not function.ghosted or function.first(peer) is not None:
                self.rouse(peer)
                self.send(peer, function, now)
                need -= 1
                if not need:
                    return

    def send(self, peer: Peer, function: Function, now: Now) -> None:
        """Wake this worker for a job of this function."""
        peer.woken_for = function
        function.covering += 1
        sent = self._sent
        while sent and sent[0][1].wake_number != sent[0][2]:
            sent.popleft()
        sent.append((now.monotonic + WAKE_SECONDS, peer, peer.wake_number))
        peer.sink.wake()

    @staticmethod
    def rouse(peer: Peer) -> None:
        """The worker is not asleep any more."""
        peer.sleeping = False
        for function in peer.abilities:
            function.sleepers.pop(peer, None)

    @staticmethod
    def settle(peer: Peer) -> Function | None:
        """The worker's wake-up covers nothing any more; returns what it covered, if anything."""
        function = peer.woken_for
        if function is not None:
            function.covering -= 1
            peer.woken_for = None
            peer.wake_number += 1
        return function

    def next(self) -> float:
        """When the oldest wake-up is handed on, by the monotonic clock; infinity for never."""
        sent = self._sent
        while sent and sent[0][1].wake_number != sent[0][2]:
            sent.popleft()
        return sent[0][0] if sent else NEVER

    def run(self, now: Now) -> None:
        """Hand on the wake-ups that nobody followed within a second."""
        while self.next() <= now.monotonic:
            _, peer, _ = self._sent.popleft()
            function = self.settle(peer)
            assert function is not None
            self.wake(function, now)
