"""Guessing passwords made slow: failures are counted by where they come from.

Two counts. One per address prefix, whatever names are tried: a bucket of failures that refills
slowly. One per name *and* prefix: after a few failures each further try has to wait, longer each
time. There is none per name alone: with that, anybody could shut a user out.

Both counts are of failures, so that two thousand workers behind one address log in unhindered.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from trigear.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

BUCKET: Final = 10
"""Failures of one prefix that are free."""

REFILL: Final = 6.0
"""Seconds after which one more is."""

FREE: Final = 5
"""Failures of one name from one prefix after which the next try comes at once."""

MOST_DELAY: Final = 30.0
"""Seconds that the next try waits at most."""

REMEMBERED: Final = 10_000
"""Prefixes, and pairs of name and prefix, that are kept; the longest unused go first."""

IPV6_PREFIX: Final = 64
"""Bits that one subscriber has to choose addresses from."""

LOOPBACK: Final = ("127.0.0.0/8", "::1")

Value = TypeVar("Value")


class _Memory(Generic[Value]):
    """What is known of the most recently used keys."""

    def __init__(self, limit: int, new: Callable[[], Value]) -> None:
        self._limit = limit
        self._new = new
        self._known: OrderedDict[Hashable, Value] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        return self._known.get(key)

    def touch(self, key: Hashable) -> Value:
        """What is known of a key, as the last to be forgotten."""
        value = self._known.setdefault(key, self._new())
        self._known.move_to_end(key)
        if len(self._known) > self._limit:
            self._known.popitem(last=False)
        return value

    def forget(self, key: Hashable) -> None:
        self._known.pop(key, None)

    def __len__(self) -> int:
        return len(self._known)


class _Bucket:
    """Failures that a prefix has left, at some moment. Below zero if more failed than may: tries
    that were under way together."""

    __slots__ = ("at", "left")

    def __init__(self) -> None:
        self.left = float(BUCKET)
        self.at = float("-inf")

    def refill(self, now: float) -> None:
        # The first time `at` is before all times, and the bucket is full.
        self.left = min(float(BUCKET), self.left + max(0.0, now - self.at) / REFILL)
        self.at = max(self.at, now)


class _Failures:
    """Failures of a name from a prefix, and when the last was."""

    __slots__ = ("at", "count")

    def __init__(self) -> None:
        self.count = 0
        self.at = 0.0


class Throttle:
    """Counts failed logins and says who has to wait.

    Args:
        exempt: addresses and networks that never wait. Peers without an address, on Unix sockets,
            are among them if `unix` is.
        remembered: how many prefixes and pairs are kept.

    Raises:
        ConfigError: something in ``exempt`` is no network.
    """

    def __init__(
        self, exempt: Iterable[str] = (*LOOPBACK, "unix"), remembered: int = REMEMBERED
    ) -> None:
        entries = set(exempt)
        self._unix_exempt = "unix" in entries
        try:
            self._exempt = [ip_network(entry, strict=False) for entry in entries - {"unix"}]
        except ValueError as error:
            raise ConfigError(
                "limit_exempt", str(error), "write 10.0.0.0/8, ::1 or unix"
            ) from error
        self._buckets = _Memory(remembered, _Bucket)
        self._pairs = _Memory(remembered, _Failures)

    def wait(self, address: str, user: str, now: float) -> float:
        """Seconds until a login of this name from this address may be tried; 0: now.

        Ask right before a password is checked, and before anything is computed for it.

        Args:
            address: of the peer; what is no IP address counts as a Unix socket.
            user: the name, whether anybody has it or not.
            now: seconds on a clock that never goes back.
        """
        prefix = self._prefix(address)
        if prefix is None:
            return 0.0
        wait = 0.0
        bucket = self._buckets.get(prefix)
        if bucket is not None:
            bucket.refill(now)
            wait = max(0.0, (1.0 - bucket.left) * REFILL)
        failures = self._pairs.get(_pair(prefix, user))
        if failures is not None:
            wait = max(wait, failures.at + _delay(failures.count) - now)
        return wait

    def failed(self, address: str, user: str, now: float) -> None:
        """A login of this name from this address did not succeed. Arguments as for :meth:`wait`;
        the name may be empty where none was given."""
        prefix = self._prefix(address)
        if prefix is None:
            return
        bucket = self._buckets.touch(prefix)
        bucket.refill(now)
        bucket.left -= 1.0
        failures = self._pairs.touch(_pair(prefix, user))
        failures.count += 1
        failures.at = now

    def succeeded(self, address: str, user: str) -> None:
        """A login of this name from this address did succeed: its failures are forgotten. Those of
        the prefix stay, else somebody with one password could try others without end."""
        self._pairs.forget(_pair(self._prefix(address), user))

    def __len__(self) -> int:
        """Entries that are kept."""
        return len(self._buckets) + len(self._pairs)

    def _prefix(self, address: str) -> Hashable:
        """What counts as one place; None: it never waits."""
        try:
            # A zone after % names a link of ours, not another peer.
            where: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
        except ValueError:
            return None if self._unix_exempt else "unix"
        if isinstance(where, IPv6Address):
            where = where.ipv4_mapped or where
        if any(where in network for network in self._exempt):
            return None
        if isinstance(where, IPv6Address):
            return IPv6Network((where, IPV6_PREFIX), strict=False)
        return where


def _pair(prefix: Hashable, user: str) -> Hashable:
    """No name that somebody has is longer, and longer ones may not fill the memory."""
    return prefix, user[:64]


def _delay(count: int) -> float:
    """Seconds after the last of so many failures until the next try."""
    if count < FREE:
        return 0.0
    return min(MOST_DELAY, float(1 << min(count - FREE, 10)))
