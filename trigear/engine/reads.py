"""What has to be read from a store because somebody asked for it, and who waits for that.

The engine leaves a :class:`Fetch`; a reader takes it, reads in a thread of its own while batches
are written in another, and brings back what was there. One fetch is read at a time; what is asked
for meanwhile gathers. Those who wait take turns by what they ask for, in practice by tenant.

Nobody waits for longer than ``READ_SECONDS``. A store that has let somebody wait so long counts as
stalled: whoever waits or asks is told so at once, until it answers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trigear.model import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from trigear.model import Now

READ_SECONDS: Final = 5.0

FETCH_KEYS: Final = 64
FETCH_BYTES: Final = 4 * 1024 * 1024
"""Something larger than this is read alone."""

READ_BYTES: Final = 512
"""What somebody who waits takes up in memory beside what is read, about."""

STALLED: Final = "The store does not answer"


class Read:
    """One who waits.

    ``then`` is called once with what was found, or None, and with why it could not be read, or
    nothing.
    """

    __slots__ = ("deadline", "key", "over", "size", "then")

    def __init__(
        self, key: Hashable, size: int, deadline: float, then: Callable[[Any, str], None]
    ) -> None:
        self.key = key
        self.size = size
        self.deadline = deadline
        self.then = then
        self.over = False

    def end(self, found: object, why: str) -> None:
        if not self.over:
            self.over = True
            self.then(found, why)


@dataclass(frozen=True, eq=False, slots=True)
class Fetch:
    """A ticket: read what is there of these keys, then call the engine's ``fetched``.

    ``what`` says to the reader how to look for them.
    """

    reads: Reads
    what: tuple[str, ...]
    keys: tuple[Any, ...]


class Reads:
    """Those who wait for one store."""

    __slots__ = ("_flying", "_queues", "stalled")

    def __init__(self) -> None:
        self._queues: dict[tuple[str, ...], deque[Read]] = {}
        self._flying: tuple[Fetch, list[Read]] | None = None
        self.stalled = False

    def ask(
        self,
        what: tuple[str, ...],
        key: Hashable,
        size: int,
        now: Now,
        then: Callable[[Any, str], None],
    ) -> None:
        """Have something read.

        Args:
            what: how to look for it.
            key: what to look for.
            size: about how many bytes there will be.
            now: the time.
            then: called with what was found, or None, and with why it could not be read, if it
                could not; at once if the store is stalled.
        """
        if self.stalled:
            then(None, STALLED)
            return
        queue = self._queues.get(what)
        if queue is None:
            queue = self._queues[what] = deque()
        queue.append(Read(key, size, now.monotonic + READ_SECONDS, then))

    @property
    def idle(self) -> bool:
        """Whether nobody waits."""
        return not self._queues and (self._flying is None or self.stalled)

    @property
    def has_fetch(self) -> bool:
        """Whether :meth:`next_fetch` would return a ticket."""
        return self._flying is None and bool(self._queues)

    def next_fetch(self) -> Fetch | None:
        """What is to be read next, if anybody waits and the last fetch is over."""
        if not self.has_fetch:
            return None
        what, queue = next(iter(self._queues.items()))
        # Whose turn it was goes to the end.
        del self._queues[what]
        taken: list[Read] = []
        size = 0
        while queue and len(taken) < FETCH_KEYS:
            size += queue[0].size
            if size > FETCH_BYTES and taken:
                break
            taken.append(queue.popleft())
        if queue:
            self._queues[what] = queue
        fetch = Fetch(self, what, tuple(dict.fromkeys(read.key for read in taken)))
        self._flying = fetch, taken
        return fetch

    def done(self, fetch: Fetch, found: Mapping[Any, object], why: str) -> None:
        """The reader is back: with what it found, or with why it found nothing."""
        assert self._flying is not None
        mine, taken = self._flying
        assert mine is fetch, "one fetch at a time"
        self._flying = None
        self.stalled = False
        for read in taken:
            read.end(None if why else found.get(read.key), why)

    def next_deadline(self) -> float:
        """When somebody will have waited too long."""
        # Nearly always; asked after every pass.
        if (not self._queues and self._flying is None) or self.stalled:
            return NEVER
        waiting = [queue[0].deadline for queue in self._queues.values()]
        if self._flying is not None:
            waiting.append(self._flying[1][0].deadline)
        return min(waiting, default=NEVER)

    def tick(self, now: Now) -> None:
        """Tell those who have waited too long, and then everybody, that the store is stalled."""
        if now.monotonic < self.next_deadline():
            return
        self.stalled = True
        waiting = [] if self._flying is None else [*self._flying[1]]
        for queue in self._queues.values():
            waiting += queue
        self._queues.clear()
        for read in waiting:
            read.end(None, STALLED)
