"""The ways into a server: who may come where, how they become known, and how many may wait to be.

A *door* is what holds at one address that the server listens at. An *arrival* is a connection from
the moment it is accepted until its peer is known or gone; how many of them there may be is bounded,
in all and per address, because whoever has not said who it is can be told apart by nothing else.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from trigear.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from trigear.model import Now
    from trigear.security.policy import Identity

MOST_UNKNOWN: Final = 256
"""Connections of one listener whose peers are not known yet."""

MOST_UNKNOWN_PER_ADDRESS: Final = 64
"""Those of them that come from one address."""

COMES_BACK: Final = 10.0
"""Seconds within which whoever connects again is one who comes back."""

MOST_REMEMBERED: Final = 4096
"""Addresses of which it is known that somebody was turned away."""

LOOPBACK: Final = ("127.0.0.0/8", "::1/128")

Network = IPv4Network | IPv6Network


class Way(enum.Enum):
    """How a server comes to know who its peers are."""

    SASL = "sasl"
    MTLS = "mtls"
    PEER = "peer"
    NETWORK = "network"


def network_of(text: str, setting: str) -> Network:
    """A network as it is written, `10.0.0.0/8` or `::1`.

    Raises:
        ConfigError: it is none; ``setting`` says where that stands.
    """
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigError(setting, f"{text!r} is no network", "write 10.0.0.0/8 or ::1") from error


class Networks:
    """Networks, and what goes with each.

    Args:
        values: by network as it is written.

    Raises:
        ConfigError: one is no network, or is there twice.
    """

    def __init__(self, values: Mapping[str, Identity] | None = None) -> None:
        self._found: dict[Network, Identity] = {}
        for text, value in (values or {}).items():
            network = network_of(text, f"networks.{text}")
            if network in self._found:
                raise ConfigError(
                    f"networks.{text}", f"{network} is there already", "take one of them out"
                )
            self._found[network] = value
        # The longest prefix first: the narrowest network is the one that is meant.
        self._order = sorted(self._found, key=lambda network: -network.prefixlen)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Networks) and self._found == other._found

    def __hash__(self) -> int:
        return hash(frozenset(self._found))

    def __bool__(self) -> bool:
        return bool(self._found)

    def items(self) -> list[tuple[str, Identity]]:
        """The networks and who comes from them, the narrowest first."""
        return [(str(network), self._found[network]) for network in self._order]

    @property
    def tenants(self) -> set[str]:
        """The tenants of those who come from somewhere."""
        return {identity.tenant for identity in self._found.values()}

    def find(self, address: str) -> Identity | None:
        """Who somebody at this address is; None: nobody knows it."""
        network = _within(address, self._order)
        return None if network is None else self._found[network]


def _within(address: str, networks: Iterable[Network]) -> Network | None:
    """The first of the networks that an address is in."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return None  # of a Unix socket
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return next((network for network in networks if ip in network), None)


@dataclass(frozen=True, slots=True)
class Door:
    """What holds for those who connect at one address.

    Args:
        ways: how they may become known.
        networks: who they are by their own address, where that is one of the ways.
        open: whether nobody is asked, and everybody may do everything in the tenant `default`.
    """

    ways: frozenset[Way] = frozenset()
    networks: Networks = field(default_factory=Networks)
    open: bool = False

    def without(self, way: Way) -> Door:
        """The same door, where this way does not lead in."""
        return self if way not in self.ways else Door(self.ways - {way}, open=self.open)

    def admits(self, address: str) -> bool:
        """Whether somebody at this address may come in at all."""
        return Way.NETWORK not in self.ways or self.networks.find(address) is not None


class Arrival:
    """A connection whose peer may still have to become known.

    ``since`` is when it was accepted, by the monotonic clock.
    """

    __slots__ = ("_arrivals", "address", "door", "since")

    def __init__(self, door: Door, address: str, since: float, arrivals: Arrivals | None) -> None:
        self.door = door
        self.address = address
        self.since = since
        self._arrivals = arrivals

    def over(self) -> None:
        """Its peer is known, or gone. Any number of times."""
        arrivals, self._arrivals = self._arrivals, None
        if arrivals is not None:
            arrivals.leave(self)


class Arrivals:
    """The connections of one listener whose peers are not known yet.

    Args:
        door: what holds for them.
        most: how many there may be; 0: any number.
        most_per_address: how many from one address; 0: any number.
        exempt: networks to which the bound per address does not apply. Nor does it apply to Unix
            sockets, which have no addresses.
    """

    def __init__(
        self,
        door: Door,
        most: int = MOST_UNKNOWN,
        most_per_address: int = MOST_UNKNOWN_PER_ADDRESS,
        exempt: Iterable[str] = LOOPBACK,
    ) -> None:
        self.door = door
        self.most = most
        self._most_per_address = most_per_address
        self._exempt = [network_of(text, "limit-exempt") for text in exempt]
        self._count = 0
        self._by_address: dict[str, int] = {}
        self.on_leave: Callable[[], object] | None = None
        """Called once, when there is room again."""

    def __len__(self) -> int:
        return self._count

    @property
    def full(self) -> bool:
        """Whether there is no room for another one."""
        return 0 < self.most <= self._count

    def exempts(self, address: str) -> bool:
        """Whether the bounds per address do not apply to this one."""
        return address == "-" or _within(address, self._exempt) is not None

    def come(self, address: str, now: Now) -> Arrival | None:
        """A connection was accepted; None: there are too many from its address."""
        if self.door.open:
            return Arrival(self.door, address, now.monotonic, None)
        there = self._by_address.get(address, 0)
        if 0 < self._most_per_address <= there and not self.exempts(address):
            return None
        self._by_address[address] = there + 1
        self._count += 1
        return Arrival(self.door, address, now.monotonic, self)

    def leave(self, arrival: Arrival) -> None:
        """One of them is known, or gone."""
        self._count -= 1
        left = self._by_address[arrival.address] - 1
        if left:
            self._by_address[arrival.address] = left
        else:
            del self._by_address[arrival.address]
        told, self.on_leave = self.on_leave, None
        if told is not None:
            told()


class TurnedAway:
    """Addresses from which somebody was turned away a moment ago."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def again(self, address: str, now: Now) -> bool:
        """Somebody at this address is turned away; returns whether somebody was before."""
        last = self._last.pop(address, None)
        self._last[address] = now.monotonic
        if len(self._last) > MOST_REMEMBERED:
            # The one that was longest ago.
            del self._last[next(iter(self._last))]
        return last is not None and now.monotonic - last < COMES_BACK
