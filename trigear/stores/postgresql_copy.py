"""Jobs on their way into PostgreSQL: a COPY in the middle of a message.

psycopg copies rows as well, and does so wherever there are few. Here is what makes a durable job
cheaper, for most of what one costs is this:

* BEGIN, COPY and all that follows it up to COMMIT are one message, so that a batch takes two round
  trips; psycopg gives each COPY a message of its own, which makes four. The server goes through
  the message until COPY, takes the rows, and goes on when it is told that they have ended. What
  comes behind COPY is thus not done before :func:`ended` has sent something.
* rows are put together without a look at each value, at less than half the price.

Sources: PostgreSQL's documentation, "Message Flow", "COPY Operations" and "Simple Query"; COPY,
"Binary Format": a field is its length and its bytes, and numbers are in network order.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from psycopg.errors import OperationalError, error_from_result
from psycopg.pq import ExecStatus
from psycopg.waiting import Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult

    from trigear.stores.base import Keep

JOB_COLUMNS: Final = (
    "batch, term, partition, tenant, function, sequence, priority, due, submitted, losses, version,"
    " uniq, handle, reducer, workload"
)
"""In the order in which :func:`copied` writes them: what is the same in many rows, then numbers."""

CHUNK_BYTES: Final = 32 * 1024
"""About how long a chunk is, but for a workload that is larger: that is one of its own. The server
works on one chunk while the next is made."""

PIECE_BYTES: Final = 128 * 1024
"""How much libpq gets at a time. What it cannot send at once it keeps, in memory that it never
gives back, and moves to the front of that after each part that it has sent."""

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0"
_HEADER: Final = _SIGNATURE + bytes(8)
"""Neither flags nor an extension follow."""

_ABOUT: Final = 256
"""What a row counts beside its workload; a guess."""

_TRAILER: Final = struct.pack(">h", -1)

_COLUMNS: Final = 15
_lead: Final = struct.Struct(">h" + "iq" * 3).pack
_numbers: Final = struct.Struct(">" + "iq" * 2 + "id" * 2 + "iq" * 2 + "i").pack
_length: Final = struct.Struct(">i").pack


def copied(jobs: Iterable[Keep], batch: int, term: int) -> Iterator[bytes]:
    """What to send for these jobs, in chunks.

    Args:
        jobs: one or more.
        batch: the number that they are written with.
        term: the owner's.

    Raises:
        struct.error, UnicodeEncodeError, TypeError: a value is none that could be kept.
    """
    leads: dict[tuple[int, str, bytes], bytes] = {}
    parts: list[bytes] = [_HEADER]
    size = 0
    # fmt: off
    for (
        partition, sequence, tenant, function, unique, handle,
        priority, due, submitted, losses, reducer, workload, version,
    ) in jobs:
        lead = leads.get((partition, tenant, function))
        if lead is None:
            name = tenant.encode()
            lead = _lead(_COLUMNS, 8, batch, 8, term, 8, partition)
            lead += _length(len(name)) + name + _length(len(function)) + function
            leads[partition, tenant, function] = lead
        numbers = _numbers(
            8, sequence, 8, priority, 8, due, 8, submitted, 8, losses, 8, version, len(unique)
        )
        parts += (
            lead, numbers, unique, _length(len(handle)), handle,
            _length(len(reducer)), reducer, _length(len(workload)),
        )
        # fmt: on
        if len(workload) > CHUNK_BYTES:
            yield b"".join(parts)
            yield workload
            parts.clear()
            size = 0
            continue
        parts.append(workload)
        size += _ABOUT + len(workload)
        if size > CHUNK_BYTES:
            yield b"".join(parts)
            parts.clear()
            size = 0
    parts.append(_TRAILER)
    yield b"".join(parts)


def begun(pgconn: PGconn, statements: bytes, chunks: Iterable[bytes]) -> PQGen[None]:
    """Send a message that has one COPY FROM STDIN in it, and what is to be copied, but for the end.

    Raises:
        psycopg.Error: the session has ended, or a statement before COPY has failed: the server has
            done nothing of what comes behind it, and will not do so.
    """
    pgconn.send_query(statements)
    yield from _flushed(pgconn)
    while True:
        result = yield from _result(pgconn)
        assert result is not None, "there is a COPY in the message"
        if result.status == ExecStatus.COPY_IN:
            break
        if result.status == ExecStatus.FATAL_ERROR:
            yield from _results(pgconn)
            raise error_from_result(result)
    for chunk in chunks:
        for start in range(0, len(chunk), PIECE_BYTES):
            piece = memoryview(chunk)[start : start + PIECE_BYTES]
            if not pgconn.put_copy_data(piece):
                # Nothing is left to be sent, so that waiting would not help.
                raise OperationalError("no memory for what is to be sent")
            yield from _flushed(pgconn)


def ended(pgconn: PGconn, sent: Callable[[], None]) -> PQGen[list[PGresult]]:
    """Say that everything is copied; the results of COPY and of what comes behind it.

    Args:
        pgconn: after :func:`begun`.
        sent: called when that is said.

    Raises:
        psycopg.Error: a statement has failed, and the rest was not done; or the session has ended,
            and nobody knows what was done.
    """
    if not pgconn.put_copy_end():
        raise OperationalError("no memory for what is to be sent")
    yield from _flushed(pgconn)
    sent()
    results = yield from _results(pgconn)
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result)
    return results


def _flushed(pgconn: PGconn) -> PQGen[None]:
    while pgconn.flush():
        yield Wait.W


def _results(pgconn: PGconn) -> PQGen[list[PGresult]]:
    results = []
    while (result := (yield from _result(pgconn))) is not None:
        results.append(result)
    return results


def _result(pgconn: PGconn) -> PQGen[PGresult | None]:
    while pgconn.is_busy():
        while not (yield Wait.R):
            pass
        pgconn.consume_input()
    return pgconn.get_result()
