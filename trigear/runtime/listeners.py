"""Bound sockets, before Trio runs: ports below 1024 need privileges that are dropped later."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING

from trigear.errors import ConfigError
from trigear.runtime.address import Address, parse_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trigear.engine.config import ServerConfig

_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class ListeningSocket(socket.socket):
    """A bound socket that knows what it is for."""

    address: Address
    """What the configuration asks for."""

    setting: str
    """The same as it is written there."""


def is_tls(sock: socket.socket) -> bool:
    """Whether TLS is spoken by those who connect to this listener."""
    return isinstance(sock, ListeningSocket) and sock.address.tls


def setting_of(sock: socket.socket) -> str:
    """What the configuration calls the address of this listener; empty if it does not."""
    return sock.setting if isinstance(sock, ListeningSocket) else ""


def bind(config: ServerConfig) -> list[socket.socket]:
    """Bind and listen on every address of a configuration.

    A name that stands for several addresses is bound on all that this machine has.

    Returns:
        Non-blocking listening sockets.

    Raises:
        ConfigError: an address cannot be used; the message says which and why. Nothing stays
            bound then.
    """
    sockets: list[socket.socket] = []
    try:
        for text in config.listen:
            address = parse_address(text, default_port=config.port, setting="listen")
            if address.path is not None:
                found = [_bind_unix(address, address.path, config.backlog)]
            elif address.tls and config.tls is None and config.own(text).tls is None:
                raise ConfigError(
                    f"listen {address}",
                    "it asks for TLS, and there is no certificate",
                    "name one with --cert and --key",
                )
            else:
                found = _bind_tcp(address, config.backlog)
            for bound in found:
                bound.setting = text
            sockets += found
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind_tcp(address: Address, backlog: int) -> list[ListeningSocket]:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise ConfigError(
            f"listen {address}", f"{address.host!r} cannot be resolved: {error.strerror}"
        ) from error
    sockets: list[ListeningSocket] = []
    absent: OSError | None = None
    for family, kind, protocol, _, where in dict.fromkeys(found):
        sock = None
        try:
            sock = ListeningSocket(family, kind, protocol)
            sock.address = address
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(where)
            sock.listen(backlog)
        except OSError as error:
            if sock is not None:
                sock.close()
            if error.errno in _ABSENT and len(found) > 1:
                absent = error
                continue
            for other in sockets:
                other.close()
            raise _refusal(address, error) from error
        sockets.append(sock)
    if not sockets and absent is not None:
        raise _refusal(address, absent) from absent
    return sockets


def _refusal(address: Address, error: OSError) -> ConfigError:
    remedies = {
        errno.EADDRINUSE: "another server listens there: stop it, or choose another port",
        errno.EACCES: "ports below 1024 need root: start as root and give --run-as USER",
        errno.EADDRNOTAVAIL: "this machine has no such address",
    }
    code = error.errno or 0
    return ConfigError(f"listen {address}", os.strerror(code).lower(), remedies.get(code, ""))


def _bind_unix(address: Address, path: str, backlog: int) -> ListeningSocket:
    """Bind a Unix socket for this user and group; a socket left behind by a dead server goes."""
    _remove_stale(path)
    sock = ListeningSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.address = address
    sock.setblocking(False)
    mask = os.umask(0o117)
    try:
        sock.bind(path)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise ConfigError(f"listen unix:{path}", os.strerror(error.errno or 0).lower()) from error
    finally:
        os.umask(mask)
    return sock


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ConfigError(
                f"listen unix:{path}", "a file is there that is no socket", "choose another path"
            )
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"listen unix:{path}", os.strerror(error.errno or 0).lower()) from error
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # A server whose backlog is full lets a blocking probe wait for ever.
    probe.setblocking(False)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except BlockingIOError:
        raise _taken(path) from None
    except OSError as error:
        raise ConfigError(f"listen unix:{path}", os.strerror(error.errno or 0).lower()) from error
    else:
        raise _taken(path)
    finally:
        probe.close()


def _taken(path: str) -> ConfigError:
    return ConfigError(
        f"listen unix:{path}", "another server listens there", "stop it, or choose another path"
    )


def unlink_unix(sockets: Sequence[socket.socket]) -> None:
    """Remove the files of Unix sockets that are about to be closed."""
    for sock in sockets:
        if sock.fileno() >= 0 and sock.family == socket.AF_UNIX:
            path = sock.getsockname()
            if path:
                try:
                    os.unlink(path)
                except OSError:
                    # Not ours to remove any more, or gone; the next server clears it away.
                    continue


def address_text(sock: socket.socket) -> str:
    """What a listening socket is called in logs."""
    where = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{where}"
    return str(Address(where[0], where[1], tls=is_tls(sock)))


def peer_text(address: object) -> str:
    """A peer's address as the `workers` command shows it; `-` for a Unix socket."""
    return str(address[0]) if isinstance(address, tuple) else "-"
