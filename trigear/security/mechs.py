"""The server's side of the SASL mechanisms: EXTERNAL, SCRAM, PLAIN.

An :class:`Authenticator` says what is offered on a channel and begins exchanges. An exchange takes
what the client sends, one :meth:`~Exchange.step` at a time, and answers with an outcome: another
challenge, done, failed, or work that is too heavy to be done here. That work is a function without
arguments, to be called anywhere; its result goes into :meth:`~Exchange.verified`.

Whatever goes wrong with a name or a password looks the same from outside. What it was stands in
:attr:`Failed.reason`, which is for the log of the server and for nobody else.
"""

from __future__ import annotations

import enum
import hmac
from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from trigear.errors import ConfigError
from trigear.security.scram import (
    HASHES,
    MESSAGE_LIMIT,
    NONCE_BYTES,
    SHA_256,
    SHA_512,
    Hash,
    ScramError,
    ScramServer,
    matching,
    nonce,
    prepare,
)
from trigear.security.users import PLAIN
from trigear.security.x509id import identify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trigear.model import Now
    from trigear.security.policy import Identity
    from trigear.security.scram import Verifier
    from trigear.security.throttle import Throttle
    from trigear.security.users import Credentials, User, Users

EXTERNAL: Final = "EXTERNAL"
PLUS: Final = "-PLUS"

EXTERNAL_LIMIT: Final = 255
"""Bytes of a message of EXTERNAL, which is a name."""

PLAIN_LIMIT: Final = 2048
"""Bytes of a message of PLAIN: two names and a password."""

CACHED: Final = 10_000
"""Successes of PLAIN that are remembered."""

CACHED_FOR: Final = 3600.0
"""Seconds for which they are."""

_CACHE_KEY_BYTES: Final = 32


class ScramWithoutTLS(enum.Enum):
    """Where SCRAM is offered on connections that are neither TLS nor a Unix socket. It keeps the
    password secret there, and nothing else: whoever stands in the way owns what comes after."""

    NEVER = "never"
    LOOPBACK = "loopback"
    ALWAYS = "always"


class ChannelBinding(enum.Enum):
    """Whether passwords are bound to the TLS connection they come over.

    OFF is for a server behind something else that ends TLS, whose certificate clients would bind
    to. REQUIRED leaves clients out that cannot bind, on TLS; elsewhere there is nothing to bind to.
    """

    AUTO = "auto"
    OFF = "off"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class LoginSettings:
    """How a listener lets people log in.

    Args:
        hashes: of SCRAM, `sha256` and `sha512`; the latter is offered once everybody has it.
        without_tls: where SCRAM is offered without TLS.
        binding: whether logins are bound to their channel.
        lifetime: seconds after which one has to log in again; 0: never.
        client_usage: whether a client certificate must say that it is for clients.
    """

    hashes: tuple[str, ...] = (SHA_256.algorithm,)
    without_tls: ScramWithoutTLS = ScramWithoutTLS.LOOPBACK
    binding: ChannelBinding = ChannelBinding.AUTO
    lifetime: float = 0.0
    client_usage: bool = False

    def __post_init__(self) -> None:
        known = [hash.algorithm for hash in HASHES.values()]
        for name in self.hashes or ("",):
            if name not in known:
                raise ConfigError(
                    "scram_hashes", f"{name!r} is no hash of SCRAM", f"write {' or '.join(known)}"
                )
        if self.lifetime < 0:
            raise ConfigError(
                "session_lifetime", f"{self.lifetime} s is negative", "use 0 for none"
            )
        if self.binding is ChannelBinding.REQUIRED and self.without_tls is ScramWithoutTLS.ALWAYS:
            raise ConfigError(
                "channel_binding",
                "it is required, and scram_without_tls is always: without TLS nothing can be bound",
                "take one of them back",
            )


@dataclass(frozen=True, slots=True)
class Channel:
    """What is known of a connection without asking its peer.

    Args:
        address: of the peer, as text; what is no IP address is a Unix socket.
        tls: whether it is TLS, here and not in a proxy before us.
        unix: whether it is a Unix socket.
        loopback: whether the peer is on this machine.
        bindings: binding data by type, see :func:`trigear.security.tls.bindings`.
        certificate: the client's certificate (DER), if OpenSSL has verified one.
        uid: of the peer, on a Unix socket.
        version: of TLS, as it is called.
        cipher: of TLS, as OpenSSL calls it.
        listener: the address that the peer has connected to, as text.
    """

    address: str = "-"
    tls: bool = False
    unix: bool = False
    loopback: bool = False
    bindings: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    uid: int | None = None
    version: str = ""
    cipher: str = ""
    listener: str = ""


class Refusal(enum.Enum):
    """What a client is told about a failure: code and text of an ERROR packet, always the same, and
    whether the connection ends with it."""

    FAILED = ("AUTHENTICATION_FAILED", "Authentication failed", False)
    LATER = ("AUTHENTICATION_TEMPORARY_FAILURE", "Try again later", False)
    UNAVAILABLE = ("SASL_MECHANISM_UNAVAILABLE", "Mechanism not available", False)
    TOO_LARGE = ("SASL_PROTOCOL_ERROR", "Message too large", True)

    def __init__(self, code: str, text: str, closes: bool) -> None:
        self.code = code
        self.text = text
        self.closes = closes


@dataclass(frozen=True, slots=True)
class Challenge:
    """The client has to say more. ``data`` goes to it."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Done:
    """The client is who it says. ``data`` goes to it along with that; ``remark`` is for the log."""

    identity: Identity
    data: bytes = field(default=b"", repr=False)
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The exchange is over. ``reason`` is for the log only."""

    refusal: Refusal
    reason: str


@dataclass(frozen=True, slots=True)
class Verify:
    """``work()`` is to be called where it holds nobody up, and what it returns to be given to
    :meth:`Exchange.verified`. Meanwhile nothing else of this connection is looked at."""

    work: Callable[[], int] = field(repr=False)


Outcome = Challenge | Done | Failed | Verify


class Authenticator:
    """Begins exchanges for connections of a listener.

    Args:
        users: who there is; a reload puts others into :attr:`users`.
        settings: how they may log in.
        throttle: who has to wait.
        secret: from which verifiers of users are invented who do not exist.
        random: a source of random bytes.
    """

    def __init__(
        self,
        users: Users,
        settings: LoginSettings,
        throttle: Throttle,
        secret: bytes,
        random: Callable[[int], bytes],
    ) -> None:
        self.users = users
        self.settings = settings
        self.throttle = throttle
        self.secret = secret
        self.random = random
        self.successes = _Successes(random(_CACHE_KEY_BYTES))

    def offered(self, channel: Channel, now: Now) -> tuple[str, ...]:
        """The mechanisms that may be used on a channel, best first."""
        names = [EXTERNAL] if self._external(channel, now)[0] is not None else []
        binding = self.settings.binding
        hashes = self._hashes()
        if self.binding_types(channel):
            names += [hash.mechanism + PLUS for hash in hashes]
        unbound = not channel.tls or binding is not ChannelBinding.REQUIRED
        if unbound and self._hides_passwords(channel):
            names += [hash.mechanism for hash in hashes]
        if unbound and (channel.tls or channel.unix):
            names.append(PLAIN)
        return tuple(names)

    def binding_types(self, channel: Channel) -> tuple[str, ...]:
        """The types by which a login can be bound to a channel."""
        if self.settings.binding is ChannelBinding.OFF or not channel.tls:
            return ()
        return tuple(sorted(channel.bindings))

    def begin(self, mechanism: str, channel: Channel, now: Now) -> Exchange | Failed:
        """An exchange by a mechanism; failed if it is not offered on this channel."""
        offered = self.offered(channel, now)
        if mechanism not in offered:
            return Failed(Refusal.UNAVAILABLE, "the mechanism is not offered here")
        if mechanism == EXTERNAL:
            return _External(self, mechanism, channel)
        if mechanism == PLAIN:
            return _Plain(self, mechanism, channel)
        return _Scram(self, mechanism, channel, mechanism + PLUS in offered)

    def by_certificate(self, channel: Channel, now: Now) -> Identity | None:
        """Who somebody is without saying so, on a listener of the kind `mtls`."""
        if channel.certificate is None:
            return None
        user, expires, _ = self._external(channel, now)
        return None if user is None else user.identity("mtls", expires)

    def by_uid(self, channel: Channel, now: Now) -> Identity | None:
        """Who somebody is without saying so, on a listener of the kind `peer`."""
        user = None if channel.uid is None else self.users.of_uid(channel.uid, now.wall)
        return None if user is None else user.identity("peer")

    def by_channel(self, channel: Channel, now: Now) -> User | None:
        """Whom a channel itself proves somebody to be, whatever the listener."""
        return self._external(channel, now)[0]

    def _external(self, channel: Channel, now: Now) -> tuple[User | None, float | None, str]:
        """Whom a channel itself proves somebody to be, until when, and how that is known."""
        if channel.certificate is not None:
            match = identify(
                channel.certificate,
                self.users,
                now.wall,
                client_usage=self.settings.client_usage,
            )
            expires = None if match.certificate is None else match.certificate.not_after
            return match.user, expires, match.how
        if channel.uid is not None:
            return self.users.of_uid(channel.uid, now.wall), None, f"uid {channel.uid}"
        return None, None, "nothing about the channel says who it is"

    def _hashes(self) -> list[Hash]:
        # The client takes the strongest that it is offered: one that some users lack shuts those
        # out.
        return [
            hash
            for hash in (SHA_512, SHA_256)
            if hash.algorithm in self.settings.hashes
            and (hash is SHA_256 or self.users.covers(hash))
        ]

    def _hides_passwords(self, channel: Channel) -> bool:
        without_tls = self.settings.without_tls
        return (
            channel.tls
            or channel.unix
            or without_tls is ScramWithoutTLS.ALWAYS
            or (without_tls is ScramWithoutTLS.LOOPBACK and channel.loopback)
        )


class Exchange(ABC):
    """One attempt to log in. It ends with the first outcome that is neither a challenge nor work.

    ``username`` is what the client calls itself, as far as it has said so; for logs.
    """

    limit = MESSAGE_LIMIT

    def __init__(self, authenticator: Authenticator, mechanism: str, channel: Channel) -> None:
        self.mechanism = mechanism
        self.username = ""
        self._authenticator = authenticator
        self._channel = channel
        self._over = False

    def step(self, data: bytes, now: Now) -> Outcome:
        """What comes of the client's next message."""
        if self._over:
            return Failed(Refusal.FAILED, "a message after the end of the exchange")
        if len(data) > self.limit:
            return self._fail(f"more than {self.limit} bytes", now, Refusal.TOO_LARGE)
        try:
            return self._step(data, now)
        except (ScramError, _Malformed) as error:
            return self._fail(str(error), now)
        except _TooSoon as error:
            self._over = True
            return Failed(Refusal.LATER, str(error))

    def verified(self, result: int, now: Now) -> Outcome:
        """What comes of the result of the work that was handed out last."""
        return self._fail("no work was handed out", now)

    @abstractmethod
    def _step(self, data: bytes, now: Now) -> Outcome: ...

    def _fail(self, reason: str, now: Now, refusal: Refusal = Refusal.FAILED) -> Failed:
        self._over = True
        self._authenticator.throttle.failed(self._channel.address, self.username, now.monotonic)
        return Failed(refusal, reason)

    def _not_too_soon(self, now: Now) -> None:
        wait = self._authenticator.throttle.wait(
            self._channel.address, self.username, now.monotonic
        )
        if wait > 0:
            raise _TooSoon(f"throttled for {wait:.0f} s more")

    def _succeed(
        self,
        user: User,
        authzid: str,
        now: Now,
        expires: float | None = None,
        data: bytes = b"",
        remark: str = "",
    ) -> Outcome:
        """The client is ``user``; see whom it may be called now."""
        authenticator = self._authenticator
        acting = authenticator.users.acting_as(user, authzid, now.wall)
        if acting is None:
            return self._fail(f"{user.name} may not act as whom it asks for", now)
        self._over = True
        authenticator.throttle.succeeded(self._channel.address, self.username)
        lifetime = authenticator.settings.lifetime
        ends = [] if expires is None else [expires]
        if lifetime:
            ends.append(now.wall + lifetime)
        if acting is not user and user.not_after is not None:
            ends.append(user.not_after)
        identity = acting.identity(
            self.mechanism, min(ends, default=None), "" if acting is user else user.name
        )
        return Done(identity, data, remark)

    def _still_good(self, kind: str, credentials: Credentials, now: Now) -> User | None:
        """The user of these credentials, if they are still those of the users there are now."""
        known = self._authenticator.users.credentials(
            self.username, kind, now.wall, self._authenticator.secret
        )
        return known.user if known.verifiers == credentials.verifiers else None


class _TooSoon(Exception):
    """The throttle says that this must wait."""


class _Malformed(Exception):
    """A message has not the form that its mechanism gives it."""


class _External(Exchange):
    """RFC 4422, appendix A: the channel has said it all, but as whom to act."""

    limit = EXTERNAL_LIMIT

    def _step(self, data: bytes, now: Now) -> Outcome:
        user, expires, how = self._authenticator._external(self._channel, now)
        if user is None:
            return self._fail(how, now)
        self.username = user.name
        return self._succeed(user, _text(data), now, expires, remark=how)


class _Scram(Exchange):
    def __init__(
        self,
        authenticator: Authenticator,
        mechanism: str,
        channel: Channel,
        plus_offered: bool,
    ) -> None:
        super().__init__(authenticator, mechanism, channel)
        plus = mechanism.endswith(PLUS)
        self._kind = mechanism.removesuffix(PLUS)
        self._credentials: Credentials | None = None
        self._now: Now
        self._core = ScramServer(
            HASHES[self._kind],
            self._look_up,
            nonce(authenticator.random(NONCE_BYTES)),
            plus=plus,
            bindings=channel.bindings,
            plus_offered=plus or plus_offered,
        )

    def _step(self, data: bytes, now: Now) -> Outcome:
        self._now = now
        if self._credentials is None:
            return Challenge(self._core.first(data))
        # Again: of many exchanges that began together each is a guess.
        self._not_too_soon(now)
        proof = self._core.final(data)
        user = self._still_good(self._kind, self._credentials, now)
        if user is None:
            return self._fail("the user changed during the exchange", now)
        return self._succeed(
            user, self._core.authzid, now, data=proof, remark=_which(self._core.matched)
        )

    def _look_up(self, name: str) -> Sequence[Verifier]:
        self.username = name
        self._not_too_soon(self._now)
        authenticator = self._authenticator
        self._credentials = authenticator.users.credentials(
            name, self._kind, self._now.wall, authenticator.secret
        )
        return self._credentials.verifiers


class _Plain(Exchange):
    """RFC 4616. The password comes as it is, so it is this side that has to stretch it."""

    limit = PLAIN_LIMIT

    def __init__(self, authenticator: Authenticator, mechanism: str, channel: Channel) -> None:
        super().__init__(authenticator, mechanism, channel)
        self._authzid = ""
        self._password = b""
        self._credentials: Credentials | None = None

    def _step(self, data: bytes, now: Now) -> Outcome:
        fields = data.split(b"\0")
        if len(fields) != 3:
            raise _Malformed("not three fields")
        self._authzid, self.username = _text(fields[0]), _text(fields[1])
        self._password = prepare(fields[2])
        self._not_too_soon(now)
        authenticator = self._authenticator
        self._credentials = credentials = authenticator.users.credentials(
            self.username, PLAIN, now.wall, authenticator.secret
        )
        known = authenticator.successes.look_up(
            self.username, credentials.verifiers, self._password, now.monotonic
        )
        if known >= 0:
            return self._conclude(known, now)
        return Verify(partial(matching, credentials.verifiers, self._password))

    def verified(self, result: int, now: Now) -> Outcome:
        return self._conclude(result, now)

    def _conclude(self, matched: int, now: Now) -> Outcome:
        credentials, password = self._credentials, self._password
        self._password = b""
        assert credentials is not None
        if matched < 0:
            return self._fail("no such user, or another password", now)
        user = self._still_good(PLAIN, credentials, now)
        if user is None:
            return self._fail("the user changed during the exchange", now)
        self._authenticator.successes.add(
            self.username, credentials.verifiers[matched], password, now.monotonic
        )
        return self._succeed(user, self._authzid, now, remark=_which(matched))


class _Successes:
    """Passwords that were right, each as a hash with a key that this process alone has, so that a
    client that connects again and again is not stretched for each time.

    The verifier is part of what is hashed: with another password the entry is worth nothing.
    Failures are not remembered: guesses must cost what they cost.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def look_up(self, name: str, verifiers: Sequence[Verifier], password: bytes, now: float) -> int:
        """The position of the verifier that the password is known to belong to, else -1."""
        found = -1
        for position, verifier in enumerate(verifiers):
            if self._until.get(self._mark(name, verifier, password), now) > now:
                found = position
        return found

    def add(self, name: str, verifier: Verifier, password: bytes, now: float) -> None:
        mark = self._mark(name, verifier, password)
        if self._until.get(mark, now) <= now:
            self._until[mark] = now + CACHED_FOR
        self._until.move_to_end(mark)
        if len(self._until) > CACHED:
            self._until.popitem(last=False)

    def _mark(self, name: str, verifier: Verifier, password: bytes) -> bytes:
        # Names have no NUL, keys have a length of their own.
        about = b"\0".join((name.encode(), verifier.stored_key + password))
        return hmac.digest(self._key, about, "sha256")


def _text(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise _Malformed("a name that is no UTF-8") from None
    if "\0" in text:
        raise _Malformed("a name with a NUL in it")
    return text


def _which(matched: int) -> str:
    return "" if matched == 0 else "by the password that was replaced"
