"""Where a connection stands between arriving and being somebody: the table of states of a login.

=========  =========================  ======================================================
state      what comes                 what follows
=========  =========================  ======================================================
UNAUTH     START, once SASL was       EXCHANGE
           asked for
UNAUTH     any other request          `AUTHENTICATION_REQUIRED`, CLOSING
EXCHANGE   RESPONSE                   another challenge, or AUTH, or a failure
EXCHANGE   ABORT                      `SASL_ABORTED`, the state before
EXCHANGE   anything else              `SASL_PROTOCOL_ERROR`, CLOSING
EXCHANGE   a failure                  the state before; after the third CLOSING
AUTH       START                      REAUTH; other requests are served as before
REAUTH     success, the same user     AUTH
REAUTH     success, somebody else     `AUTHENTICATION_FAILED`, CLOSING
AUTH       the end of its time        EXPIRED: only what is held may be finished
EXPIRED    START                      REAUTH, with the few requests that are left
EXPIRED    any other request          `AUTHENTICATION_EXPIRED`, CLOSING
=========  =========================  ======================================================

Nothing here knows a mechanism, a user or a byte of the wire: methods say what came, and answer
with a refusal or with None where all is well. Who asks has to heed ``closes``.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

ATTEMPTS: Final = 3
"""Logins that may fail on one connection."""


class Stage(enum.Enum):
    """Where a connection stands."""

    UNAUTH = "nobody yet"
    EXCHANGE = "logging in"
    AUTH = "logged in"
    REAUTH = "logging in again"
    EXPIRED = "logged in too long ago"
    CLOSING = "refused for good"


class Refusal(NamedTuple):
    """What the peer is told: code and text of an ERROR packet, and whether that is the end."""

    code: str
    text: str
    closes: bool = False


REQUIRED: Final = Refusal("AUTHENTICATION_REQUIRED", "Authentication required", True)
FAILED: Final = Refusal("AUTHENTICATION_FAILED", "Authentication failed")
TIMEOUT: Final = Refusal("AUTHENTICATION_TIMEOUT", "Authentication timed out", True)
EXPIRED: Final = Refusal("AUTHENTICATION_EXPIRED", "Session expired", True)
ABORTED: Final = Refusal("SASL_ABORTED", "Aborted")
UNEXPECTED: Final = Refusal("SASL_PROTOCOL_ERROR", "Unexpected SASL packet", True)
CROWDED: Final = Refusal("QUOTA_EXCEEDED", "Quota exceeded: max-connections", True)
DENIED: Final = Refusal("PERMISSION_DENIED", "Permission denied")


class Login:
    """The state of one connection's login."""

    __slots__ = ("_before", "_failures", "asked", "stage")

    def __init__(self) -> None:
        self.stage = Stage.UNAUTH
        self._before = Stage.UNAUTH
        self._failures = 0
        self.asked = False
        """Whether the peer asked for SASL, and so understands it."""

    @property
    def in_exchange(self) -> bool:
        """Whether a message of a mechanism is what comes next."""
        return self.stage in (Stage.EXCHANGE, Stage.REAUTH)

    @property
    def expired(self) -> bool:
        """Whether the time of the last login is over."""
        return self._before is Stage.EXPIRED

    def known(self) -> None:
        """The connection says by itself whose it is."""
        self.stage = self._before = Stage.AUTH

    def request(self, *, needs_login: bool = True) -> Refusal | None:
        """Something came that is no part of a login."""
        if self.stage is Stage.EXCHANGE:
            return self.close(UNEXPECTED)
        if self.stage is Stage.CLOSING:
            return REQUIRED
        if needs_login and self._before is Stage.UNAUTH:
            return self.close(REQUIRED)
        if needs_login and self._before is Stage.EXPIRED:
            return self.close(EXPIRED)
        return None

    def start(self) -> Refusal | None:
        """A login is to begin."""
        if self.stage is Stage.CLOSING:
            return REQUIRED
        if self.in_exchange or not self.asked:
            return self.close(UNEXPECTED)
        self.stage = Stage.EXCHANGE if self._before is Stage.UNAUTH else Stage.REAUTH
        return None

    def respond(self) -> Refusal | None:
        """A message of a mechanism came."""
        return None if self.in_exchange else self.close(UNEXPECTED)

    def abort(self) -> Refusal:
        """The peer gives the login up."""
        return self.failed(ABORTED) if self.in_exchange else self.close(UNEXPECTED)

    def failed(self, refusal: Refusal, *, counts: bool = True) -> Refusal:
        """The login came to nothing; the answer may be the end of the connection."""
        self.stage = self._before
        self._failures += counts
        if refusal.closes or self._failures >= ATTEMPTS:
            return self.close(refusal)
        return refusal

    def succeeded(self, *, same: bool) -> Refusal | None:
        """The login succeeded; ``same`` says whether the connection was this user's already."""
        if self.stage is Stage.REAUTH and not same:
            return self.close(FAILED)
        self.known()
        return None

    def expire(self) -> None:
        """The time of the login is over."""
        self._before = Stage.EXPIRED
        if self.stage is Stage.AUTH:
            self.stage = Stage.EXPIRED

    def close(self, refusal: Refusal) -> Refusal:
        """Nothing more is heard from this connection."""
        self.stage = self._before = Stage.CLOSING
        return refusal._replace(closes=True)
