"""Who may do what: roles, globs, and the one table of rights.

The table has a line for every request that a peer can make, packet or text command. What is not in
it is refused. A test compares it with the tables of `wire/`, so that a new request needs a line
here before anybody may make it.

Two kinds of conditions are not decided here, because they are about jobs: that a worker holds the
job it answers for, and that a client asks about its own submission. The line names them, the
engine looks.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from trigear.errors import ConfigError
from trigear.model import DEFAULT_TENANT, printable
from trigear.wire.packets import EXTENSIONS, PACKETS

if TYPE_CHECKING:
    from collections.abc import Iterable


class Role(enum.Enum):
    """What somebody is there for. Roles do not contain one another."""

    SUBMIT = "submit"
    WORK = "work"
    ADMIN = "admin"
    OPERATOR = "operator"


class Scope(enum.Enum):
    """How far a right reaches."""

    TENANT = "own tenant"
    SERVER = "whole server"


def _pattern(glob: str) -> bytes:
    """A regular expression for the whole name, without ways that go back more than once.

    Between two stars the leftmost place is always a right one, so that the search for it need not
    be taken back; otherwise a few stars could keep the server busy for minutes.
    """
    first, *rest = (
        b"".join(b"." if c == "?" else re.escape(c.encode()) for c in part)
        for part in glob.split("*")
    )
    if not rest:
        return first
    middle = b"".join(b"(?>.*?" + part + b")" for part in rest[:-1] if part)
    return first + middle + b".*" + rest[-1]


class Matcher:
    """Globs, compiled: whether one of them matches a whole name, byte for byte.

    ``*`` stands for any bytes and for none, ``?`` for one byte. Nothing else is special, and
    nothing can be escaped.
    """

    __slots__ = ("_match", "globs")

    def __init__(self, globs: Iterable[str]) -> None:
        self.globs = tuple(globs)
        # Without any glob nothing matches, and not the empty name either.
        alternatives = b"|".join(_pattern(glob) for glob in self.globs) if self.globs else b"(?!)"
        self._match = re.compile(alternatives, re.DOTALL).fullmatch

    def __call__(self, name: bytes) -> bool:
        return self._match(name) is not None

    def __repr__(self) -> str:
        return f"Matcher({list(self.globs)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Matcher) and self.globs == other.globs

    def __hash__(self) -> int:
        return hash(self.globs)

    def which(self, name: bytes) -> str | None:
        """The first glob that matches."""
        return next((glob for glob in self.globs if Matcher((glob,))(name)), None)


EVERY: Final = Matcher(("*",))
NONE: Final = Matcher(())


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a connection belongs to. Made at one place, when a login or a certificate was accepted.

    Args:
        principal: `TENANT/NAME`, as logs and peers see it.
        tenant: whose functions and jobs it sees.
        roles: what it may do at all.
        method: how it is known: a SASL mechanism, `mtls`, `peer`, `network` or `none`.
        submit: names of functions it may submit jobs of.
        work: names of functions it may do jobs of.
        serves: tenants whose jobs it does; empty: its own.
        authcid: the user who proved to be there, where that is another than the principal.
        expires_at: seconds since 1970 when it must log in again; None: never.
        until: the same by the login alone, whenever the user's own time ends.
    """

    principal: str
    tenant: str
    roles: frozenset[Role]
    method: str
    submit: Matcher = EVERY
    work: Matcher = EVERY
    serves: tuple[str, ...] = ()
    authcid: str = ""
    expires_at: float | None = None
    until: float | None = None

    def globs(self, role: Role) -> Matcher:
        """The globs that belong to a role; roles without globs reach every function."""
        return {Role.SUBMIT: self.submit, Role.WORK: self.work}.get(role, EVERY)

    @property
    def role_names(self) -> tuple[str, ...]:
        """The roles in their order, for packets and people."""
        return tuple(role.value for role in Role if role in self.roles)


ANONYMOUS: Final = Identity(
    principal=f"{DEFAULT_TENANT}/anonymous",
    tenant=DEFAULT_TENANT,
    roles=frozenset(Role),
    method="none",
)
"""Everybody on a server that authenticates nobody, which listens on loopback unless told to."""


NETWORK: Final = "network"
"""How those are known who are known by their address."""


def network_identity(
    network: str,
    tenant: str,
    roles: Iterable[Role],
    submit: Matcher = EVERY,
    work: Matcher = EVERY,
) -> Identity:
    """Everybody who connects from a network, on a listener that believes addresses.

    Args:
        network: as it is written in the configuration.
        tenant: whose functions and jobs they see.
        roles: what they may do.
        submit: names of functions they may submit jobs of.
        work: names of functions they may do jobs of.

    Raises:
        ConfigError: a role that an address is not enough for.
    """
    granted = frozenset(roles)
    for role in (Role.ADMIN, Role.OPERATOR):
        if role in granted:
            raise ConfigError(
                f"networks.{network}",
                f"the role {role.value} cannot be had by an address",
                "give it to a user who logs in",
            )
    return Identity(f"net:{network}", tenant, granted, NETWORK, submit, work)


class Way(NamedTuple):
    """One way to a right: all these roles, and the globs of one of them on the function's name."""

    roles: tuple[Role, ...] = ()
    globs_of: Role | None = None
    scope: Scope = Scope.TENANT


@dataclass(frozen=True, slots=True)
class Rule:
    """A line of the table: any of the ``ways`` will do.

    ``login`` is false where not even a login is needed. ``condition`` says in words what the
    engine looks at besides. ``reducer`` means that the name of the reducer must pass as well.
    """

    ways: tuple[Way, ...] = (Way(),)
    login: bool = True
    condition: str = ""
    reducer: bool = False


_OPEN: Final = Rule(login=False)
_LOGIN: Final = Rule()
_HOLDER: Final = Rule(condition="of a job that this connection holds")
_WORK: Final = Rule((Way((Role.WORK,), Role.WORK),))
_SUBMIT: Final = Rule((Way((Role.SUBMIT,), Role.SUBMIT),))
_REDUCE: Final = Rule((Way((Role.SUBMIT,), Role.SUBMIT),), reducer=True)
_ASK: Final = Rule((Way((Role.SUBMIT,)),))
_OWN: Final = Rule((Way((Role.SUBMIT,)),), condition="of a submission of this connection")
_CHANGE: Final = Rule((Way((Role.ADMIN,)),))
_START: Final = Rule((Way((Role.ADMIN, Role.SUBMIT), Role.SUBMIT),))
_OPERATE: Final = Rule((Way((Role.OPERATOR,), scope=Scope.SERVER),))
# Operators see every tenant; inside of one they change nothing unless they act for it.
_SEE: Final = Rule((Way((Role.OPERATOR,), scope=Scope.SERVER), Way((Role.ADMIN,))))

PACKET_RULES: Final[dict[str, Rule]] = {
    "ECHO_REQ": _OPEN,
    "OPTION_REQ": _OPEN,
    "SASL_START": _OPEN,
    "SASL_RESPONSE": _OPEN,
    "SASL_ABORT": _OPEN,
    "SET_CLIENT_ID": _LOGIN,
    "CANT_DO": _LOGIN,
    "RESET_ABILITIES": _LOGIN,
    "PRE_SLEEP": _LOGIN,
    "ALL_YOURS": _LOGIN,
    "GRAB_JOB": _LOGIN,
    "GRAB_JOB_UNIQ": _LOGIN,
    "GRAB_JOB_ALL": _LOGIN,
    "HEARTBEAT": _LOGIN,
    "CAN_DO": _WORK,
    "CAN_DO_TIMEOUT": _WORK,
    "WORK_STATUS": _HOLDER,
    "WORK_COMPLETE": _HOLDER,
    "WORK_FAIL": _HOLDER,
    "WORK_EXCEPTION": _HOLDER,
    "WORK_DATA": _HOLDER,
    "WORK_WARNING": _HOLDER,
    "JOB_RELEASE": _HOLDER,
    "SUBMIT_JOB": _SUBMIT,
    "SUBMIT_JOB_BG": _SUBMIT,
    "SUBMIT_JOB_HIGH": _SUBMIT,
    "SUBMIT_JOB_HIGH_BG": _SUBMIT,
    "SUBMIT_JOB_LOW": _SUBMIT,
    "SUBMIT_JOB_LOW_BG": _SUBMIT,
    "SUBMIT_JOB_SCHED": _SUBMIT,
    "SUBMIT_JOB_EPOCH": _SUBMIT,
    "SUBMIT_REDUCE_JOB": _REDUCE,
    "SUBMIT_REDUCE_JOB_BACKGROUND": _REDUCE,
    "JOB_DETACH": _OWN,
    "GET_STATUS": _ASK,
    "GET_STATUS_UNIQUE": _ASK,
    "GET_RESULT": _ASK,
}
"""The rights of packets that a peer sends to a server, by their names."""

COMMAND_RULES: Final[dict[str, Rule]] = {
    "version": _OPEN,
    "whoami": _OPEN,
    "auth": _OPEN,
    "status": _SEE,
    "prioritystatus": _SEE,
    "workers": _SEE,
    "show jobs": _SEE,
    "show unique jobs": _SEE,
    "show job": _SEE,
    "show functions": _SEE,
    "loading": _SEE,
    "jobs": _SEE,
    "clients": _SEE,
    "result": _CHANGE,
    "dead list": _CHANGE,
    "dead show": _CHANGE,
    "dead retry": _CHANGE,
    "dead delete": _CHANGE,
    "schedule list": _CHANGE,
    "schedule show": _CHANGE,
    "schedule add": _START,
    "schedule run": _START,
    "schedule pause": _CHANGE,
    "schedule resume": _CHANGE,
    "schedule remove": _CHANGE,
    "maxqueue": _CHANGE,
    "create function": _CHANGE,
    "drop function": _CHANGE,
    "drop result": _CHANGE,
    "cancel job": _CHANGE,
    "requeue": _CHANGE,
    "priority": _CHANGE,
    "functions": _SEE,
    "tenants": _SEE,
    "pause": _CHANGE,
    "resume": _CHANGE,
    "set": _CHANGE,
    "reset": _CHANGE,
    "shutdown": _OPERATE,
    "getpid": _OPERATE,
    "verbose": _OPERATE,
    "reload": _OPERATE,
    "sessions": _SEE,
    "session end": _SEE,
    "tenant": _OPERATE,
    "drain": _OPERATE,
    "metrics": _OPERATE,
}
"""The rights of text commands, and of what else a server can be asked for, by their names."""

SHORT_NAMES: Final = {"submit": "SUBMIT_JOB", "work": "CAN_DO"}
"""What people call an action when they ask about it."""


def rule_of(action: str) -> Rule | None:
    """The line of a packet name or a text command; None: it is refused to everybody."""
    return PACKET_RULES.get(action) or COMMAND_RULES.get(action)


def way_to(
    identity: Identity | None,
    action: str,
    function: bytes | None = None,
    reducer: bytes | None = None,
) -> Way | None:
    """The first way by which somebody may do something, or None.

    Args:
        identity: who; None before a login.
        action: a packet name or a text command.
        function: the function's name; where globs decide, None is refused.
        reducer: the reducer's name, where the action has one; None is refused.
    """
    rule = rule_of(action)
    if rule is None:
        return None
    if not rule.login:
        return rule.ways[0]
    if identity is None:
        return None
    for way in rule.ways:
        if not identity.roles.issuperset(way.roles):
            continue
        if way.globs_of is None:
            return way
        matches = identity.globs(way.globs_of)
        names = (function, reducer) if rule.reducer else (function,)
        if all(name is not None and matches(name) for name in names):
            return way
    return None


def allowed(
    identity: Identity | None,
    action: str,
    function: bytes | None = None,
    reducer: bytes | None = None,
) -> bool:
    """Whether somebody may do something. Arguments as for :func:`way_to`."""
    return way_to(identity, action, function, reducer) is not None


class Rights:
    """The table as it stands for one identity, compiled at login.

    ``packets`` and ``commands`` map what is allowed to a matcher for the function's name: what is
    missing there is refused whatever the function. Where a request has a reducer, its name goes
    through the same matcher.
    """

    __slots__ = ("commands", "packets")

    def __init__(self, identity: Identity | None) -> None:
        self.packets = {
            number: matcher
            for number, row in (*PACKETS.items(), *EXTENSIONS.items())
            if (matcher := _compiled(identity, PACKET_RULES.get(row.name))) is not None
        }
        self.commands = {
            name: matcher
            for name, rule in COMMAND_RULES.items()
            if (matcher := _compiled(identity, rule)) is not None
        }


def _compiled(identity: Identity | None, rule: Rule | None) -> Matcher | None:
    if rule is None:
        return None
    if not rule.login:
        return EVERY
    if identity is None:
        return None
    for way in rule.ways:
        if identity.roles.issuperset(way.roles):
            return EVERY if way.globs_of is None else identity.globs(way.globs_of)
    return None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether something is allowed, and the line of the table, the roles and globs that say so."""

    allowed: bool
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return ("allowed: " if self.allowed else "refused: ") + "; ".join(self.reasons)


def explain(
    identity: Identity | None,
    action: str,
    function: bytes | None = None,
    reducer: bytes | None = None,
) -> Explanation:
    """Say which rule decides, in words for people. Arguments as for :func:`way_to`; the action
    may also be `submit` or `work`, and packet names may be written in small letters."""
    name = action if rule_of(action) is not None else SHORT_NAMES.get(action, action.upper())
    rule = rule_of(name)
    if rule is None:
        return Explanation(False, (f"{action!r} is no request, and what is none is refused",))
    if not rule.login:
        return Explanation(True, (f"{name} needs no login",))
    if identity is None:
        return Explanation(False, (f"{name} needs a login",))
    who = identity.principal
    way = way_to(identity, name, function, reducer)
    if way is None:
        return Explanation(
            False,
            tuple(_lacks(identity, name, way, function, reducer) for way in rule.ways),
        )
    reasons = [f"{name} needs {_needs(way)}"]
    if way.roles:
        reasons.append(f"{who} has it")
    if way.globs_of is not None:
        matcher = identity.globs(way.globs_of)
        reasons += [
            f"{way.globs_of.value} glob {matcher.which(named)!r} matches {printable(named)!r}"
            for named in (function, reducer if rule.reducer else None)
            if named is not None
        ]
    if rule.condition:
        reasons.append(f"only {rule.condition}")
    elif way.roles:
        reasons.append(f"reaches the {way.scope.value}")
    return Explanation(True, tuple(reasons))


def _needs(way: Way) -> str:
    if not way.roles:
        return "any login"
    roles = " and ".join(role.value for role in way.roles)
    return f"role{'s' if len(way.roles) > 1 else ''} {roles}"


def _lacks(
    identity: Identity,
    action: str,
    way: Way,
    function: bytes | None,
    reducer: bytes | None,
) -> str:
    """What one way asks for that this identity does not have."""
    who = identity.principal
    missing = [role.value for role in way.roles if role not in identity.roles]
    if missing:
        has = ", ".join(identity.role_names) or "none"
        return f"{action} needs {_needs(way)}, and {who} has {has}"
    assert way.globs_of is not None  # else the way would be open
    role, matches = way.globs_of.value, identity.globs(way.globs_of)
    what, name = next(
        (what, name)
        for what, name in (("function", function), ("reducer", reducer))
        if name is None or not matches(name)
    )
    if name is None:
        return f"{action} depends on the {what}, and none is named"
    globs = ", ".join(repr(glob) for glob in matches.globs) or "none"
    return f"no {role} glob of {who} matches the {what} {printable(name)!r}: {globs}"
