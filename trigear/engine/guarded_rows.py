"""The rows of the packet table that are in force for somebody: before a login, after it, and once
it has run out."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final

from trigear.security.policy import EVERY, Identity, Matcher, Rights
from trigear.wire.codec import Handler, Row, rows_for
from trigear.wire.packets import EXTENSIONS, LOGINS, PACKETS, Packet

if TYPE_CHECKING:
    from trigear.engine.guarded import GuardedSession
    from trigear.security.policy import Role

_ALWAYS: Final = ("ECHO_REQ", "OPTION_REQ", *(row.name for row in LOGINS.values() if row.asked_by))

_FINISHING: Final = ("HEARTBEAT", "JOB_RELEASE")
"""Beside WORK packets, what is said of a job that is held."""


def _handlers(cls: type[GuardedSession], names: frozenset[str]) -> dict[int, Handler]:
    return {
        row.number: getattr(cls, "on_" + row.name.lower())
        for row in (*PACKETS.values(), *EXTENSIONS.values(), *LOGINS.values())
        if row.name in names
    }


def open_rows(cls: type[GuardedSession]) -> tuple[Row, ...]:
    """Before a login."""
    return rows_for(_handlers(cls, frozenset(_ALWAYS)))


@cache
def expired_rows(cls: type[GuardedSession], extended: bool) -> tuple[Row, ...]:
    """After a login has run out: what is held may be finished."""
    names = [row.name for row in PACKETS.values() if row.asked_by and row.name.startswith("WORK_")]
    return rows_for(
        _handlers(cls, frozenset([*_ALWAYS, *names, *(_FINISHING if extended else ())]))
    )


@lru_cache(maxsize=1024)
def rows_of(
    cls: type[GuardedSession],
    roles: frozenset[Role],
    submit: Matcher,
    work: Matcher,
    extended: bool,
) -> tuple[Row, ...]:
    """For users with these roles and globs."""
    rights = Rights(Identity("", "", roles, "", submit, work))
    handlers: dict[int, Handler] = {}
    for packet in (*PACKETS.values(), *(EXTENSIONS.values() if extended else ())):
        handler = getattr(cls, "on_" + packet.name.lower(), None)
        if packet.asked_by and packet.served and handler is not None:
            matcher = rights.packets.get(packet.number)
            handlers[packet.number] = _guard(packet, handler, matcher)
    return rows_for(handlers | _handlers(cls, frozenset(_ALWAYS)))


def _guard(packet: Packet, handler: Handler, matcher: Matcher | None) -> Handler:
    """The handler, for those for whom the matcher stands; None is for those who may not at all."""
    if matcher == EVERY:
        return handler
    if matcher is None:
        return lambda session, *args: session.denied(packet)
    reducer = packet.args.index("reducer") if "reducer" in packet.args else 0

    def guarded(session: GuardedSession, *args: bytes) -> None:
        if matcher(args[0]) and matcher(args[reducer]):
            handler(session, *args)
        else:
            session.denied(packet)

    return guarded
