"""What a client was told of a foreground job, with Trio and without it."""

from __future__ import annotations

from trigear.errors import JobFailed, JobRaised
from trigear.protocol import events


class Told:
    """What was heard of one job so far.

    Args:
        keep: whether the data that it sends on the way are kept for its result.
    """

    __slots__ = ("_keep", "_parts", "end", "known_as")

    def __init__(self, *, keep: bool) -> None:
        self.known_as: bytes | None = None
        self.end: events.End | None = None
        self._keep = keep
        self._parts: list[bytes] = []

    @property
    def handle(self) -> bytes:
        """The job's name at the server."""
        assert self.known_as is not None, "a job is handed out with its handle"
        return self.known_as

    def hear(self, event: events.OfRequest) -> bool:
        """Take in an event, and say whether it was the last one."""
        match event:
            case events.Created():
                self.known_as = event.handle
            case events.Data():
                if self._keep:
                    self._parts.append(event.data)
            case events.Completed() | events.Failed() | events.Raised():
                self.end = event
                return True
            case _:
                pass
        return False

    def outcome(self) -> bytes | None:
        """All the data that were kept, and what the job completed with; None if it has not ended.

        Raises:
            JobFailed: it failed.
            JobRaised: it raised an exception.
        """
        match self.end:
            case events.Completed(data=data):
                return b"".join([*self._parts, data])
            case events.Failed():
                raise JobFailed(self.handle)
            case events.Raised(data=data):
                raise JobRaised(self.handle, data)
            case None:
                return None
