"""The text commands about connections and the server itself: who is there, and what operators ask
for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trigear.engine.wishes import Wish
from trigear.wire.commands import OK, err, shown, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trigear.engine.engine import Engine
    from trigear.engine.session import Session


def sessions(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    """Every connection that is seen, whose it is and what it does."""
    view = session.view
    seen = engine.sessions() if view.whole else view.connections()
    return table(_row(engine, view.number(one), one) for one in seen)


def _row(engine: Engine, number: int, one: Session) -> Sequence[bytes | int]:
    about, peer = one.about(), one.peer
    left: bytes | int = b"-"
    if about.expires_at is not None:
        left = max(0, round(about.expires_at - engine.now.wall))
    return (
        number,
        about.principal.encode() or b"-",
        peer.tenant.name.encode() or b"-",
        about.method.encode() or b"-",
        one.address.encode(),
        about.tls.encode() or b"-",
        int(engine.now.monotonic - one.since),
        left,
        len(peer.abilities),
        len(peer.jobs),
        len(peer.waiting),
        shown(one.name),
    )


def end(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    """End one of them."""
    number = int(args[0][:18]) if args[0].isdigit() else -1
    other = session.view.connection(number)
    if other is None:
        return err("UNKNOWN_SESSION", "No such session")
    other.dismiss()
    return OK


def tenant(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    """Have an operator act for a tenant from here on."""
    refusal = session.act_for(args[0].decode("utf-8", "replace") if args else None)
    return OK if refusal is None else err(*refusal)


def shutdown(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    """Have the server stop, at once or once what runs is done."""
    if not args:
        engine.wishes.append(Wish.STOP)
    elif args[0].lower() == b"graceful":
        engine.wishes.append(Wish.DRAIN)
    else:
        return err("INVALID_ARGUMENT", "write shutdown or shutdown graceful")
    return OK


def drain(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    """Have the server stop once what runs is done."""
    engine.wishes.append(Wish.DRAIN)
    return OK


def reload(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    """Have the server read its files anew."""
    engine.wishes.append(Wish.RELOAD)
    return OK
