"""Where the results of jobs are kept, if not in the store of jobs: an interface for other programs.

By default results are records in the store of jobs, written in the very batch that forgets the job.
``--results URL`` names another place. The URL's scheme names an entry point in the group
``trigear.results``, which is called with the URL and returns a :class:`ResultStore`.

The server forgets a job only once ``put`` has returned for its result. So every job that has ended
has its result there, or runs again.
"""

from __future__ import annotations

import json
import math
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from trigear.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GROUP: Final = "trigear.results"

VERSION: Final = 1
"""Version of the layout of :func:`pack`."""

DONE: Final = "done"
"""The state of a job that was completed."""


class Result(NamedTuple):
    """What became of a job, with what its worker answered.

    ``state`` is the word for how it ended, ``done`` for a completed job. ``ended`` and ``expires``
    are in seconds since 1970; after ``expires`` nobody asks for it any more. ``data`` is what
    WORK_COMPLETE or WORK_EXCEPTION carried, empty for other ends, and None if it was larger than
    what may be kept.
    """

    tenant: str
    handle: bytes
    function: bytes
    unique: bytes
    state: str
    attempts: int
    ended: float
    expires: float
    data: bytes | None


class ResultStore(Protocol):
    """A place for results as the server uses it; called from one thread at a time, not always the
    same. No call may take for ever: set timeouts."""

    @property
    def name(self) -> str:
        """What to call it, and where it is, in one line for people; no passwords."""

    def open(self) -> None:
        """Get ready. A place that does not answer now is no reason to fail: ``put`` will tell.

        Raises:
            StoreUnusable: it can never work like this; the text says why and what to do.
        """

    def put(self, results: Sequence[Result]) -> None:
        """Keep these results until they expire, each under its (tenant, handle), in place of what
        is there; and have :meth:`find` find those that have a unique and are ``done``. Returns
        when they are as safe as the place can make them. Called again with the same results, and
        others, if it raises.

        Raises:
            StoreUnavailable: not all of them are kept.
        """

    def get(self, keys: Sequence[tuple[str, bytes]]) -> Sequence[Result]:
        """The results of these (tenant, handle), as far as there are any, in no order.

        Raises:
            StoreUnavailable: they cannot be read now.
        """

    def find(self, keys: Sequence[tuple[str, bytes, bytes]]) -> Sequence[Result]:
        """The newest ``done`` results of these (tenant, function, unique), as far as there are any,
        in no order.

        Raises:
            StoreUnavailable: they cannot be read now.
        """

    def delete(self, keys: Sequence[tuple[str, bytes]]) -> None:
        """Drop the results of these (tenant, handle); those that are not there do not matter.

        Raises:
            StoreUnavailable: not all of them are gone.
        """

    def close(self) -> None:
        """Let go of the place. Closing it again changes nothing."""


def result_store(url: str) -> ResultStore:
    """The store that a URL names, not yet opened.

    Raises:
        ConfigError: nothing that is installed knows such URLs, or it does not like this one.
    """
    scheme = urlsplit(url).scheme
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if scheme not in known:
        there = f"there is {', '.join(sorted(known))}" if known else "none is installed"
        raise ConfigError(
            "results",
            f"no package here keeps results at '{scheme}:' URLs; {there}",
            f"install one that has an entry point '{scheme}' in the group {GROUP}",
        )
    factory: Callable[[str], ResultStore] = known[scheme].load()
    return factory(url)


# One way to write a result down, for places that keep bytes under a name


def pack(result: Result) -> bytes:
    """A result as bytes, for :func:`unpack`."""
    return about(result).encode() + b"\n" + (result.data or b"")


def unpack(raw: bytes) -> Result:
    """What :func:`pack` made bytes of.

    Raises:
        ValueError: it was something else, or damaged since.
    """
    head, _, data = raw.partition(b"\n")
    return from_about(head.decode(), data)


def about(result: Result) -> str:
    """All of a result but its data, as JSON. Names are bytes: each stands for the character of its
    number."""
    size = None if result.data is None else len(result.data)
    fields = {
        "version": VERSION,
        "tenant": result.tenant,
        "handle": result.handle.decode("latin-1"),
        "function": result.function.decode("latin-1"),
        "unique": result.unique.decode("latin-1"),
        "state": result.state,
        "attempts": result.attempts,
        "ended": result.ended,
        "expires": result.expires,
        "size": size,
    }
    return json.dumps(fields, separators=(",", ":"))


def from_about(text: str, data: bytes) -> Result:
    """What :func:`about` made JSON of, with its data.

    Raises:
        ValueError: it makes no sense, or these are not its data.
    """
    fields = json.loads(text)
    try:
        version, size = fields["version"], fields["size"]
        if version != VERSION:
            raise ValueError(f"layout {version!r}, of which this version knows nothing")
        if size != (len(data) if size is not None else None):
            raise ValueError(f"{len(data)} bytes of data where {size} belong")
        found = Result(
            tenant=str(fields["tenant"]),
            handle=fields["handle"].encode("latin-1"),
            function=fields["function"].encode("latin-1"),
            unique=fields["unique"].encode("latin-1"),
            state=str(fields["state"]),
            attempts=int(fields["attempts"]),
            ended=float(fields["ended"]),
            expires=float(fields["expires"]),
            data=None if size is None else data,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no result: {error!r}") from error
    if not (math.isfinite(found.ended) and math.isfinite(found.expires)):
        raise ValueError(f"ended at {found.ended}, expires at {found.expires}")
    return found
