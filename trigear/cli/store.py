"""Which store a command line asks for, and where its file or database is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

import click
from click.core import ParameterSource

from trigear.cli.report import Failure, Status

if TYPE_CHECKING:
    from trigear.cli.process import Identity
    from trigear.stores.base import Store
    from trigear.stores.postgresql_place import Place

MEMORY: Final = "memory"
SQLITE: Final = "sqlite"
SQLITE_URL: Final = "sqlite://"
POSTGRESQL_URLS: Final = ("postgresql://", "postgres://")
POSTGRESQL_FORM: Final = "postgresql://USER@HOST/DATABASE"
FILE: Final = "jobs.sqlite3"
"""The database's name in the state directory."""

NO_PSYCOPG: Final = "PostgreSQL needs psycopg, which is not here: pip install 'trigear[postgresql]'"

READABLE: Final = (
    "a password on the command line can be read by everybody on this machine; put it into"
    " ~/.pgpass, or into a file that the URL names with ?passfile="
)

SYSTEM_FOLDER: Final = "/var/lib/trigear"


@dataclass(frozen=True, slots=True)
class StorePlan:
    """Where background jobs are kept: in the file ``path``, in the PostgreSQL database at
    ``place``, or in memory if there is neither.

    ``folder`` is the state directory if the file is in it: that is made, other folders are not.
    """

    path: str | None = None
    folder: str | None = None
    place: Place | None = None

    def __str__(self) -> str:
        if self.place is not None:
            return self.place.name
        if self.path is None:
            return "memory (queued jobs do not survive a stop)"
        return f"sqlite {self.path}"

    def check(self) -> None:
        """See whether file or database could be written, and change nothing.

        Raises:
            Failure: the file could not.
            StoreUnusable: the database could not.
        """
        if self.place is not None:
            from trigear.stores.postgresql import PostgresqlStore

            PostgresqlStore(self.place).check()
        place = self.path
        while place is not None:
            if os.path.exists(place):
                self._refuse_unwritable(place)
                return
            if place != self.path and self.folder is None:
                raise self._failure(place, "no such directory", Status.NO)
            place = os.path.dirname(place)

    def _refuse_unwritable(self, place: str) -> None:
        if place != self.path and not os.path.isdir(place):
            raise self._failure(place, "not a directory", Status.NO)
        if not os.access(place, os.W_OK | (os.X_OK if os.path.isdir(place) else 0)):
            raise self._failure(place, "this user may not write there", Status.NOT_ALLOWED)

    def prepare(self, user: Identity | None) -> None:
        """Make the state directory if it is needed and not there; whoever is to use it gets it.
        Load the modules that will be needed, while they can be read.

        Raises:
            Failure: that does not work.
        """
        if self.place is not None:
            import trigear.stores.postgresql  # noqa: F401
        if self.folder is None:
            return
        try:
            os.makedirs(os.path.dirname(self.folder), exist_ok=True)
            try:
                os.mkdir(self.folder, 0o700)
            except FileExistsError:
                if not os.path.isdir(self.folder):
                    raise
            else:
                if user is not None:
                    os.chown(self.folder, user.uid, user.gid)
        except OSError as error:
            status = Status.NOT_ALLOWED if isinstance(error, PermissionError) else Status.NO
            raise self._failure(self.folder, str(error.strerror).lower(), status) from error

    def _failure(self, place: str, problem: str, status: int) -> Failure:
        remedy = (
            "name another file" if self.folder is None else "name another place with --state-dir"
        )
        return Failure(f"store: {place}: {problem}; {remedy}", status)

    def build(self) -> Store | None:
        """The store, not yet opened; None for memory."""
        if self.place is not None:
            from trigear.stores.postgresql import PostgresqlStore

            return PostgresqlStore(self.place)
        if self.path is None:
            return None
        from trigear.stores.sqlite import SqliteStore

        return SqliteStore(self.path)


def parse_store(value: object) -> str:
    """`memory`, `sqlite`, `sqlite:///PATH` or `postgresql://…`, as they are.

    Raises:
        ValueError: it is none of these. No password is in its text.
    """
    text = str(value)
    if text in {MEMORY, SQLITE}:
        return text
    if text.startswith(SQLITE_URL):
        path = unquote(text.removeprefix(SQLITE_URL))
        if not path.startswith("/") or path.endswith("/") or "\0" in path:
            raise ValueError(f"'{text}' names no file: write {SQLITE_URL}/path/to/{FILE}")
        return text
    if text.startswith(POSTGRESQL_URLS):
        place_at(text)
        return text
    known = f"write {SQLITE}, {SQLITE_URL}/path/to/{FILE}, {POSTGRESQL_FORM} or {MEMORY}"
    if "://" not in text and ("/" in text or text.endswith((".db", ".sqlite", ".sqlite3"))):
        path = os.path.abspath(text.removeprefix("sqlite:").removeprefix("file:"))
        known = f"did you mean {SQLITE_URL}{quote(path)}?"
    # A mistyped URL may have a password in it.
    shown = "what was named" if "://" in text and "@" in text else f"'{text}'"
    raise ValueError(f"{shown} is no store of this version: {known}")


def place_at(url: str) -> Place:
    """Where this URL of PostgreSQL leads.

    Raises:
        ValueError: nowhere, or the extra for PostgreSQL is not installed.
    """
    try:
        from trigear.stores.postgresql_place import place_of_url
    except ImportError as error:
        raise ValueError(NO_PSYCOPG) from error
    try:
        return place_of_url(url)
    except ValueError as error:
        raise ValueError(f"the URL of PostgreSQL: {error}; write {POSTGRESQL_FORM}") from error


def refuse_shown_secret(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Whoever is on the same machine can read command lines."""
    shown = ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
    if shown and value.startswith(POSTGRESQL_URLS) and place_at(value).secret:
        elsewhere = "or the URL into trigear.toml or TRIGEAR_SERVER_STORE"
        raise click.BadParameter(f"{READABLE}, {elsewhere}", ctx, param)
    return value


def store_plan(store: str, state_dir: str | None, folder: str) -> StorePlan:
    """What `--store` and `--state-dir` ask for; relative paths begin in ``folder``."""
    if store == MEMORY:
        return StorePlan()
    if store.startswith(POSTGRESQL_URLS):
        return StorePlan(place=place_at(store).seen_from(folder))
    if store != SQLITE:
        path = unquote(store.removeprefix(SQLITE_URL))
        return StorePlan("/" + os.path.normpath(path).lstrip("/"))
    state = os.path.normpath(os.path.join(folder, state_dir or usual_folder()))
    return StorePlan(os.path.join(state, FILE), state)


def usual_folder() -> str:
    """The state directory if nobody names one."""
    # systemd gives a list if the service has several.
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return given
    home = os.environ.get("XDG_STATE_HOME")
    if not home:
        if os.geteuid() == 0:
            return SYSTEM_FOLDER
        home = os.path.expanduser("~/.local/state")
    return os.path.join(home, "trigear")
