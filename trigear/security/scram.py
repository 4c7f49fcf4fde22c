"""SCRAM for both sides, and the verifiers that a server keeps instead of passwords.

Messages in, messages out: nothing here waits, draws a random number or knows a connection. Sources:
RFC 5802 (SCRAM, GS2 header), RFC 7677 (SHA-256), RFC 4013 (SASLprep), PostgreSQL's form of a
verifier.

What a peer sends is judged by its length before anything else, and every way in which it can be
wrong ends in :class:`ScramError`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import stringprep
import unicodedata
from base64 import b64encode
from binascii import a2b_base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from trigear.errors import TrigearError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping, Sequence

    Lookup = Callable[[str], Sequence["Verifier"]]
    """From a user name to its verifiers, which share salt and iterations; never empty."""

MESSAGE_LIMIT: Final = 2048
"""Bytes of one SCRAM message, whoever sends it."""

PASSWORD_LIMIT: Final = 1024
"""Bytes of a password, before it is prepared."""

NONCE_LEAST: Final = 8
NONCE_LIMIT: Final = 256
"""Characters of a nonce that is accepted from a peer."""

NONCE_BYTES: Final = 18
SALT_BYTES: Final = 16
"""Random bytes in a nonce and a salt of ours."""

SALT_LEAST: Final = 12
SALT_LIMIT: Final = 64
"""Bytes of a salt that is accepted."""

LEAST_ITERATIONS: Final = 4096
MOST_ITERATIONS: Final = 10_000_000
"""Iterations of a verifier that is accepted; RFC 7677 sets the lower end."""

CLIENT_MOST_ITERATIONS: Final = 1_000_000
"""Iterations that a client does for a server; the processor time is its own."""

GENERATED_ITERATIONS: Final = 4096
"""For secrets made by chance, which stretching makes no better."""

HUMAN_ITERATIONS: Final = 600_000
"""For passwords that people chose."""


class ScramError(TrigearError):
    """A message or a verifier is not SCRAM, a proof does not hold, or a peer asks for too much.

    The text tells which. It repeats no password, key or proof.
    """


class Hash(NamedTuple):
    """A hash function: as in mechanism names, as in :mod:`hashlib`, and its length in bytes."""

    name: str
    algorithm: str
    size: int

    @property
    def mechanism(self) -> str:
        return f"SCRAM-{self.name}"

    def mac(self, key: bytes, message: bytes) -> bytes:
        return hmac.digest(key, message, self.algorithm)

    def digest(self, data: bytes) -> bytes:
        return hashlib.new(self.algorithm, data).digest()

    def stretch(self, password: bytes, salt: bytes, iterations: int) -> bytes:
        """The salted password: what takes the time. ``password`` is prepared."""
        return hashlib.pbkdf2_hmac(self.algorithm, password, salt, iterations)


SHA_256: Final = Hash("SHA-256", "sha256", 32)
SHA_512: Final = Hash("SHA-512", "sha512", 64)
HASHES: Final = {known.mechanism: known for known in (SHA_256, SHA_512)}


def prepare(password: str | bytes) -> bytes:
    """The bytes that are hashed for a password.

    ASCII stays as it is. Other text goes through SASLprep; what SASLprep forbids, and bytes that
    are no UTF-8, stay as they are (PostgreSQL's rule), so that every password works somewhere.

    Raises:
        ScramError: the password is empty or longer than :data:`PASSWORD_LIMIT`.
    """
    try:
        raw = password.encode("utf-8", "surrogateescape") if isinstance(password, str) else password
    except UnicodeEncodeError:
        raise ScramError("the password is no Unicode text") from None
    if not raw:
        raise ScramError("the password is empty")
    if len(raw) > PASSWORD_LIMIT:
        raise ScramError(f"the password is longer than {PASSWORD_LIMIT} bytes")
    if raw.isascii():
        return raw
    try:
        prepared = saslprep(raw.decode())
    except ValueError:  # UnicodeDecodeError is one
        return raw
    return prepared.encode()


_NAME: Final = re.compile(rb"(?:[^=,\0]|=2C|=3D)*")

_FORBIDDEN: Final = (
    stringprep.in_table_a1,
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str) -> str:
    """RFC 4013 for stored strings. Raises ValueError if it forbids the text or leaves nothing.

    U+200B is in the table of blanks and in that of characters that vanish; as in PostgreSQL and
    GNU libidn it becomes a blank.
    """
    mapped = "".join(
        " " if stringprep.in_table_c12(c) else c
        for c in text
        if stringprep.in_table_c12(c) or not stringprep.in_table_b1(c)
    )
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if not prepared:
        raise ValueError("nothing is left")
    if any(forbids(c) for c in prepared for forbids in _FORBIDDEN):
        raise ValueError("forbidden character")
    if any(stringprep.in_table_d1(c) for c in prepared) and (
        any(stringprep.in_table_d2(c) for c in prepared)
        or not stringprep.in_table_d1(prepared[0])
        or not stringprep.in_table_d1(prepared[-1])
    ):
        raise ValueError("text of both directions")
    return prepared


@dataclass(frozen=True, slots=True)
class Verifier:
    """What a server keeps of a password: enough to check it and to prove itself, not to log in."""

    hash: Hash
    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def derive(
        cls, password: str | bytes, salt: bytes, iterations: int, hash: Hash = SHA_256
    ) -> Verifier:
        """The verifier of a password; takes as long as ``iterations`` say.

        Raises ScramError as :func:`prepare` does.
        """
        salted = hash.stretch(prepare(password), salt, iterations)
        return cls(hash, iterations, salt, *_keys(hash, salted))

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Read ``SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`` (the last three in base64).

        Raises:
            ScramError: it has another form, or salt, keys or iterations are out of bounds.
        """
        try:
            mechanism, cost, keys = text.split("$")
            iterations, salt = cost.split(":")
            stored_key, server_key = keys.split(":")
        except ValueError:
            raise ScramError(
                "the verifier has not the form SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey"
            ) from None
        if mechanism not in HASHES:
            raise ScramError(f"the verifier is for none of {', '.join(HASHES)}")
        verifier = cls(
            HASHES[mechanism],
            _number(iterations.encode("ascii", "replace")),
            *(_base64(part.encode("ascii", "replace")) for part in (salt, stored_key, server_key)),
        )
        if not LEAST_ITERATIONS <= verifier.iterations <= MOST_ITERATIONS:
            raise ScramError(
                f"the verifier has {verifier.iterations} iterations; "
                f"{LEAST_ITERATIONS} to {MOST_ITERATIONS} are allowed"
            )
        if not SALT_LEAST <= len(verifier.salt) <= SALT_LIMIT:
            raise ScramError(f"the verifier's salt has not {SALT_LEAST} to {SALT_LIMIT} bytes")
        if {len(verifier.stored_key), len(verifier.server_key)} != {verifier.hash.size}:
            raise ScramError(f"a key of the verifier has not {verifier.hash.size} bytes")
        return verifier

    def text(self) -> str:
        """What :meth:`parse` reads. It belongs into a file that only the server can read."""
        salt, stored_key, server_key = (
            b64encode(part).decode() for part in (self.salt, self.stored_key, self.server_key)
        )
        return f"{self.hash.mechanism}${self.iterations}:{salt}${stored_key}:{server_key}"

    def overlaps(self, other: Verifier) -> bool:
        """Whether both can be tried in one exchange: the client is told one salt and one cost."""
        return (self.hash, self.iterations, self.salt) == (other.hash, other.iterations, other.salt)


def matching(verifiers: Sequence[Verifier], password: bytes) -> int:
    """The position of the verifier that this prepared password belongs to, else -1.

    Takes as long as the first verifier's iterations say, whatever the outcome. The verifiers
    share hash, salt and iterations.
    """
    first = verifiers[0]
    salted = first.hash.stretch(password, first.salt, first.iterations)
    stored_key, _ = _keys(first.hash, salted)
    return _position(verifiers, stored_key)


def nonce(random: bytes) -> bytes:
    """A nonce with these random bytes in it."""
    return b64encode(random)


class ScramServer:
    """The server's side of one exchange: :meth:`first`, then :meth:`final`.

    Args:
        hash: the hash function of the mechanism.
        lookup: from the user's name to verifiers; for names that nobody has, invented ones.
        nonce: what this side adds to the nonce, printable ASCII without commas.
        plus: whether the mechanism is the -PLUS one.
        bindings: the channel's binding data by type, as far as they may be used.
        plus_offered: whether the client could have taken the -PLUS mechanism. One that says it
            could bind and believes that we could not has been lied to on the way.
    """

    __slots__ = (
        "_bare",
        "_binding",
        "_bindings",
        "_first",
        "_hash",
        "_lookup",
        "_nonce",
        "_own_nonce",
        "_plus",
        "_plus_offered",
        "_verifiers",
        "authzid",
        "matched",
        "username",
    )

    def __init__(
        self,
        hash: Hash,
        lookup: Lookup,
        nonce: bytes,
        *,
        plus: bool,
        bindings: Mapping[str, bytes],
        plus_offered: bool,
    ) -> None:
        self._hash = hash
        self._lookup = lookup
        self._own_nonce = nonce
        self._plus = plus
        self._bindings = bindings
        self._plus_offered = plus_offered
        self._verifiers: Sequence[Verifier] = ()
        self._bare = self._first = self._nonce = self._binding = b""
        self.username = ""
        self.authzid = ""
        self.matched = -1
        """After :meth:`final`, the position of the verifier that the proof belongs to."""

    def first(self, message: bytes) -> bytes:
        """The answer to client-first: nonce, salt and iterations.

        Raises:
            ScramError: malformed, too long, or bound otherwise than it must be.
        """
        _limit(message)
        try:
            flag, authzid, bare = message.split(b",", 2)
        except ValueError:
            raise ScramError("client-first without a whole GS2 header") from None
        binding = self._binding_for(flag)
        self._binding = flag + b"," + authzid + b"," + binding
        if authzid:
            if not authzid.startswith(b"a="):
                raise ScramError("the GS2 header has something else than an a= attribute")
            self.authzid = _name(authzid[2:])
        user, client_nonce = _attributes(bare, b"nr")
        self.username = _name(user)
        _check_nonce(client_nonce)
        self._bare = bare
        self._nonce = client_nonce + self._own_nonce
        self._verifiers = self._lookup(self.username)
        shown = self._verifiers[0]
        self._first = b"r=%b,s=%b,i=%d" % (self._nonce, b64encode(shown.salt), shown.iterations)
        return self._first

    def final(self, message: bytes) -> bytes:
        """The answer to client-final: the server's own proof.

        Raises:
            ScramError: malformed, another nonce, another binding, or a wrong proof.
        """
        _limit(message)
        without_proof, mark, proof_text = message.rpartition(b",p=")
        if not mark:
            raise ScramError("client-final ends in no proof")
        binding, nonce = _attributes(without_proof, b"cr")
        proof = _base64(proof_text)
        if not hmac.compare_digest(nonce, self._nonce):
            raise ScramError("client-final has another nonce")
        if not hmac.compare_digest(_base64(binding), self._binding):
            raise ScramError("the channel is bound to something else")
        if len(proof) != self._hash.size:
            raise ScramError("the proof has another length than the hash")
        auth_message = b",".join((self._bare, self._first, without_proof))
        # Every verifier is tried, so that it takes as long whichever it is.
        matched = -1
        for position, verifier in enumerate(self._verifiers):
            signature = self._hash.mac(verifier.stored_key, auth_message)
            key = self._hash.digest(_xor(proof, signature))
            if hmac.compare_digest(key, verifier.stored_key):
                matched = position
        if matched < 0:
            raise ScramError("the proof is wrong")
        self.matched = matched
        signature = self._hash.mac(self._verifiers[matched].server_key, auth_message)
        return b"v=" + b64encode(signature)

    def _binding_for(self, flag: bytes) -> bytes:
        """What the client's c= must end in. Raises ScramError if the flag may not be used here."""
        if self._plus:
            if not flag.startswith(b"p="):
                raise ScramError("-PLUS without a channel binding")
            data = self._bindings.get(flag[2:].decode("ascii", "replace"))
            if data is None:
                raise ScramError("bound by a type that this channel does not have")
            return data
        if flag == b"y":
            if self._plus_offered:
                raise ScramError("the client was not shown the -PLUS mechanism that is offered")
        elif flag != b"n":
            raise ScramError("the GS2 header has a flag that this mechanism does not know")
        return b""


class ScramClient:
    """The client's side of one exchange: :meth:`first`, :meth:`final`, :meth:`check`.

    Args:
        hash: the hash function of the mechanism.
        username: who logs in.
        password: prepared.
        nonce: printable ASCII without commas.
        authzid: as whom to act; empty: as oneself.
        flag: the GS2 flag: ``n``, ``y`` or ``p=`` and a binding type.
        binding: the channel's binding data for this type.
        least_iterations, most_iterations: what the server may ask for.
        cache: salted passwords of earlier exchanges by hash, salt and iterations; for one
            password only.
    """

    __slots__ = (
        "_bare",
        "_binding",
        "_cache",
        "_hash",
        "_header",
        "_least",
        "_most",
        "_nonce",
        "_password",
        "_signature",
    )

    def __init__(
        self,
        hash: Hash,
        username: str,
        password: bytes,
        nonce: bytes,
        *,
        authzid: str = "",
        flag: str = "n",
        binding: bytes = b"",
        least_iterations: int = LEAST_ITERATIONS,
        most_iterations: int = CLIENT_MOST_ITERATIONS,
        cache: MutableMapping[tuple[str, bytes, int], bytes] | None = None,
    ) -> None:
        self._hash = hash
        self._password = password
        self._nonce = nonce
        self._least = least_iterations
        self._most = most_iterations
        self._cache = cache
        acting_as = b"a=" + _escaped(authzid) if authzid else b""
        self._header = flag.encode() + b"," + acting_as + b","
        self._binding = binding
        self._bare = b"n=" + _escaped(username) + b",r=" + nonce
        self._signature = b""

    def first(self) -> bytes:
        """The opening message."""
        return self._header + self._bare

    def final(self, message: bytes) -> bytes:
        """The answer to server-first. Takes as long as the server's iterations say.

        Raises:
            ScramError: malformed, another nonce, or iterations out of bounds; then nothing was
                computed from the password.
        """
        _limit(message)
        nonce, salt_text, iterations_text = _attributes(message, b"rsi")
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise ScramError("the server did not add to our nonce")
        _check_nonce(nonce[len(self._nonce) :])
        salt = _base64(salt_text)
        if not SALT_LEAST <= len(salt) <= SALT_LIMIT:
            raise ScramError(f"the server's salt has not {SALT_LEAST} to {SALT_LIMIT} bytes")
        iterations = _number(iterations_text)
        if not self._least <= iterations <= self._most:
            raise ScramError(
                f"the server asks for {iterations} iterations; {self._least} to {self._most} "
                "are allowed"
            )
        salted = self._salted(salt, iterations)
        client_key = self._hash.mac(salted, b"Client Key")
        stored_key, server_key = _keys(self._hash, salted)
        without_proof = b"c=%b,r=%b" % (b64encode(self._header + self._binding), nonce)
        auth_message = b",".join((self._bare, message, without_proof))
        proof = _xor(client_key, self._hash.mac(stored_key, auth_message))
        self._signature = self._hash.mac(server_key, auth_message)
        return without_proof + b",p=" + b64encode(proof)

    def check(self, message: bytes) -> None:
        """Look whether server-final proves that the server knows the verifier.

        Raises:
            ScramError: it does not.
        """
        _limit(message)
        if message.startswith(b"e="):
            raise ScramError("the server ended the exchange with an error")
        (signature,) = _attributes(message, b"v")
        if not self._signature or not hmac.compare_digest(_base64(signature), self._signature):
            raise ScramError("the server's proof is wrong: it does not know this user's password")

    def _salted(self, salt: bytes, iterations: int) -> bytes:
        known = (self._hash.name, salt, iterations)
        salted = None if self._cache is None else self._cache.get(known)
        if salted is None:
            salted = self._hash.stretch(self._password, salt, iterations)
            if self._cache is not None:
                self._cache[known] = salted
        return salted


def _keys(hash: Hash, salted: bytes) -> tuple[bytes, bytes]:
    """StoredKey and ServerKey."""
    return hash.digest(hash.mac(salted, b"Client Key")), hash.mac(salted, b"Server Key")


def _position(verifiers: Sequence[Verifier], stored_key: bytes) -> int:
    """Where this StoredKey is. All are looked at, however early it is found."""
    found = -1
    for position, verifier in enumerate(verifiers):
        if hmac.compare_digest(verifier.stored_key, stored_key):
            found = position
    return found


def _xor(one: bytes, other: bytes) -> bytes:
    size = len(one)
    return (int.from_bytes(one) ^ int.from_bytes(other)).to_bytes(size)


def _limit(message: bytes) -> None:
    if len(message) > MESSAGE_LIMIT:
        raise ScramError(f"a message of more than {MESSAGE_LIMIT} bytes")


def _attributes(message: bytes, names: bytes) -> list[bytes]:
    """The values of the attributes with these one-letter names, in this order.

    Extensions may follow; those that need not be understood are passed over, as RFC 5802 wants.
    """
    parts = message.split(b",")
    if len(parts) < len(names):
        raise ScramError("a message with too few attributes")
    for part, name in zip(parts, names, strict=False):
        if part[:2] != b"%c=" % name:
            raise ScramError(f"no attribute {name:c} where it must be")
    for extension in parts[len(names) :]:
        if not extension[:1].isalpha() or extension[1:2] != b"=" or len(extension) < 3:
            raise ScramError("an extension that is no attribute")
        if extension[:1] in b"anmrcsipve":
            raise ScramError("an attribute at a place that is not its own")
    return [part[2:] for part in parts[: len(names)]]


def _name(text: bytes) -> str:
    """A name off the wire, where comma and equals sign are written =2C and =3D."""
    if not _NAME.fullmatch(text):
        raise ScramError("a name with a character that must be escaped")
    try:
        return text.replace(b"=2C", b",").replace(b"=3D", b"=").decode()
    except UnicodeDecodeError:
        raise ScramError("a name that is no UTF-8") from None


def _escaped(name: str) -> bytes:
    if "\0" in name:
        raise ScramError("a name with a NUL in it")
    try:
        return name.replace("=", "=3D").replace(",", "=2C").encode()
    except UnicodeEncodeError:
        raise ScramError("a name that is no Unicode text") from None


def _check_nonce(nonce: bytes) -> None:
    if not NONCE_LEAST <= len(nonce) <= NONCE_LIMIT:
        raise ScramError(f"a nonce that has not {NONCE_LEAST} to {NONCE_LIMIT} characters")
    if any(not 0x21 <= c <= 0x7E for c in nonce):
        raise ScramError("a nonce with unprintable characters")


def _base64(text: bytes) -> bytes:
    try:
        return a2b_base64(text, strict_mode=True)
    except ValueError:
        raise ScramError("broken base64") from None


def _number(text: bytes) -> int:
    if not text.isdigit() or len(text) > 10 or text.startswith(b"0"):
        raise ScramError("iterations that are no number")
    return int(text)
