"""The people and programs that may log in: what `users.toml` says about them, checked and indexed.

A :class:`Users` is made from the whole file and never changes; a changed file makes another one.
What it is asked during a login takes the same steps for a name that nobody has as for one that
somebody has, so that neither the time nor the answer tells which names there are.
"""

from __future__ import annotations

import hmac
import re
import tomllib
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from trigear.errors import ConfigError
from trigear.model import DEFAULT_TENANT
from trigear.security.policy import EVERY, Identity, Matcher, Role
from trigear.security.scram import (
    GENERATED_ITERATIONS,
    SALT_BYTES,
    SHA_256,
    SHA_512,
    Hash,
    ScramError,
    Verifier,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

VERSION: Final = 1
"""Of the file's layout."""

USER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
TENANT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

PLAIN: Final = "PLAIN"
"""Beside the hashes a kind of verifier of its own: whichever a user's password is checked by."""

CERTIFICATE_KINDS: Final = ("sha256", "uri", "dns", "email", "cn")
"""What a certificate may be known by, strongest first."""

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")


class Pair(NamedTuple):
    """The verifiers of one hash that are in force: a password, and the one it replaces."""

    current: Verifier
    old: Verifier | None


@dataclass(frozen=True, slots=True)
class User:
    """A person or program, one table `[users.NAME]` of the file.

    Args:
        name: unique over all tenants; what it logs in as.
        tenant: whose functions and jobs it sees.
        roles: what it may do at all.
        submit: names of functions it may submit jobs of.
        work: names of functions it may do jobs of.
        serves: tenants whose jobs it does; empty: its own.
        verifiers: by kind of verifier; empty: no password.
        old_until: seconds since 1970 until which a replaced password is good.
        certificates: what certificates of this user are known by, each `KIND:VALUE`.
        uids: of the system users that are this user on a Unix socket.
        may_act_as: names of the users whose identity it may take on.
        disabled: whether it is shut out.
        not_after: seconds since 1970 from which on it is shut out; None: never.
    """

    name: str
    tenant: str = DEFAULT_TENANT
    roles: frozenset[Role] = frozenset()
    submit: Matcher = EVERY
    work: Matcher = EVERY
    serves: tuple[str, ...] = ()
    verifiers: Mapping[str, Pair] = field(default_factory=lambda: MappingProxyType({}))
    old_until: float | None = None
    certificates: tuple[str, ...] = ()
    uids: tuple[int, ...] = ()
    may_act_as: tuple[str, ...] = ()
    disabled: bool = False
    not_after: float | None = None

    @property
    def principal(self) -> str:
        return f"{self.tenant}/{self.name}"

    def in_force(self, now: float) -> bool:
        """Whether it may log in at ``now`` (seconds since 1970)."""
        return not self.disabled and (self.not_after is None or now < self.not_after)

    def identity(self, method: str, expires_at: float | None = None, authcid: str = "") -> Identity:
        """What a connection of this user is from now on.

        Args:
            method: how it logged in.
            expires_at: seconds since 1970 when that ends; the user's own end may come sooner.
            authcid: the user who proved to be there, where that is another one.
        """
        ends = [end for end in (expires_at, self.not_after) if end is not None]
        return Identity(
            principal=self.principal,
            tenant=self.tenant,
            roles=self.roles,
            method=method,
            submit=self.submit,
            work=self.work,
            serves=self.serves,
            authcid=authcid,
            expires_at=min(ends, default=None),
            until=expires_at,
        )


# Stands in for a name that nobody has, and takes the same way through every decision.
_NOBODY: Final = User("", disabled=True)


class Credentials(NamedTuple):
    """What a login is checked by. ``user`` is None if nobody may log in by this name now; then the
    verifiers are invented, and no password fits them. There are always two."""

    user: User | None
    verifiers: tuple[Verifier, Verifier]


class Changes(NamedTuple):
    """What a new file changes for users who are there: removed, disabled or moved to another
    tenant; all passwords replaced; other rights. ``marks`` says whether somebody is known by other
    certificates or system users, which may matter to all who are known by theirs."""

    gone: frozenset[str]
    passwords: frozenset[str]
    rights: frozenset[str]
    marks: bool = False


class Cost(NamedTuple):
    """What a verifier shows of itself to who asks to log in."""

    hash: Hash
    iterations: int
    salt_size: int


class Users:
    """All users of a file.

    Raises:
        ConfigError: two of them claim the same system user or certificate.
    """

    def __init__(self, users: Iterable[User], source: str = "users.toml") -> None:
        self._by_name = {user.name: user for user in users}
        self._by_uid: dict[int, User] = {}
        self._by_certificate: dict[str, User] = {}
        for user in self._by_name.values():
            where = f"{source}: users.{user.name}"
            for uid in user.uids:
                other = self._by_uid.setdefault(uid, user)
                if other is not user:
                    raise ConfigError(
                        f"{where}.unix_uids", f"{uid} belongs to {other.name} already"
                    )
            for mark in user.certificates:
                other = self._by_certificate.setdefault(mark, user)
                if other is not user:
                    raise ConfigError(f"{where}.certs", f"{mark} belongs to {other.name} already")
        self._costs = {
            kind: _costs(kind, self._by_name.values())
            for kind in (PLAIN, SHA_256.mechanism, SHA_512.mechanism)
        }
        kinds = [
            user.verifiers.keys()
            for user in self._by_name.values()
            if user.verifiers and not user.disabled
        ]
        self._covered = {hash for hash in (SHA_256, SHA_512) if _in_all(hash.mechanism, kinds)}

    @classmethod
    def parse(cls, text: str, source: str = "users.toml") -> Users:
        """Read the text of a file.

        Args:
            text: TOML.
            source: what to call it in errors.

        Raises:
            ConfigError: it is no TOML, or says something that it may not.
        """
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(source, f"no TOML: {error}") from error
        if document.get("version") != VERSION:
            raise ConfigError(
                f"{source}: version",
                f"{document.get('version')!r} is no version this program reads",
                f"the first line of the file is `version = {VERSION}`",
            )
        unknown = document.keys() - {"version", "users"}
        if unknown:
            raise ConfigError(
                f"{source}: {min(unknown)}", "there is no such setting", "users are [users.NAME]"
            )
        tables = document.get("users", {})
        if not isinstance(tables, dict):
            raise ConfigError(f"{source}: users", "no table", "users are [users.NAME]")
        return cls((_user(name, table, source) for name, table in tables.items()), source)

    def __iter__(self) -> Iterator[User]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> User | None:
        """The user of this name, in force or not."""
        return self._by_name.get(name)

    def of_uid(self, uid: int, now: float) -> User | None:
        """The user whom this system user is, if in force at ``now`` (seconds since 1970)."""
        user = self._by_uid.get(uid, _NOBODY)
        return user if user.in_force(now) else None

    def of_certificate(self, mark: str) -> User | None:
        """The user who lists this mark of a certificate, in force or not."""
        return self._by_certificate.get(mark)

    def acting_as(self, user: User, authzid: str, now: float) -> User | None:
        """Whom ``user`` becomes by asking to act as ``authzid``; None: nobody, it is refused.

        Nothing, one's own name and one's own principal change nothing. Anybody else must be
        listed, and in force at ``now`` (seconds since 1970).
        """
        if authzid in ("", user.name, user.principal):
            return user
        other = self._by_name.get(authzid.rpartition("/")[2], _NOBODY)
        if authzid not in (other.name, other.principal) or other.name not in user.may_act_as:
            return None
        return other if other.in_force(now) else None

    def covers(self, hash: Hash) -> bool:
        """Whether everybody who has a password and is not disabled can log in by this hash."""
        return hash in self._covered

    def credentials(self, name: str, kind: str, now: float, secret: bytes) -> Credentials:
        """What to check a login by, whether there is such a user or not.

        Args:
            name: as the peer gave it.
            kind: :data:`PLAIN` or a SCRAM mechanism without -PLUS.
            now: seconds since 1970.
            secret: of this server; makes invented verifiers the same every time.
        """
        invented = self._invented(name, kind, secret)
        user = self._by_name.get(name, _NOBODY)
        pair = user.verifiers.get(kind)
        if not user.in_force(now) or pair is None:
            return Credentials(None, (invented, invented))
        old = pair.old if user.old_until is not None and now < user.old_until else None
        return Credentials(user, (pair.current, invented if old is None else old))

    def changes_to(self, new: Users) -> Changes:
        """What becomes of the users of this file by a new one."""
        gone, passwords, rights = set(), set(), set()
        for name, user in self._by_name.items():
            after = new.get(name)
            if after is None or after.disabled or after.tenant != user.tenant:
                gone.add(name)
                continue
            before = _all_verifiers(user)
            if before and not before & _all_verifiers(after):
                passwords.add(name)
            if user.identity("") != after.identity(""):
                rights.add(name)
        marks = self._marks() != new._marks()
        return Changes(frozenset(gone), frozenset(passwords), frozenset(rights), marks)

    def _marks(self) -> dict[str, tuple[frozenset[str], frozenset[int]]]:
        """What everybody is known by who is known by something."""
        return {
            name: (frozenset(user.certificates), frozenset(user.uids))
            for name, user in self._by_name.items()
            if user.certificates or user.uids
        }

    def _invented(self, name: str, kind: str, secret: bytes) -> Verifier:
        """A verifier for a name that may be nobody's. It has the looks of one that is somebody's:
        chance picks among those of the file, the same for the same name each time."""
        about = f"{kind}\0{name}".encode("utf-8", "surrogatepass")
        chance = hmac.digest(secret, b"cost\0" + about, "sha512")
        salt = hmac.digest(secret, b"salt\0" + about, "sha512")
        keys = hmac.digest(secret, b"keys\0" + about, "sha512")
        costs = self._costs[kind]
        # By proportion: in a sorted list a further entry then moves few names to another one.
        cost = costs[int.from_bytes(chance) * len(costs) >> 8 * len(chance)]
        size = cost.hash.size
        stored_key = (keys + keys)[:size]
        return Verifier(
            cost.hash, cost.iterations, salt[: cost.salt_size], stored_key, stored_key[::-1]
        )


def _costs(kind: str, users: Iterable[User]) -> tuple[Cost, ...]:
    """What the verifiers of a kind show, once per user, sorted; never empty."""
    found = sorted(
        Cost(pair.current.hash, pair.current.iterations, len(pair.current.salt))
        for user in users
        if (pair := user.verifiers.get(kind)) is not None
    )
    hash = SHA_512 if kind == SHA_512.mechanism else SHA_256
    return tuple(found) or (Cost(hash, GENERATED_ITERATIONS, SALT_BYTES),)


def _in_all(kind: str, several: Iterable[Collection[str]]) -> bool:
    return all(kind in kinds for kinds in several)


def _all_verifiers(user: User) -> set[Verifier]:
    return {verifier for pair in user.verifiers.values() for verifier in pair if verifier}


# Reading a table of the file

_Table = dict[str, Any]


def _user(name: str, table: object, source: str) -> User:
    where = f"{source}: users.{name}"
    if not USER_NAME.fullmatch(name):
        raise ConfigError(
            where,
            "no user name",
            "use 1 to 64 letters, digits and ._@+-, beginning with a letter or a digit",
        )
    if not isinstance(table, dict):
        raise ConfigError(where, "no table", f"write [users.{name}] and its settings below")
    unknown = table.keys() - _READERS.keys()
    if unknown:
        raise ConfigError(
            f"{where}.{min(unknown)}", "there is no such setting", f"known: {', '.join(_READERS)}"
        )
    tenant = table.get("tenant", DEFAULT_TENANT)
    settings: _Table = {"tenant": tenant}
    for key, value in table.items():
        field_name, read = _READERS[key]
        try:
            settings[field_name] = read(value, f"{tenant}/{name}")
        except (TypeError, ValueError, ScramError) as error:
            raise ConfigError(f"{where}.{key}", str(error)) from None
    user = User(name, **settings)
    if any(pair.old for pair in user.verifiers.values()) and user.old_until is None:
        raise ConfigError(
            f"{where}.scram",
            "two verifiers of one hash and no old_until",
            "say until when the second is good, or take it out",
        )
    return user


def _text(value: object, _: str = "") -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no string")
    return value


def _flag(value: object, _: str) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    for entry, same in groupby(sorted(value, key=repr)):
        if len(list(same)) > 1:
            raise ValueError(f"{entry!r} is listed twice")
    return value


def _moment(value: object, _: str) -> float:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise TypeError(f"{value} is no time with a zone; write 2030-12-31T00:00:00Z")
    return value.timestamp()


def _tenant(value: object, _: str = "") -> str:
    if not TENANT_NAME.fullmatch(_text(value)):
        raise ValueError(
            f"{value!r} is no tenant name: use 1 to 64 letters, digits and ._-, beginning with a "
            "letter or a digit"
        )
    return _text(value)


def _tenants(value: object, _: str) -> tuple[str, ...]:
    return tuple(_tenant(entry) for entry in _list(value))


def _roles(value: object, _: str) -> frozenset[Role]:
    names = {role.value: role for role in Role}
    for entry in _list(value):
        if _text(entry) not in names:
            raise ValueError(f"{entry!r} is no role; there are {', '.join(names)}")
    return frozenset(names[_text(entry)] for entry in _list(value))


def _globs(value: object, _: str) -> Matcher:
    globs = [_text(entry) for entry in _list(value)]
    if "" in globs:
        raise ValueError("an empty glob matches no function; leave it out")
    return Matcher(globs)


def _verifiers(value: object, _: str) -> Mapping[str, Pair]:
    found: dict[str, Pair] = {}
    for entry in _list(value):
        verifier = Verifier.parse(_text(entry))
        kind = verifier.hash.mechanism
        if kind not in found:
            found[kind] = Pair(verifier, None)
        elif found[kind].old is not None:
            raise ValueError(f"more than two verifiers of {kind}")
        elif not found[kind].current.overlaps(verifier):
            raise ValueError(
                f"the two verifiers of {kind} have not the same salt and iterations, so that a "
                "client cannot try both"
            )
        else:
            found[kind] = Pair(found[kind].current, verifier)
    for kind in (SHA_256.mechanism, SHA_512.mechanism):
        if kind in found:
            found.setdefault(PLAIN, found[kind])
    return MappingProxyType(found)


def _certificates(value: object, principal: str) -> tuple[str, ...]:
    return tuple(_certificate(_text(entry), principal) for entry in _list(value))


def _certificate(mark: str, principal: str) -> str:
    kind, _, name = mark.partition(":")
    if kind not in CERTIFICATE_KINDS or not name:
        raise ValueError(
            f"{mark!r} names no certificate; write one of "
            + ", ".join(f"{kind}:…" for kind in CERTIFICATE_KINDS)
        )
    if kind == "sha256" and not _FINGERPRINT.fullmatch(name):
        raise ValueError(f"{mark!r} is no fingerprint of 64 digits 0-9 and a-f")
    if kind == "uri" and name != f"trigear://{principal}":
        raise ValueError(f"{mark!r} is not this user, who is uri:trigear://{principal}")
    if kind in ("dns", "email") and "*" in name:
        raise ValueError(f"{mark!r} has a wildcard, and certificates are known by whole names")
    return mark


def _uids(value: object, _: str) -> tuple[int, ...]:
    uids = []
    for entry in _list(value):
        if not isinstance(entry, int) or isinstance(entry, bool) or entry < 0:
            raise TypeError(f"{entry!r} is no number of a system user")
        uids.append(entry)
    return tuple(uids)


def _others(value: object, principal: str) -> tuple[str, ...]:
    names = tuple(_text(entry) for entry in _list(value))
    for name in names:
        if not USER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no user name")
        if name == principal.rpartition("/")[2]:
            raise ValueError(f"{name!r} is this user itself, who needs no leave")
    return names


_READERS: Final[Mapping[str, tuple[str, Callable[[object, str], object]]]] = {
    "tenant": ("tenant", _tenant),
    "roles": ("roles", _roles),
    "submit": ("submit", _globs),
    "work": ("work", _globs),
    "serves": ("serves", _tenants),
    "scram": ("verifiers", _verifiers),
    "old_until": ("old_until", _moment),
    "certs": ("certificates", _certificates),
    "unix_uids": ("uids", _uids),
    "may_act_as": ("may_act_as", _others),
    "disabled": ("disabled", _flag),
    "not_after": ("not_after", _moment),
}
"""The settings of a user: the field each fills, and what reads its value."""

SETTINGS: Final = tuple(_READERS)
"""What a table of a user may say."""
