"""Where a server is: the one notation for addresses, for those who connect and those who listen.

====================== ==============================================
`HOST`                 a name or an address, on the default port
`HOST:PORT`
`IPV6`, `[IPV6]:PORT`  brackets only where a port follows, or to please
`gearman://HOST:PORT`  the same as a URL; the port may be missing
`gearmans://HOST:PORT` the same, with TLS
`unix:PATH`            a Unix socket
====================== ==============================================

Nothing here asks the network or the file system.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from trigear.errors import ConfigError
from trigear.model import DEFAULT_PORT

_FORMS: Final = (
    "write HOST, HOST:PORT, [IPV6]:PORT, gearman://HOST:PORT, gearmans://HOST:PORT or unix:PATH"
)

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)

_UNIX_PATH_LIMIT: Final = 107
"""Bytes that the operating system keeps for the path of a Unix socket, without its NUL."""


@dataclass(frozen=True, slots=True)
class Address:
    """A place to connect to or to listen at: TCP ``host`` and ``port``, or a Unix ``path``. With
    ``tls`` what is said there is TLS. ``number`` is where the host is, if that is known: then its
    name is not looked up, and only its certificate has to have it."""

    host: str = ""
    port: int = DEFAULT_PORT
    path: str | None = None
    tls: bool = False
    number: str = ""

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        place = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return f"gearmans://{place}" if self.tls else place


def parse_address(
    text: str, *, default_port: int = DEFAULT_PORT, setting: str = "address"
) -> Address:
    """Read an address.

    Args:
        text: the address, in one of the forms above.
        default_port: the port of an address that names none.
        setting: where the text comes from, for the error.

    Raises:
        ConfigError: it is no address; the error shows the forms there are.
    """

    def wrong(problem: str, remedy: str = _FORMS) -> ConfigError:
        return ConfigError(setting, f"{text!r} {problem}", remedy)

    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if path.startswith("//"):
            path = "/" + path.lstrip("/")
        if not path:
            raise wrong("names no path", "write unix:PATH")
        if "\0" in path or len(path.encode("utf-8", "surrogateescape")) > _UNIX_PATH_LIMIT:
            raise wrong(
                f"is no path for a Unix socket: at most {_UNIX_PATH_LIMIT} bytes, no NUL",
                "use a shorter path",
            )
        return Address(path=path)
    place = text
    tls = False
    if found := _SCHEME.fullmatch(text):
        scheme, place = found[1].lower(), found[2]
        tls = scheme == "gearmans"
        if scheme not in ("gearman", "gearmans"):
            raise wrong(f"is a {scheme} address")
        place = place.removesuffix("/")
    if place.startswith("["):
        host, bracket, rest = place[1:].partition("]")
        if not bracket or not _is_ipv6(host) or (rest and not rest.startswith(":")):
            raise wrong("is no IPv6 address in brackets")
        port = rest[1:] if rest else None
    elif place.count(":") > 1:
        if not _is_ipv6(place):
            raise wrong("has too many colons for a host and a port")
        host, port = place, None
    else:
        host, colon, number = place.partition(":")
        port = number if colon else None
    if not host:
        raise wrong("names no host")
    if any(char.isspace() or char in "/\\@?#\0" for char in host):
        raise wrong(f"has no usable host: {host!r}")
    if port is None:
        return Address(host, default_port, tls=tls)
    if not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise wrong(f"has no usable port: {port!r}", "a port is a number up to 65535")
    return Address(host, int(port), tls=tls)


def as_address(server: str | Address, hint: str = "") -> Address:
    """The address that a program has given, as text or read already.

    Args:
        server: it.
        hint: what to say to those who give something else.

    Raises:
        ConfigError: the text is no address.
        TypeError: this is neither.
    """
    if isinstance(server, Address):
        return server
    if not isinstance(server, str):
        raise TypeError(f"{server!r} is no address: a text like 'localhost:4730' is needed{hint}")
    return parse_address(server)


def _is_ipv6(host: str) -> bool:
    import ipaddress  # costs a millisecond, and most addresses are names

    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
