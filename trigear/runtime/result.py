"""What callers get to know of a job that may be over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from trigear.errors import LocalProtocolError
from trigear.model import public

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trigear.protocol import events

UNKNOWN: Final = "unknown"
SCHEDULED: Final = "scheduled"

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0


@public
@dataclass(frozen=True, slots=True)
class Result:
    """What a server knows of a job, with its result if that is kept.

    ``state`` is a word: `delayed`, `queued`, `running`; once it is over, `done`, or how else it
    ended, such as `failed`, `exception` or `cancelled`; `unknown` if the server knows nothing of
    it, `scheduled` if it is no job but a schedule. ``attempts`` counts how often it began.
    ``ended`` is None until it is over. ``data`` is what it completed with, or its exception; None
    where none is kept.
    """

    handle: bytes
    state: str
    attempts: int
    ended: datetime | None
    data: bytes | None

    @property
    def known(self) -> bool:
        """Whether the server knows anything of the job."""
        return self.state != UNKNOWN

    @property
    def done(self) -> bool:
        """Whether the job was completed."""
        return self.state == "done"

    @property
    def over(self) -> bool:
        """Whether the job has ended, in whichever way."""
        return self.ended is not None

    @property
    def settled(self) -> bool:
        """Whether waiting makes no sense: the job is over, or there is none."""
        return self.over or self.state in (UNKNOWN, SCHEDULED)


def result_in(event: events.ResultTold) -> Result:
    """What a server says of a job."""
    ended = datetime.fromtimestamp(event.ended, UTC) if event.ended else None
    return Result(event.handle, event.state, event.attempts, ended, event.data)


def keeps_none(server: object) -> LocalProtocolError:
    """The error for a server that cannot be asked."""
    return LocalProtocolError(
        f"{server} knows nothing of jobs that are over: it does not speak trigear's extended mode"
    )


def pauses() -> Iterator[float]:
    """How many seconds to wait before each further question, for who waits for an end."""
    pause = FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * 1.5, LONGEST_PAUSE)
