"""What is looked at before a client connects, and what it says first on a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trigear.protocol.client import ClientConnection
    from trigear.security.sasl_client import Auth
    from trigear.security.tls import ClientContext, ClientTLS


def greeting(client_id: bytes | None, machine: ClientConnection) -> None:
    """Queue what is said first.

    Raises:
        LocalProtocolError: the client id is not one word.
    """
    if client_id is not None:
        machine.set_client_id(client_id)
    # Without the first option a job that raises looks like one that fails, without the second a
    # server does not hear that nobody waits for a job any more. Servers that do not know them say
    # so; then that is how it is.
    machine.abandon(machine.option(b"exceptions"))
    machine.abandon(machine.extend())


def check_tls(tls: ClientTLS | ClientContext | None) -> None:
    """See whether the files of TLS are good before anything is connected.

    Raises:
        ConfigError: one of them is not.
    """
    if tls is not None:
        from trigear.security.tls import build_client

        build_client(tls)


def check_auth(auth: Auth | None) -> None:
    """See whether this is something to log in with.

    Raises:
        TypeError: it is not.
    """
    if auth is not None:
        from trigear.runtime import channel

        channel.check_auth(auth)
