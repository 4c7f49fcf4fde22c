"""Who could connect: a server that authenticates nobody serves this machine only, unless somebody
said in so many words that it shall serve others."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

from trigear.cli.report import Failure, Status
from trigear.errors import ConfigError
from trigear.runtime.address import Address, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trigear.engine.config import ServerConfig


def wide_addresses(config: ServerConfig) -> dict[str, str]:
    """The addresses to listen at that other machines could reach, by what stands in the
    configuration.

    Raises:
        ConfigError: one is no address.
        Failure: one is a name that nobody knows.
    """
    wide = {}
    for text in config.listen:
        address = parse_address(text, default_port=config.port, setting=f"--listen {text}")
        if address.path is None and any(not is_loopback(host) for host in hosts_of(address)):
            wide[text] = str(address)
    return wide


def wide_sockets(sockets: Iterable[socket.socket]) -> dict[str, str]:
    """The same for what was really bound: a name may have changed its mind since it was looked
    up."""
    from trigear.runtime.listeners import address_text, setting_of

    return {
        setting_of(bound): address_text(bound)
        for bound in sockets
        if bound.family != socket.AF_UNIX and not is_loopback(bound.getsockname()[0])
    }


def hosts_of(address: Address) -> list[str]:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Failure(
            f"--listen {address}: {reason}; name an address of this machine", Status.NO
        ) from error
    return [str(sockaddr[0]) for *_, sockaddr in found]


def is_loopback(host: str) -> bool:
    """Whether a numeric address is one that only this machine can reach."""
    ip = ipaddress.ip_address(host)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_loopback


def refuse_exposure(wide: Iterable[str]) -> None:
    """Stop before anything listens where it should not.

    Raises:
        ConfigError: ``wide`` is not empty.
    """
    names = ", ".join(wide)
    if names:
        raise ConfigError(
            f"--listen {names}",
            "other machines could connect, and nobody is asked who they are",
            "listen on 127.0.0.1 or unix:PATH, or add --insecure-open if that is meant",
        )


def warning_for(wide: Iterable[str]) -> str | None:
    """What an open server means, for its log."""
    wide = list(wide)
    if not wide:
        return None
    plain = not all(parse_address(address).tls for address in wide)
    return (
        f"open to other machines without authentication: {', '.join(wide)}; whoever can connect may"
        " submit, take and cancel every job"
        + (", and what is sent can be read on the way" if plain else "")
    )
