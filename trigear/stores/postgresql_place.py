"""Where a PostgreSQL database is and which of its tables are ours, as people write it.

What libpq knows of, it may be told: hosts, TLS, files with passwords. Two words in a URL are our
own, ``schema`` and ``table_prefix``. A password never leaves this module except towards libpq:
neither the name of a place nor an error about a URL shows one, and libpq's own words about a URL
that it cannot read are not repeated, because they quote it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from trigear.model import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "trigear_"
"""What our tables' names begin with unless somebody says otherwise."""

GEARMANDS_TABLE: Final = "queue"
"""The table that gearmand's PostgreSQL module uses if nobody names one."""

_OURS: Final = ("schema", "table_prefix")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}", re.ASCII)
_WORD: Final = re.compile(r"[a-z_]+", re.ASCII)

_FILES: Final = ("passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir")

_UNREADABLE: Final = (
    "it cannot be read; a special character in a name or password is written %XX in a URL, and"
    " 'quoted' elsewhere"
)

_DEFAULTS: Final = {
    "connect_timeout": ("5", "PGCONNECT_TIMEOUT"),
    # A machine or a network that is gone shows after about ten seconds.
    "keepalives_idle": ("5", ""),
    "keepalives_interval": ("2", ""),
    "keepalives_count": ("3", ""),
    "tcp_user_timeout": ("10000", ""),
    # Of several hosts the one that takes writes, after a failover as well.
    "target_session_attrs": ("read-write", "PGTARGETSESSIONATTRS"),
    "fallback_application_name": ("trigear", ""),
}
"""What holds if neither the place says otherwise nor an environment variable does."""


@dataclass(frozen=True, slots=True)
class Place:
    """A database, and the names of our tables in it.

    Args:
        parameters: libpq's; a password may be among them.
        schema: where the tables are; None for the first one of the role's search path.
        prefix: what their names begin with.
        gearmands: the table, possibly with its schema, in which gearmand would have its queue,
            and which must not have jobs; None if that is of no interest.
    """

    parameters: Mapping[str, str] = field(repr=False)
    schema: str | None = None
    prefix: str = PREFIX
    gearmands: str | None = None

    @property
    def name(self) -> str:
        """What to call it, in one line, without secrets."""
        given = self.parameters
        hosts = (given.get("host") or given.get("hostaddr") or "").split(",")
        ports = (given.get("port") or "").split(",")
        if len(ports) == 1:
            ports *= len(hosts)
        where = ",".join(
            f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=False)
        )
        user = f"{given['user']}@" if "user" in given else ""
        database = f"/{given['dbname']}" if "dbname" in given else ""
        service = f" service {given['service']}" if "service" in given else ""
        schema = f", schema {self.schema}" if self.schema else ""
        tables = f", tables {self.prefix}*" if self.prefix != PREFIX else ""
        text = f"postgresql{service} {user}{where}{database}".rstrip()
        return printable(f"{text}{schema}{tables}".encode(errors="backslashreplace"))

    @property
    def secret(self) -> bool:
        """Whether a password or the like is among the parameters."""
        return any(self.parameters.get(word) for word in _secret_words())

    def seen_from(self, folder: str) -> Place:
        """The same place for a process that is somewhere else: the files that are named with a
        relative path are in ``folder``."""
        files = {
            word: os.path.normpath(os.path.join(folder, self.parameters[word]))
            for word in _FILES
            # libpq's word for the certificates of the system.
            if self.parameters.get(word, "system") not in {"system", ""}
        }
        return replace(self, parameters={**self.parameters, **files})

    def connection_parameters(self) -> dict[str, str]:
        """Everything for libpq, what we add included."""
        given = {
            word: value
            for word, (value, variable) in _DEFAULTS.items()
            if not os.environ.get(variable)
        }
        return {**given, **self.parameters, "client_encoding": "utf8"}


def place_of_url(text: str) -> Place:
    """The place that a URL names: ``postgresql://USER@HOST:PORT/DATABASE?WORD=VALUE``.

    Raises:
        ValueError: it cannot be read; the text says why, and has no secrets in it.
    """
    head, mark, query = text.partition("?")
    _, _, authority = head.partition("://")
    before, at, behind = authority.partition("@")
    if "@" in behind or (at and "/" in before):
        # A password with @ or / in it, which libpq would take for names of hosts and databases.
        raise ValueError(_UNREADABLE)
    own: dict[str, str] = {}
    rest = []
    for piece in query.split("&") if mark else ():
        word, _, value = piece.partition("=")
        if word in _OURS:
            own[word] = _checked(word, unquote(value))
            continue
        if _WORD.fullmatch(word) and word not in _known_words() and "@" not in query:
            raise ValueError(f"'{word}' is nothing that PostgreSQL or trigear knows in a URL")
        rest.append(piece)
    url = f"{head}?{'&'.join(rest)}" if rest else head
    return Place(_parsed(url), own.get("schema"), own.get("table_prefix", PREFIX))


def place_of_conninfo(text: str, table: str) -> Place:
    """The place that gearmand's options name.

    Args:
        text: how to connect, as libpq reads it: ``host=... dbname=...`` or a URL.
        table: gearmand's table; ours are named after it.

    Raises:
        ValueError: one of them cannot be used; the text says why, and has no secrets in it.
    """
    gearmands = name_of_table(table)
    schema, _, name = gearmands.rpartition(".")
    return Place(_parsed(text), schema or None, f"{name}_", gearmands)


def name_of_table(text: str) -> str:
    """The name of a table, possibly with its schema, as PostgreSQL reads one that is not quoted.

    Raises:
        ValueError: it is none.
    """
    schema, dot, name = text.lower().rpartition(".")
    for part in (schema, name) if dot else (name,):
        if not _NAME.fullmatch(part):
            raise ValueError(f"'{text}' is no name for a table: letters, digits and _, at most 40")
    return text.lower()


def _checked(word: str, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{word} has to be letters, digits and _, at most 40, and no digit first")
    return value


def _parsed(text: str) -> dict[str, str]:
    try:
        found = conninfo_to_dict(text)
    except psycopg.Error:
        # Neither its words nor its context: both have the password in them if there is one.
        raise ValueError(_UNREADABLE) from None
    if any(not port.isdecimal() for port in str(found.get("port", "")).split(",") if port):
        # It would be shown, and may be the password of somebody who has left out the host.
        raise ValueError(_UNREADABLE)
    return {word: str(value) for word, value in found.items() if value is not None}


def _known_words() -> set[str]:
    # JDBC's word, which libpq understands in URLs.
    return {option.keyword.decode() for option in Conninfo.get_defaults()} | {"ssl"}


def _secret_words() -> set[str]:
    """Words whose values libpq itself wants hidden where they are typed."""
    return {
        option.keyword.decode() for option in Conninfo.get_defaults() if option.dispchar == b"*"
    }
