"""Results in memcached: `trigear server --results memcached://127.0.0.1:11211`.

A package of somebody else's, as far as trigear knows: it is found by its entry point. memcached
forgets what it has no room for, and all of it when it stops; who needs results for sure keeps them
somewhere else.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError

from trigear.errors import ConfigError, StoreUnavailable
from trigear.stores.results import DONE, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trigear.stores.results import Result

LARGEST = 1000 * 1000
"""Bytes: memcached takes no more than a MiB at a time unless told otherwise."""


def key_of(kind: str, *parts: str | bytes) -> str:
    """A name without blanks that is short enough for memcached."""
    names = [part.encode() if isinstance(part, str) else part for part in parts]
    return f"trigear:{kind}:{hashlib.sha256(repr(names).encode()).hexdigest()}"


class MemcachedResults:
    """Results under the hash of tenant and handle; under that of tenant, function and unique, the
    name of the newest success."""

    def __init__(self, server: tuple[str, int] | str) -> None:
        self._server = server
        self._client = Client(server, connect_timeout=2, timeout=2, no_delay=True)

    @property
    def name(self) -> str:
        place = self._server
        return f"memcached {place if isinstance(place, str) else f'{place[0]}:{place[1]}'}"

    def open(self) -> None:
        pass  # it connects when it has something to say

    def put(self, results: Sequence[Result]) -> None:
        try:
            for result in results:
                packed = pack(result)
                if len(packed) > LARGEST:
                    packed = pack(result._replace(data=None))
                place = key_of("result", result.tenant, result.handle)
                until = math.ceil(result.expires)
                self._client.set(place, packed, expire=until, noreply=False)
                if result.unique and result.state == DONE:
                    unique = key_of("unique", result.tenant, result.function, result.unique)
                    self._client.set(unique, place.encode(), expire=until, noreply=False)
        except (OSError, MemcacheError) as error:
            raise StoreUnavailable(f"{self.name}: {error}") from error

    def get(self, keys: Sequence[tuple[str, bytes]]) -> Sequence[Result]:
        return self._read(key_of("result", *key) for key in keys)

    def find(self, keys: Sequence[tuple[str, bytes, bytes]]) -> Sequence[Result]:
        try:
            places = self._client.get_many([key_of("unique", *key) for key in keys])
        except (OSError, MemcacheError) as error:
            raise StoreUnavailable(f"{self.name}: {error}") from error
        return self._read(place.decode() for place in places.values())

    def _read(self, places: Iterable[str]) -> Sequence[Result]:
        try:
            found = self._client.get_many(list(places))
            return [unpack(packed) for packed in found.values()]
        except (OSError, MemcacheError, ValueError) as error:
            raise StoreUnavailable(f"{self.name}: {error}") from error

    def delete(self, keys: Sequence[tuple[str, bytes]]) -> None:
        try:
            for key in keys:
                self._client.delete(key_of("result", *key), noreply=False)
        except (OSError, MemcacheError) as error:
            raise StoreUnavailable(f"{self.name}: {error}") from error

    def close(self) -> None:
        self._client.close()


def results(url: str) -> MemcachedResults:
    """What the entry point names: `memcached://HOST[:PORT]` or `memcached:///PATH/TO/SOCKET`."""
    parts = urlsplit(url)
    if parts.hostname:
        return MemcachedResults((parts.hostname, parts.port or 11211))
    if parts.path:
        return MemcachedResults(f"unix:{parts.path}")
    raise ConfigError("results", f"'{url}' names no memcached", "write memcached://HOST:PORT")
