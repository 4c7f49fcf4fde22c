"""A connection of a server that asks who is there.

What such a connection may say is nothing but the rows of the packet table in force. Before a login
these are the few packets that lead to one; a login compiles the rights of the user into rows of
their own: a packet that is allowed whatever the function goes straight to its handler, one that
depends on the function passes a matcher first, and one that is not allowed has a handler that says
so. Servers that ask nobody have other sessions, and pay for none of this.

Refusals. What is said before a login is the business of :mod:`trigear.engine.entering`. Whoever is
logged in and asks for too much hears ERROR where a reply is due; plain workers hear nothing,
because an ERROR without a question sets them out of step for good.
"""

from __future__ import annotations

import base64
import logging
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from trigear.broker.broker import OverQuota
from trigear.broker.peers import Peer
from trigear.engine.doors import Way
from trigear.engine.entering import EnteringSession
from trigear.engine.guarded_rows import expired_rows, open_rows, rows_of
from trigear.engine.refusals import DENIED
from trigear.engine.scheduler import Refusal as NoSchedule
from trigear.engine.session import About
from trigear.engine.views import View
from trigear.model import CloseReason
from trigear.protocol import auth
from trigear.protocol.auth import Refusal
from trigear.security import mechs
from trigear.security.policy import EVERY, NETWORK, Identity, Rights, Role
from trigear.wire import commands
from trigear.wire.codec import response
from trigear.wire.packets import (
    LOGIN_OPTION,
    OPTION_RES,
    PACKETS,
    SASL_EXPIRING,
    SASL_MECHANISMS,
    SASL_OK,
    TENANT_OPTION,
    Packet,
)

if TYPE_CHECKING:
    from trigear.engine.doors import Arrival
    from trigear.engine.engine import Engine
    from trigear.engine.logins import Logins
    from trigear.model import Now
    from trigear.security.mechs import Channel
    from trigear.security.users import Changes, Users

log: Final = logging.getLogger("trigear.engine")

GRACE: Final = 60.0
"""Seconds in which a worker whose login has run out may finish the jobs it holds."""

MOST_NAME: Final = 64
"""Bytes of what a connection calls itself."""

MOST_ECHO: Final = 1024
"""Bytes of an ECHO_REQ before a login."""

EXPIRING_AT: Final = 0.8
"""The part of a login's time after which the peer is told that it ends."""

UNKNOWN_TENANT: Final = ("UNKNOWN_TENANT", "No such tenant")
AT_WORK: Final = ("CONNECTION_IN_USE", "The connection is at work for a tenant")
ENDED: Final = Refusal("SESSION_ENDED", "Ended by an operator", True)

_WITHOUT_PASSWORD: Final = ("mtls", "peer", mechs.EXTERNAL)
"""How somebody may be known whom a new password does not concern."""


class GuardedSession(EnteringSession):
    """The engine's end of a connection whose peer has to say who it is.

    Args:
        engine: the server.
        logins: how peers become known.
        number: see :class:`Session`.
        address: see :class:`Session`.
        channel: what is known of the connection without asking.
        arrival: how it came, and when.
    """

    __slots__ = ("_acting", "_ends", "_in_force", "_rights")

    def __init__(
        self,
        engine: Engine,
        logins: Logins,
        number: int,
        address: str,
        channel: Channel,
        arrival: Arrival,
    ) -> None:
        super().__init__(engine, logins, number, address, channel, arrival)
        self._ends: list[list[Any]] = []
        self._rights = Rights(None)
        self._acting: str | None = None
        """The tenant that an operator acts for."""
        known = logins.implicit(channel, arrival.door, engine.now)
        if known is None:
            waited = engine.now.monotonic - arrival.since
            self._after(max(0.0, logins.deadline - waited), self._too_late)
        elif self._has_room(known):
            self._login.known()
            self._become(known)

    @property
    def oversees(self) -> bool:
        return self.view.whole

    def facts(self) -> dict[str, object]:
        identity, channel = self.identity, self._channel
        facts = super().facts() | {
            "listener": channel.listener,
            "tls": channel.version,
            "cipher": channel.cipher,
        }
        if channel.certificate is not None:
            facts["certificate"] = _fingerprint(channel.certificate)
        if identity is not None:
            facts["identity"] = identity.principal
            if identity.method != NETWORK:
                facts["authcid"] = identity.authcid or _user_of(identity)
            facts["method"] = identity.method
        return facts

    # Who it is

    def _has_room(self, identity: Identity) -> bool:
        """Whether its tenant may have another connection, which is charged then; refuses it if
        not."""
        tenant = self._engine.broker.tenant(self._acting or identity.tenant)
        allowance = tenant.allowance
        if allowance is None or self.peer.tenant is tenant:
            return True
        if Role.OPERATOR in identity.roles:
            # Somebody must be able to see to it that there are fewer.
            allowance.connections += 1
            return True
        try:
            allowance.connect()
        except OverQuota as error:
            log.warning(
                "%r: tenant %s is over its quota %s, a login of %s is refused",
                self,
                identity.tenant,
                error.quota,
                identity.principal,
            )
            self.note(
                "quota.exceeded",
                quota=error.quota,
                reason="a login is refused",
                identity=identity.principal,
                tenant=tenant.name,
                method=identity.method,
            )
            self._refuse(self._login.close(auth.CROWDED))
            return False
        return True

    def _become(self, identity: Identity) -> None:
        """The one place where a connection gets an identity."""
        engine = self._engine
        self._arrival.over()
        self.identity = identity
        # From nobody's, or from a network's where nothing was done yet: what one user did never
        # becomes somebody else's.
        self._sit_in(self._acting or identity.tenant)
        self.decoder.max_packet = engine.config.max_packet
        self.limit_packets()
        self._take_rights()
        self._forget_timers()
        self._mind_the_end()
        self._set_rows()
        log.info("%r is %s by %s", self, identity.principal, identity.method)
        self.note("auth.ok", roles=identity.role_names)

    def _sit_in(self, tenant: str) -> None:
        """Belong to a tenant. Only while nothing of the connection is in another."""
        if self.peer.tenant.name != tenant:
            if (allowance := self.peer.tenant.allowance) is not None:
                allowance.connections -= 1
            self.peer = Peer(self._engine.broker.tenant(tenant), self)
            self.seat = self._engine.seat(tenant)

    def _take_rights(self) -> None:
        """Take the rights of the identity, and of the tenant that it acts for."""
        identity = self.identity
        assert identity is not None
        if self._acting is not None:
            roles = identity.roles | {Role.ADMIN}
            identity = replace(identity, tenant=self._acting, roles=roles)
        self._in_force = identity
        self._rights = Rights(identity)

    @property
    def view(self) -> View:
        identity = self.identity
        whole = identity is not None and Role.OPERATOR in identity.roles and self._acting is None
        return View(self._engine, None if whole else self.peer.tenant)

    def about(self) -> About:
        identity, tls = self.identity, self._channel.version
        if identity is None:
            return About(tls=tls)
        roles = self._in_force.role_names
        return About(identity.principal, roles, identity.method, tls, identity.expires_at)

    def act_for(self, tenant: str | None) -> tuple[str, str] | None:
        identity = self.identity
        if identity is None or Role.OPERATOR not in identity.roles:
            return DENIED
        if tenant is not None and not self._engine.knows_tenant(tenant):
            return UNKNOWN_TENANT
        if tenant == self._acting:
            return None
        if not self._idle:
            return AT_WORK
        self._acting = tenant
        before = self.peer
        self._sit_in(tenant or identity.tenant)
        if self.peer is not before and (allowance := self.peer.tenant.allowance) is not None:
            # An operator is let in however many there are, to see to it that there are fewer.
            allowance.connections += 1
        self.limit_packets()
        self._take_rights()
        self._set_rows()
        log.info("%r: %s acts for %s", self, identity.principal, tenant or "no tenant")
        self.note("auth.acting", acting=tenant is not None)
        return None

    def dismiss(self) -> None:
        self._say(self._login.close(ENDED))
        super().dismiss()

    def renew(self, users: Users, changes: Changes) -> bool:
        """There are other users now; returns whether that ends the connection."""
        identity = self.identity
        if identity is None or identity.method == NETWORK:
            return False
        fresh = self._renewed(identity, users, changes)
        if fresh is None or (self._acting is not None and Role.OPERATOR not in fresh.roles):
            self._grace_over(self._engine.now)
            return True
        if fresh != identity:
            self.identity = fresh
            self._take_rights()
            self._mind_the_end()
            self._set_rows()
            self._drop_abilities(fresh)
        return False

    def _renewed(self, identity: Identity, users: Users, changes: Changes) -> Identity | None:
        """What an identity is now that there are other users; None: nobody's any more."""
        now = self._engine.now
        name = _user_of(identity)
        proven = identity.authcid or name
        if {name, proven} & changes.gone:
            return None
        by_password = identity.method not in _WITHOUT_PASSWORD
        if by_password and self._logins.drop_on_password_change and proven in changes.passwords:
            return None
        who, user = users.get(proven), users.get(name)
        if who is None or user is None or not (who.in_force(now.wall) and user.in_force(now.wall)):
            return None
        if who is not user and users.acting_as(who, name, now.wall) is not user:
            return None
        if not by_password and changes.marks:
            known = self._logins.authenticator.by_channel(self._channel, now)
            if known is not who:
                return None
        return user.identity(identity.method, identity.until, identity.authcid)

    def _drop_abilities(self, identity: Identity) -> None:
        """Jobs that a worker may not do any more go to others; it keeps those that it holds."""
        for function in list(self.peer.abilities):
            if Role.WORK not in identity.roles or not identity.work(function.name):
                self._broker.cant_do(self.peer, function.name, self._engine.now)

    def extend(self) -> None:
        self._extended = True
        self._set_rows()

    def _set_rows(self) -> None:
        # The checker takes the hash of the instances for that of the class.
        kind: Any = type(self)
        identity = self.identity
        if identity is None:
            self.decoder.rows = self.rows
        elif self._login.expired:
            self.decoder.rows = expired_rows(kind, self._extended)
        else:
            self.decoder.rows = rows_of(
                kind, self._in_force.roles, identity.submit, identity.work, self._extended
            )
        if self._decoding and not self.holding:
            # What follows in the same piece is to be heard with these.
            self.end_turn()

    # Time

    def _mind_the_end(self) -> None:
        """Have the end of the login announced and come about, if it has one."""
        for timer in self._ends:
            self._logins.timers.cancel(timer)
            self._timers.remove(timer)
        self._ends.clear()
        identity = self.identity
        if identity is not None and identity.expires_at is not None and not self._login.expired:
            left = max(0.0, identity.expires_at - self._engine.now.wall)
            self._ends.append(self._after(left * EXPIRING_AT, self._expiring))
            self._ends.append(self._after(left, self._expire))

    def _forget_timers(self) -> None:
        self._ends.clear()
        super()._forget_timers()

    def _expiring(self, now: Now) -> None:
        if self._extended and self.identity is not None:
            ends = self.identity.expires_at or now.wall
            self.send(response(SASL_EXPIRING, b"%d" % max(0, round((ends - now.wall) * 1000))))

    def _expire(self, now: Now) -> None:
        self.note("auth.expired", jobs=len(self.peer.jobs))
        self._login.expire()
        if self.peer.jobs:
            self._set_rows()
            self._after(GRACE, self._grace_over)
        else:
            self._grace_over(now)

    def _grace_over(self, now: Now) -> None:
        self._say(self._login.close(auth.EXPIRED))
        self.close(CloseReason.NOT_LOGGED_IN)

    def denied(self, packet: Packet) -> None:
        """The user may not do what this packet asks for."""
        self.note("acl.denied", packet=packet.name)
        self._in_text = False
        if packet.replies or self._extended:
            self._say(auth.DENIED)
        else:
            self._engine.ignored(self, f"{packet.name}, which this user may not send")

    # Packets

    def on_set_client_id(self, name: bytes) -> None:
        super().on_set_client_id(name[:MOST_NAME])

    def on_echo_req(self, data: bytes) -> None:
        self._in_text = False
        if self._goes(needs_login=len(data) > MOST_ECHO):
            super().on_echo_req(data)

    def on_option_req(self, option: bytes) -> None:
        self._in_text = False
        if not self._goes():
            return
        if option.startswith(TENANT_OPTION):
            self._on_tenant(option)
            return
        if option.lower() != LOGIN_OPTION or Way.SASL not in self._ways:
            super().on_option_req(option)
            return
        self._login.asked = True
        self.extend()
        self.send(response(OPTION_RES, option))
        authenticator, channel = self._logins.authenticator, self._channel
        names = authenticator.offered(channel, self._engine.now)
        types = authenticator.binding_types(channel)
        who = "" if self.identity is None else self.identity.principal
        fields = (" ".join(names), " ".join(types), "1", who)
        self.send(response(SASL_MECHANISMS, *(field.encode() for field in fields)))

    def on_large_submission(self, number: int) -> None:
        if self._rights.packets.get(number) is None:
            self.denied(PACKETS[number])
        else:
            super().on_large_submission(number)

    def _on_tenant(self, option: bytes) -> None:
        if not self._goes(needs_login=True):
            return
        tenant = option.removeprefix(TENANT_OPTION).decode("utf-8", "replace")
        refusal = self.act_for(tenant or None)
        if refusal is None:
            self.send(response(OPTION_RES, option))
        else:
            self.send_error(*refusal)

    def on_unknown_type(self, number: int) -> None:
        self._in_text = False
        if self._goes(needs_login=True):
            super().on_unknown_type(number)

    def on_wrong_magic(self, number: int) -> None:
        self._in_text = False
        if self._goes(needs_login=True):
            super().on_wrong_magic(number)

    def _succeed(self, done: mechs.Done) -> None:
        new, old = done.identity, self.identity
        # Other users may have come while passwords were being checked.
        user = self._logins.authenticator.users.get(_user_of(new))
        if user is None or not user.in_force(self._engine.now.wall):
            self._fail(auth.FAILED, "the user is not there any more")
            return
        self._exchange = None
        new = user.identity(new.method, new.until, new.authcid)
        same = (
            old is None
            or (old.principal, old.tenant) == (new.principal, new.tenant)
            or (old.method == NETWORK and self._clean)
        )
        if self._acting is not None and Role.OPERATOR not in new.roles:
            same = False
        refusal = self._login.succeeded(same=same)
        if refusal is not None:
            log.warning("%r: cannot become %s", self, new.principal)
            self.note("auth.fail", reason=f"cannot become {new.principal}", method=new.method)
            self._refuse_late(refusal)
            return
        if not self._has_room(new):
            return
        self._become(new)
        if self._in_text:
            proof = b" " + base64.b64encode(done.data) if done.data else b""
            who = self.whoami().rpartition(b" ")[0]
            self.send(b"OK %s%s\r\n" % (who, proof))
            return
        left = 0
        if new.expires_at is not None:
            left = max(1, round((new.expires_at - self._engine.now.wall) * 1000))
        fields = (new.principal, new.tenant, ",".join(new.role_names), str(left))
        self.send(response(SASL_OK, *(field.encode() for field in fields), done.data))

    @property
    def _clean(self) -> bool:
        """Whether nothing was done here by which the connection is somebody's."""
        return self._idle and self.name == b"-"

    @property
    def _idle(self) -> bool:
        """Whether nothing was begun here that belongs to a tenant."""
        peer = self.peer
        at_work = peer.abilities or peer.jobs or peer.waiting or peer.ghosts or peer.choked
        return not (self.used or at_work)

    # Text

    def on_command(self, line: bytes) -> None:
        self._in_text = True
        if self._login.in_exchange:
            self._continue(line)
            return
        words = commands.words_of(line)
        first = words[0].lower()
        if first == b"auth" and Way.SASL in self._ways:
            self._on_auth(words[1:])
            return
        command = commands.find(words)
        name = "" if command is None else command.name
        opened = name in ("whoami", "version")
        if not self._goes(needs_login=not opened):
            return
        if command is None or opened or self._may(name, words[len(command.words) :]):
            super().on_command(line)
        else:
            self.note("acl.denied", command=name)
            self._say(auth.DENIED)

    def _may(self, name: str, args: list[bytes]) -> bool:
        matcher = self._rights.commands.get(name)
        if matcher is None or matcher == EVERY or not args:
            return matcher is not None
        if name != "schedule run":
            return matcher(args[0])
        try:
            schedule = self._engine.scheduler.named(self.peer.tenant.name, args[0])
        except NoSchedule:
            return True  # it runs nothing, and the answer says why
        return matcher(schedule.function)


def _user_of(identity: Identity) -> str:
    """The name of the user who somebody is."""
    return identity.principal.rpartition("/")[2]


@lru_cache(maxsize=1024)
def _fingerprint(certificate: bytes) -> str:
    return f"sha256:{sha256(certificate).hexdigest()}"


GuardedSession.rows = open_rows(GuardedSession)
