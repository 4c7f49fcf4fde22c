"""The client's side of a login: pure-sasl's client with mechanisms and a policy of our own.

pure-sasl brings the frame: a client that is asked to choose among what a server offers, and to
process its challenges. Its own mechanisms and its scores are left alone, for they prefer what is
weak, and so is its table of mechanisms, which other libraries in the same process may be using.

The policy is a floor. A list of mechanisms is sent unprotected or by whoever stands in the way, so
a client that took whatever is offered would say its password to anybody who asks for it. What a
channel may not carry is not sent, whatever is offered.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from puresasl import QOP
from puresasl.client import SASLClient
from puresasl.mechanisms import Mechanism

from trigear.errors import ConfigError, LoginFailed
from trigear.model import printable, public
from trigear.security.scram import (
    CLIENT_MOST_ITERATIONS,
    HASHES,
    LEAST_ITERATIONS,
    NONCE_BYTES,
    SHA_256,
    SHA_512,
    Hash,
    ScramClient,
    ScramError,
    nonce,
    prepare,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

SERVICE: Final = "gearman"
PLUS: Final = "-PLUS"

PREFERENCE: Final = (
    "EXTERNAL",
    SHA_512.mechanism + PLUS,
    SHA_256.mechanism + PLUS,
    SHA_512.mechanism,
    SHA_256.mechanism,
    "PLAIN",
)
"""Mechanisms, the one to take first first."""

# Binding types, the one to take first first.
_BINDING_TYPES: Final = ("tls-server-end-point", "tls-unique")

_SALTS_REMEMBERED: Final = 8


@dataclass(frozen=True, slots=True)
class ClientChannel:
    """What a client knows of its connection.

    Args:
        tls: whether it is TLS.
        verified: whether the server has proved by its certificate to be the one that was asked for.
        unix: whether it is a Unix socket.
        loopback: whether the server is on this machine.
        certificate: whether the client has shown a certificate of its own.
        bindings: binding data by type, see :func:`trigear.security.tls.bindings`.
    """

    tls: bool = False
    verified: bool = False
    unix: bool = False
    loopback: bool = False
    certificate: bool = False
    bindings: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}), repr=False)


@public
class Auth:
    """Who to log in as, for any number of connections.

    Args:
        user: the name; empty where a certificate or a Unix socket says it.
        password: text, or bytes as they are; None: there is none.
        authzid: as whom to act; empty: as oneself.
        external: whether to let the channel say who it is, where it has a client certificate or is
            a Unix socket; None: where there is no name and password.
        mechanisms: those that may be used at all, the one to take first first.
        require_binding: whether a password may be used only if it is bound to the TLS connection.
        allow_plaintext_scram: whether SCRAM may be used without TLS to another machine. The
            password stays secret; the connection belongs to whoever stands in the way.
        min_iterations, max_iterations: of SCRAM, what a server may ask for.
        tenant: for operators, the tenant to act for; empty: none.

    Raises:
        ConfigError: the parts do not go together, or the password cannot be one.
    """

    def __init__(
        self,
        user: str = "",
        password: str | bytes | None = None,
        *,
        authzid: str = "",
        external: bool | None = None,
        mechanisms: Iterable[str] = PREFERENCE,
        require_binding: bool = False,
        allow_plaintext_scram: bool = False,
        min_iterations: int = LEAST_ITERATIONS,
        max_iterations: int = CLIENT_MOST_ITERATIONS,
        tenant: str = "",
    ) -> None:
        self.user = user
        self.tenant = tenant
        self.authzid = authzid
        self.external = not user if external is None else external
        self.mechanisms = tuple(mechanisms)
        self.require_binding = require_binding
        self.allow_plaintext_scram = allow_plaintext_scram
        self.min_iterations = min_iterations
        self.max_iterations = max_iterations
        unknown = set(self.mechanisms) - set(PREFERENCE)
        if unknown:
            raise ConfigError(
                "mechanisms",
                f"{min(unknown)!r} is none that this client knows",
                f"known: {', '.join(PREFERENCE)}",
            )
        if (password is not None) != bool(user):
            raise ConfigError(
                "user" if user else "password",
                f"a {'name' if user else 'password'} alone is of no use",
                "give both, or neither where a certificate or a Unix socket says who it is",
            )
        for what, name in (("user", user), ("authzid", authzid), ("tenant", tenant)):
            if "\0" in name or not name.isprintable():
                raise ConfigError(what, f"{name!r} has characters that no name has")
        try:
            self._password = None if password is None else _whole(password)
        except ScramError as error:
            raise ConfigError("password", str(error)) from None
        self._salted: OrderedDict[tuple[str, bytes, int], bytes] = OrderedDict()

    def __repr__(self) -> str:
        return f"Auth(user={self.user!r}, authzid={self.authzid!r})"

    @property
    def has_password(self) -> bool:
        return self._password is not None

    def plain(self) -> bytes:
        """The message of PLAIN."""
        assert self._password is not None
        return b"\0".join((self.authzid.encode(), self.user.encode(), self._password))

    def scram(self, hash: Hash, nonce: bytes, flag: str, binding: bytes) -> ScramClient:
        """The client's side of an exchange by SCRAM. Salted passwords are kept from one to the
        next, so that connecting again costs no stretching."""
        assert self._password is not None
        while len(self._salted) > _SALTS_REMEMBERED:
            self._salted.popitem(last=False)
        return ScramClient(
            hash,
            self.user,
            prepare(self._password),
            nonce,
            authzid=self.authzid,
            flag=flag,
            binding=binding,
            least_iterations=self.min_iterations,
            most_iterations=self.max_iterations,
            cache=self._salted,
        )


def _whole(password: str | bytes) -> bytes:
    """The bytes of a password as PLAIN sends them; checked, and not prepared."""
    prepare(password)
    raw = password.encode("utf-8", "surrogateescape") if isinstance(password, str) else password
    if b"\0" in raw:
        raise ScramError("the password has a NUL in it, which PLAIN cannot carry")
    return raw


class TrigearSASL(SASLClient):  # type: ignore[misc]  # pure-sasl has no types
    """One login on one connection.

    First :meth:`choose_mechanism`; then :meth:`process` with None for the first message, and with
    each challenge of the server for the next; at last :meth:`finish`. Stretching a password takes
    its time: call :meth:`process` where it holds nobody up.

    Args:
        host: the server, for messages.
        auth: who to log in as.
        channel: what is known of the connection.
        random: a source of random bytes.
    """

    mechanism: str | None
    _chosen_mech: Mechanism | None

    def __init__(
        self, host: str, auth: Auth, channel: ClientChannel, random: Callable[[int], bytes]
    ) -> None:
        super().__init__(host, SERVICE, mechanism=None, qops=[QOP.AUTH])
        self.auth = auth
        self.channel = channel
        self.random = random
        self.offered: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"TrigearSASL({self.host!r}, {self.mechanism!r})"

    def choose_mechanism(self, offered: Iterable[str], **ignored: Any) -> None:  # noqa: ANN401
        """Take the first mechanism of our preference that the server offers and that this channel
        and this login allow. The flags of pure-sasl are ignored: they would not say this.

        Raises:
            LoginFailed: there is none. Nothing was sent.
        """
        self.offered = frozenset(offered)
        reasons = []
        for name in self.auth.mechanisms:
            reason = _MECHANISMS[name].why_not(self, name)
            if reason is None and name in self.offered:
                self.mechanism = name
                self._chosen_mech = _MECHANISMS[name](self, name)
                return
            if name in self.offered:
                reasons.append(f"{name}: {reason}")
        names = printable(", ".join(sorted(self.offered)).encode("utf-8", "backslashreplace"))
        hidden = self.channel.tls or self.channel.unix
        then = "" if hidden or not reasons else "; use TLS: gearmans://HOST:PORT"
        raise LoginFailed(
            f"{self.host} offers no mechanism that may be used here: "
            + ("; ".join(reasons) or f"it offers {names or 'none'}")
            + then
        )

    def process(self, challenge: bytes | None = None) -> bytes:
        """The answer to a challenge.

        Raises:
            LoginFailed: the server's message is not what it must be, or it asks for too much.
        """
        try:
            answer: bytes = super().process(challenge)
        except ScramError as error:
            raise LoginFailed(f"{self.host}: {error}") from error
        return answer

    def finish(self, data: bytes) -> None:
        """The server says that the login is done. See whether that may be believed.

        Args:
            data: what came along with it; may be empty.

        Raises:
            LoginFailed: the server has not proved that it knows the password. It may be anybody.
        """
        if data and not self.complete:
            self.process(data)
        if not self.complete:
            raise LoginFailed(
                f"{self.host} says that the login is done and has not proved who it is"
            )
        self.dispose()


class _Mechanism(Mechanism):  # type: ignore[misc]  # pure-sasl has no types
    """What ours have in common: they are made for one channel, and know where they may be used."""

    def __init__(self, sasl: TrigearSASL, name: str) -> None:
        super().__init__(sasl)
        self.name = name
        self.complete = False

    @classmethod
    @abstractmethod
    def why_not(cls, sasl: TrigearSASL, name: str) -> str | None:
        """Why this may not be used; None: it may."""

    def wrap(self, outgoing: bytes) -> bytes:
        """Nothing: what is sent after the login is not changed."""
        return outgoing

    def unwrap(self, incoming: bytes) -> bytes:
        """Nothing, likewise."""
        return incoming


class _External(_Mechanism):
    """The server knows who it is by the channel."""

    @classmethod
    def why_not(cls, sasl: TrigearSASL, name: str) -> str | None:
        if not sasl.auth.external:
            return "it is switched off"
        if not (sasl.channel.certificate or sasl.channel.unix):
            return "there is neither a client certificate nor a Unix socket"
        return None

    def process(self, challenge: bytes | None = None) -> bytes:
        self.complete = True
        authzid: str = self.sasl.auth.authzid
        return authzid.encode()


class _Plain(_Mechanism):
    """The password itself, to a server that has proved who it is."""

    @classmethod
    def why_not(cls, sasl: TrigearSASL, name: str) -> str | None:
        if not sasl.auth.has_password:
            return "there is no password"
        if sasl.auth.require_binding:
            return "it cannot be bound to the connection"
        if not (sasl.channel.unix or (sasl.channel.tls and sasl.channel.verified)):
            return "it would tell the password to a server that has not proved who it is"
        return None

    def process(self, challenge: bytes | None = None) -> bytes:
        self.complete = True
        message: bytes = self.sasl.auth.plain()
        return message


class _Scram(_Mechanism):
    """A proof that the password is known, and the server's proof that it knows it too."""

    def __init__(self, sasl: TrigearSASL, name: str) -> None:
        super().__init__(sasl, name)
        flag, binding = self._binding(sasl, name)
        self._exchange: ScramClient | None = sasl.auth.scram(
            HASHES[name.removesuffix(PLUS)], nonce(sasl.random(NONCE_BYTES)), flag, binding
        )
        self._step = 0

    @staticmethod
    def _binding(sasl: TrigearSASL, name: str) -> tuple[str, bytes]:
        """The GS2 flag, and what is bound to."""
        kind = _binding_type(sasl)
        if kind is None:
            return "n", b""
        if name.endswith(PLUS):
            return f"p={kind}", sasl.channel.bindings[kind]
        # We could, and were not offered to. If the server has offered it, somebody took it out of
        # the list: this flag, which the proof covers, lets the server notice.
        return "y", b""

    @classmethod
    def why_not(cls, sasl: TrigearSASL, name: str) -> str | None:
        channel = sasl.channel
        if not sasl.auth.has_password:
            return "there is no password"
        if name.endswith(PLUS):
            return None if _binding_type(sasl) else "there is nothing to bind to"
        if sasl.auth.require_binding:
            return "it is not bound to the connection"
        if any(offered.endswith(PLUS) for offered in sasl.offered) and _binding_type(sasl):
            return "a mechanism that is bound to the connection is offered too"
        if not (channel.tls or channel.unix or channel.loopback or sasl.auth.allow_plaintext_scram):
            return "the connection is neither TLS nor on this machine"
        return None

    def process(self, challenge: bytes | None = None) -> bytes:
        exchange = self._exchange
        self._step += 1
        if self._step == 1 and exchange is not None:
            if challenge:
                raise ScramError("the server speaks first")
            return exchange.first()
        if self._step == 2 and exchange is not None:
            return exchange.final(challenge or b"")
        if self._step == 3 and exchange is not None:
            exchange.check(challenge or b"")
            self.complete = True
            return b""
        raise ScramError("a message after the end of the exchange")

    def dispose(self) -> None:
        self._exchange = None


def _binding_type(sasl: TrigearSASL) -> str | None:
    """What to bind to; None if that is not possible, or not wanted."""
    if not any(name.endswith(PLUS) for name in sasl.auth.mechanisms):
        return None
    return next((kind for kind in _BINDING_TYPES if kind in sasl.channel.bindings), None)


_MECHANISMS: Final[Mapping[str, type[_Mechanism]]] = MappingProxyType(
    {
        "EXTERNAL": _External,
        "PLAIN": _Plain,
        **dict.fromkeys((name for name in PREFERENCE if name.startswith("SCRAM-")), _Scram),
    }
)
"""Ours alone; that of pure-sasl stays as it is."""
