"""Sessions with a PostgreSQL server: settings, patience, and what errors mean.

A session never waits for ever. The server is told to give up locks and statements; a network that
is gone shows by keepalives; and if the server's processes stand still while its machine goes on
to acknowledge what is sent, which nothing of that notices, the session is ended here after
``ANSWER_SECONDS`` in which nothing moved.
"""

from __future__ import annotations

import contextlib
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus

from trigear.errors import StoreError, StoreUnavailable, StoreUnusable
from trigear.stores.base import nothing
from trigear.stores.postgresql_copy import begun, ended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from psycopg.abc import RV, PQGen

    from trigear.stores.postgresql_place import Place

Done = TypeVar("Done")

ANSWER_SECONDS: Final = 10.0
"""How long a session may stand still while an answer is due."""

LOCK_SECONDS: Final = 3.0
"""How long the server waits for a lock that another session holds."""

OLDEST: Final = 130000
"""The first version of PostgreSQL that will do, as libpq writes it."""

_SETTINGS: Final = {
    "statement_timeout": "60s",
    # A server of ours that stands still between two messages of a batch holds up nobody for long.
    # In the middle of COPY there is nothing that would end its session.
    "idle_in_transaction_session_timeout": "10s",
    "default_transaction_isolation": "read committed",
    # Every statement has an index to use; statistics of a table that was empty a moment ago would
    # have it read as a whole.
    "enable_seqscan": "off",
    # What has to be read as a whole nevertheless then looks dear enough to be compiled, every time.
    "jit": "off",
    # If our machine is gone, the lock is to be free soon.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10s",
}

_STRONG: Final = ("on", "remote_apply")
"""Values of synchronous_commit with which COMMIT says no less than that it is on disks."""

_GOES_ON: Final = (
    TransactionStatus.IDLE,
    TransactionStatus.INTRANS,
    TransactionStatus.INERROR,
)


class Backend(NamedTuple):
    """A session as the server knows it."""

    pid: int
    started: datetime


class Link(psycopg.Connection[tuple[Any, ...]]):
    """A session. Every statement is a transaction of its own unless BEGIN says otherwise."""

    backend: Backend
    risks: Sequence[str] = ()
    """What is wrong with how the server keeps its files, for people."""

    _warned: str = ""

    def wait(self, gen: PQGen[RV], *rest: Any, **more: Any) -> RV:  # noqa: ANN401
        return super().wait(self._patient(gen), *rest, **more)

    def _patient(self, gen: PQGen[RV]) -> PQGen[RV]:
        """``gen``, which ends if nothing moves for too long."""
        try:
            wanted = next(gen)
            since = monotonic()
            while True:
                ready = yield wanted
                if ready:
                    since = monotonic()
                elif monotonic() - since > ANSWER_SECONDS:
                    # At once: who cleans up behind this error must not wait as long again.
                    self.close()
                    raise psycopg.OperationalError(f"no answer for {ANSWER_SECONDS:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            value: RV = end.value
            return value

    def goes_on(self, error: psycopg.Error) -> bool:
        """Whether the session has survived the error; else nobody knows what its last statement
        has done."""
        return (
            not self.closed
            and error.diag.severity_nonlocalized not in {"FATAL", "PANIC"}
            and self.info.transaction_status in _GOES_ON
        )

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query, transferred as they are and not as text."""
        with self.cursor(binary=True) as cursor:
            return cursor.execute(statement.encode(), values or None).fetchall()

    def run(self, *statements: str) -> None:
        """Do these statements, in one message."""
        self.execute("; ".join(statements).encode())

    def seize(self, key: int) -> bool:
        """Get the advisory lock for as long as the session lives, waiting for ``LOCK_SECONDS``;
        whether that has worked."""
        try:
            self.rows("SELECT pg_advisory_lock(%s)", (key,))
        except psycopg.errors.LockNotAvailable:
            return False
        return True

    def finish(self, *statements: str, sent: Callable[[], None] = nothing) -> int:
        """Do these statements and COMMIT in one message; how many rows the last of them changed.

        COMMIT can succeed with a warning: if somebody ends its wait for a standby, the transaction
        is on this server's disk alone. Then the session is ended, so that the outcome is as
        unknown as after any other loss.

        Args:
            statements: to do.
            sent: called when what is left is waiting.
        """
        self._warned = ""
        sent()
        with self.cursor() as cursor:
            cursor.execute("; ".join([*statements, "COMMIT"]).encode())
            counts = [0, cursor.rowcount]
            while cursor.nextset():
                counts.append(cursor.rowcount)
        self._mind_warnings()
        return counts[-2]

    def copy(self, statements: Sequence[str], chunks: Iterable[bytes]) -> None:
        """Do these statements and COMMIT in one message; one of them is COPY FROM STDIN, which
        gets ``chunks``. What comes behind it is done in :meth:`finish_copy`."""
        self._warned = ""
        message = "; ".join([*statements, "COMMIT"]).encode()
        self.wait(begun(self.pgconn, message, chunks))

    def finish_copy(self, *, sent: Callable[[], None] = nothing) -> int:
        """Let the rest of the message be done that :meth:`copy` has sent; otherwise as
        :meth:`finish`. The last result is that of COMMIT."""
        results = self.wait(ended(self.pgconn, sent))
        self._mind_warnings()
        return results[-2].command_tuples or 0

    def _mind_warnings(self) -> None:
        if self._warned:
            self.close()
            raise psycopg.OperationalError(self._warned)

    def heed(self, notice: psycopg.errors.Diagnostic) -> None:
        """Called with everything that the server says beside its answers: above all what triggers
        have to say, or that a database wants to be vacuumed."""
        about_commit = notice.source_function in {"SyncRepWaitForLSN", None}
        if about_commit and notice.severity_nonlocalized == "WARNING":
            self._warned = str(notice.message_primary)


def reach(place: Place) -> Link:
    """A new session with whatever kind of database is there.

    Raises:
        psycopg.Error: no session is to be had.
    """
    conninfo = make_conninfo(**place.connection_parameters())
    return Link.connect(conninfo, autocommit=True, prepare_threshold=None)


def connect(place: Place) -> Link:
    """A new session, set up.

    Raises:
        StoreUnusable: the database will not do; the text says why and what to do.
        psycopg.Error: no session is to be had.
    """
    link = reach(place)
    try:
        _set_up(link)
    except (StoreUnusable, psycopg.Error):
        link.close()
        raise
    return link


def _set_up(link: Link) -> None:
    if link.info.server_version < OLDEST:
        raise StoreUnusable(
            f"the database is PostgreSQL {link.info.parameter_status('server_version')}; version"
            f" {OLDEST // 10000} is the oldest that will do"
        )
    settings = {**_SETTINGS, "lock_timeout": f"{LOCK_SECONDS * 1000:.0f}ms"}
    link.rows(
        "SELECT set_config(name, value, false)"
        " FROM unnest(%s::text[], %s::text[]) AS s(name, value)",
        (list(settings), list(settings.values())),
    )
    ((pid, started, standby, encoding, fsync, pages, commit, source),) = link.rows(
        "SELECT pg_backend_pid(), backend_start, pg_is_in_recovery(),"
        " current_setting('server_encoding'), current_setting('fsync'),"
        " current_setting('full_page_writes'), setting, source"
        " FROM pg_stat_activity, pg_settings"
        " WHERE pid = pg_backend_pid() AND pg_settings.name = 'synchronous_commit'"
    )
    link.backend = Backend(pid, started)
    if pid != link.info.backend_pid:
        raise StoreUnusable(
            "there is a connection pooler in between, with which neither locks nor settings"
            " last; name the database itself"
        )
    if standby:
        raise StoreUnusable(
            "the database is a standby, which takes no writes; name the primary, or several hosts"
            " without target_session_attrs"
        )
    if encoding != "UTF8":
        raise StoreUnusable(
            f"the database has the encoding {encoding}; create one WITH ENCODING 'UTF8' TEMPLATE"
            " template0"
        )
    if source == "client":
        if commit == "off":
            raise StoreUnusable(
                "synchronous_commit=off was asked for, with which a job that was acknowledged can"
                " be lost; leave it out"
            )
    elif commit not in _STRONG:
        link.rows("SELECT set_config('synchronous_commit', 'on', false)")
    link.risks = [
        f"{name} is off"
        for name, value in (("fsync", fsync), ("full_page_writes", pages))
        if value == "off"
    ]
    link.add_notice_handler(link.heed)


class Keeper:
    """Holds a session that is used again and again, and gets a new one when it has ended.

    Args:
        new: makes one.
        name: of the store, for people.
    """

    def __init__(self, new: Callable[[], Link], name: str) -> None:
        self.ended: list[Backend] = []
        """Sessions that we have ended and that may live on in the server."""
        self._new = new
        self._name = name
        self._link: Link | None = None

    def hold(self, link: Link) -> None:
        """Use this session from now on."""
        self._link = link

    def renew(self) -> None:
        """End the session, and have a new one.

        Raises:
            StoreError: as the function says that makes them.
        """
        self.drop()
        self._link = self._new()

    def drop(self) -> None:
        """End the session if there is one."""
        link, self._link = self._link, None
        if link is not None:
            self.end(link)

    def end(self, link: Link) -> None:
        """End this session, and remember it."""
        self.ended.append(link.backend)
        link.close()

    def do(
        self, work: Callable[[Link], Done], failure: type[StoreError] = StoreUnavailable
    ) -> Done:
        """Do work that leaves nothing behind if it fails; once more in a new session if the one
        that there was has ended, say because the database was started anew.

        Raises:
            StoreError: of the kind ``failure`` if it failed in a session that goes on.
            StoreUnavailable: the new session has ended, too.
            StoreError: there is no new session, as the function says that makes them.
        """
        if self._link is not None:
            try:
                return self._done(work)
            except psycopg.Error as error:
                if self.survives(error):
                    raise failure(self.text(error)) from error
        self.renew()
        try:
            return self._done(work)
        except psycopg.Error as error:
            kind = failure if self.survives(error) else StoreUnavailable
            raise kind(self.text(error)) from error

    def _done(self, work: Callable[[Link], Done]) -> Done:
        assert self._link is not None
        try:
            return work(self._link)
        except psycopg.Error:
            raise
        except BaseException:
            # Nobody knows how far it has got: nothing of it must be there for what comes next.
            self.drop()
            raise

    def survives(self, error: psycopg.Error) -> bool:
        """Whether the session goes on after this error; its transaction is rolled back then. One
        that does not go on is dropped."""
        link = self._link
        if link is not None and link.goes_on(error):
            with contextlib.suppress(psycopg.Error):
                link.run("ROLLBACK")
                return True
        self.drop()
        return False

    def text(self, problem: Exception | str) -> str:
        """The problem, with the name of the store before it."""
        if isinstance(problem, psycopg.Error):
            problem = reason_of(problem)
        return f"store {self._name}: {problem}"


def reason_of(error: psycopg.Error) -> str:
    """What went wrong and what to do, for people. Nothing that jobs are made of is in it."""
    text = error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__
    if error.pgconn is not None and error.pgconn.needs_password:
        return f"{text}; put it into ~/.pgpass, or into a file named with passfile="
    match error.sqlstate:
        case "42501":
            return f"{text}; grant it to this role, or name another database or schema"
        case "55P03":
            return f"{text}: another program holds the tables; end that one"
        case _:
            return text
