"""What a client says first on a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trigear.protocol.client import ClientConnection


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
