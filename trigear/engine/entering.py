"""A connection on its way to be somebody's: what is said of a login, in packets and in text, and
what is refused before and around it.

Refusals. Whoever is not logged in is refused once, read no more, and closed after a second, because
programs that know nothing of logins would otherwise try again at once, thousands of times.
"""

from __future__ import annotations

import base64
import binascii
import logging
from typing import TYPE_CHECKING, Any, Final

from trigear.broker.peers import Peer
from trigear.engine.session import Session
from trigear.engine.views import NOBODY
from trigear.model import CloseReason, printable
from trigear.protocol import auth
from trigear.protocol.auth import Login, Refusal
from trigear.security import mechs
from trigear.wire.codec import response
from trigear.wire.commands import err
from trigear.wire.packets import ERROR, SASL_CHALLENGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from trigear.engine.doors import Arrival
    from trigear.engine.engine import Engine
    from trigear.engine.logins import Check, Logins
    from trigear.model import Now
    from trigear.security.mechs import Channel, Exchange, Outcome
    from trigear.security.policy import Identity

log: Final = logging.getLogger("trigear.engine")

MOST_BODY: Final = 8192
"""Bytes of a packet before a login."""

MOST_PACKETS: Final = 32
"""Packets and lines before a login."""

MOST_BYTES: Final = 65536
"""Bytes before a login."""


class EnteringSession(Session):
    """The engine's end of a connection whose peer has to log in, as far as that goes.

    Args:
        engine: the server.
        logins: how peers become known.
        number: see :class:`Session`.
        address: see :class:`Session`.
        channel: what is known of the connection without asking.
        arrival: how it came, and when.
    """

    __slots__ = (
        "_arrival",
        "_bytes",
        "_channel",
        "_check",
        "_decoding",
        "_exchange",
        "_in_text",
        "_login",
        "_logins",
        "_packets",
        "_timers",
        "_ways",
        "identity",
    )

    asked = True

    def __init__(
        self,
        engine: Engine,
        logins: Logins,
        number: int,
        address: str,
        channel: Channel,
        arrival: Arrival,
    ) -> None:
        super().__init__(engine, number, address)
        self._logins = logins
        self._arrival = arrival
        self._ways = arrival.door.ways
        self._channel = channel
        self._login = Login()
        self._exchange: Exchange | None = None
        self._check: Check | None = None
        self._in_text = False
        self._decoding = False
        self._packets = self._bytes = 0
        self._timers: list[list[Any]] = []
        self.identity: Identity | None = None
        """Whose connection it is; None before a login."""
        self.peer = Peer(engine.broker.tenant(NOBODY), self)
        self.decoder.max_packet = min(MOST_BODY, engine.config.max_packet)

    def receive(self, data: bytes, turn: int = 1 << 62) -> bool:
        if self.identity is None:
            self._bytes += len(data)
            if self._bytes > MOST_BYTES and not self.holding:
                self._refuse(self._login.close(auth.REQUIRED))
                return False
        self._decoding = True
        try:
            return super().receive(data, turn)
        finally:
            self._decoding = False

    def ended(self) -> None:
        self._arrival.over()
        self._stop()

    def _stop(self) -> None:
        """Nothing that was begun is gone on with."""
        self._forget_timers()
        self._exchange = None
        if self._check is not None:
            self._check.session = None
            self._check = None

    # Time

    def _after(self, seconds: float, call: Callable[[Now], None]) -> list[Any]:
        timer = self._logins.set(seconds, call, self._engine.now)
        self._timers.append(timer)
        return timer

    def _forget_timers(self) -> None:
        for timer in self._timers:
            self._logins.timers.cancel(timer)
        self._timers.clear()

    def _too_late(self, now: Now) -> None:
        self.note("auth.fail", reason="no login in time")
        self._stop()
        self._say(self._login.close(auth.TIMEOUT))
        self.close(CloseReason.LOGIN_LATE)

    # Refusals

    def _say(self, refusal: Refusal) -> None:
        """In the form in which the peer speaks."""
        if self._in_text:
            self.send(err(refusal.code, refusal.text))
        else:
            self.send(response(ERROR, refusal.code.encode(), refusal.text.encode()))

    def _refuse(self, refusal: Refusal) -> None:
        """Tell it at once; if that is the end, close later and hear nothing more until then."""
        if not refusal.closes:
            self._say(refusal)
            return
        log.warning("%r is refused: %s", self, refusal.code)
        if refusal.code != auth.CROWDED.code:
            self.note("auth.fail", reason=refusal.text)
        self._stop()
        if self._comes_back(refusal):
            self._refuse_late(refusal, 2)
            return
        self._say(refusal)
        self.hold()
        self._after(self._logins.delay(), self._close_late)

    def _comes_back(self, refusal: Refusal) -> bool:
        """Whether it is told again that it has to log in, which it will not. Some programs connect
        again as soon as they are told, whatever becomes of the connection."""
        if refusal != auth.REQUIRED or self._extended or self._in_text:
            return False
        return self._logins.turned_away.again(self.address, self._engine.now)

    def _close_late(self, now: Now) -> None:
        self.close(CloseReason.NOT_LOGGED_IN)

    def _refuse_late(self, refusal: Refusal, delays: int = 1) -> None:
        """Tell it after a while, and hear nothing more until then."""
        self.hold()
        self._after(delays * self._logins.delay(), lambda now: self._refuse_now(refusal))

    def _refuse_now(self, refusal: Refusal) -> None:
        self._say(refusal)
        if refusal.closes:
            self._stop()
            self.close(CloseReason.NOT_LOGGED_IN)
        else:
            self.go_on()

    def _goes(self, *, needs_login: bool = False) -> bool:
        """Whether something may be answered that is no part of a login; refuses it if not."""
        refusal = self._counted() or self._login.request(needs_login=needs_login)
        if refusal is not None:
            self._refuse(refusal)
        return refusal is None

    def _counted(self) -> Refusal | None:
        self._packets += self.identity is None
        return self._login.close(auth.REQUIRED) if self._packets > MOST_PACKETS else None

    # Packets

    def on_sasl_start(self, start: bytes) -> None:
        self._in_text = False
        name, nul, first = start.partition(b"\0")
        self._start(name, first if nul else None)

    def on_sasl_response(self, data: bytes) -> None:
        self._in_text = False
        self._respond(data)

    def on_sasl_abort(self) -> None:
        self._in_text = False
        self._abort()

    # A login

    def _start(self, name: bytes, first: bytes | None) -> None:
        refusal = self._counted() or self._login.start()
        if refusal is not None:
            self._refuse(refusal)
            return
        begun = self._logins.authenticator.begin(
            name.decode("ascii", "replace"), self._channel, self._engine.now
        )
        if isinstance(begun, mechs.Failed):
            self._heed(begun)
            return
        self._exchange = begun
        self._heed(mechs.Challenge(b"") if first is None else begun.step(first, self._engine.now))

    def _respond(self, data: bytes) -> None:
        refusal = self._counted() or self._login.respond()
        if refusal is not None:
            self._refuse(refusal)
            return
        assert self._exchange is not None
        self._heed(self._exchange.step(data, self._engine.now))

    def _abort(self) -> None:
        self._exchange = None
        self._refuse(self._counted() or self._login.abort())

    def _heed(self, outcome: Outcome) -> None:
        match outcome:
            case mechs.Challenge(data):
                if self._in_text:
                    self.send(b"+ %s\r\n" % base64.b64encode(data))
                else:
                    self.send(response(SASL_CHALLENGE, data))
            case mechs.Done():
                self._succeed(outcome)
            case mechs.Failed(refusal, reason):
                self._fail(Refusal(refusal.code, refusal.text, refusal.closes), reason)
            case _:
                self._check = self._logins.offer(self, outcome.work)
                if self._check is None:
                    later = mechs.Refusal.LATER
                    self._heed(mechs.Failed(later, "too many passwords wait to be checked"))
                else:
                    self.hold()

    def checked(self, result: int) -> None:
        """What came of the password that was handed out."""
        self._check = None
        assert self._exchange is not None
        self.go_on()
        self._heed(self._exchange.verified(result, self._engine.now))

    def _fail(self, refusal: Refusal, reason: str) -> None:
        name = "" if self._exchange is None else self._exchange.username
        self._exchange = None
        log.warning("%r: login of %s failed: %s", self, printable(name.encode()[:64]), reason)
        counts = refusal.code != mechs.Refusal.LATER.code
        known = self._logins.authenticator.users.get(name) is not None if name else None
        event = "auth.fail" if counts else "auth.throttled"
        self.note(event, authcid=name, known=known, reason=reason)
        self._refuse_late(self._login.failed(refusal, counts=counts))

    def _succeed(self, done: mechs.Done) -> None:
        """The login succeeded. What follows is for a subclass; without one, nothing does."""

    # Text

    def _on_auth(self, words: list[bytes]) -> None:
        if not words:
            if self._goes():
                names = self._logins.authenticator.offered(self._channel, self._engine.now)
                self.send(b"OK %s\r\n" % " ".join(names).encode())
            return
        first = None if len(words) == 1 else _decoded(b"" if words[1] == b"=" else words[1])
        if len(words) > 2 or (len(words) == 2 and first is None):
            self._refuse(self._login.close(auth.UNEXPECTED))
            return
        self._login.asked = True
        self._start(words[0], first)

    def _continue(self, line: bytes) -> None:
        if line == b"*":
            self._abort()
            return
        data = _decoded(line)
        if data is None:
            self._refuse(self._login.close(auth.UNEXPECTED))
        else:
            self._respond(data)


def _decoded(text: bytes) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
