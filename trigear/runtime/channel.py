"""What a client knows of its connection when it logs in, and what it logs in with."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import TYPE_CHECKING, Any

from trigear.security.sasl_client import Auth, ClientChannel, TrigearSASL

if TYPE_CHECKING:
    from trigear.security.layer import TlsLayer


def of_tls(layer: TlsLayer) -> ClientChannel:
    """A TLS connection whose handshake is done."""
    # Only here: it brings what reads certificates.
    from trigear.security.tls import ClientContext, bindings

    context = layer.tls.context
    assert isinstance(context, ClientContext), "this end is the client's"
    return ClientChannel(
        tls=True,
        verified=context.verified,
        certificate=context.certified,
        bindings=bindings(layer.tls),
    )


def of_socket(link: Any) -> ClientChannel:  # noqa: ANN401 - the system's socket, or Trio's
    """A plain connection."""
    if link.family == getattr(socket, "AF_UNIX", None):
        return ClientChannel(unix=True)
    # Who is really there, whatever name was asked for.
    peer = ipaddress.ip_address(link.getpeername()[0].partition("%")[0])
    mapped = getattr(peer, "ipv4_mapped", None)
    return ClientChannel(loopback=(mapped or peer).is_loopback)


def mechanisms(auth: Auth, server: str, channel: ClientChannel) -> TrigearSASL:
    """What knows the password, for one login."""
    return TrigearSASL(server, auth, channel, os.urandom)


def check_auth(auth: object) -> None:
    """See whether this is something to log in with.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(auth, Auth):
        raise TypeError(
            f"auth={type(auth).__name__}: trigear.Auth(user, password) is needed, or Auth() where"
            " a certificate or a Unix socket says who it is"
        )
