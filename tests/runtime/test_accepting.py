"""Connections that cannot be set up as they should be, and places that are taken."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

import pytest
import trio

from tests.runtime.calling import calling, local
from trigear.engine.config import Keepalive, ServerConfig
from trigear.errors import ConfigError
from trigear.runtime.accepting import set_options
from trigear.runtime.listeners import bind
from trigear.runtime.server import open_server

if TYPE_CHECKING:
    from pathlib import Path

LEAST = Keepalive(idle=1, interval=1, count=1, user_timeout=1)
MOST = Keepalive(idle=32767, interval=32767, count=127, user_timeout=2_000_000)


@pytest.mark.parametrize("keepalive", [LEAST, MOST], ids=["least", "most"])
def test_the_system_takes_every_keepalive_that_a_configuration_may_have(
    keepalive: Keepalive,
) -> None:
    options = (
        socket.TCP_KEEPIDLE,
        socket.TCP_KEEPINTVL,
        socket.TCP_KEEPCNT,
        socket.TCP_USER_TIMEOUT,
    )
    with socket.socket() as sock:
        set_options(sock, keepalive)
        taken = [sock.getsockopt(socket.IPPROTO_TCP, option) for option in options]
    assert keepalive.user_timeout is not None
    assert taken == [
        keepalive.idle,
        keepalive.interval,
        keepalive.count,
        keepalive.user_timeout * 1000,
    ]


@pytest.mark.parametrize(("name", "value"), [("idle", 32768), ("interval", 32768), ("count", 128)])
def test_the_system_takes_none_beyond(name: str, value: int) -> None:
    """So the limits are neither too narrow nor too wide."""
    with pytest.raises(ConfigError, match=f"keepalive {name}: {value} is not between"):
        Keepalive(**{name: value})
    keepalive = Keepalive()
    object.__setattr__(keepalive, name, value)
    with socket.socket() as sock, pytest.raises(OSError, match="Invalid argument"):
        set_options(sock, keepalive)


async def test_a_connection_that_cannot_be_set_up_is_dropped_and_the_next_one_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No configuration can ask for what the system refuses; one connection may meet it all the
    same."""
    caplog.set_level(logging.INFO, "trigear.server")
    keepalive = Keepalive()
    async with open_server(local(keepalive=keepalive)) as server:
        object.__setattr__(keepalive, "idle", 1_000_000)
        async with calling(server) as dropped:
            assert await dropped.to_the_end() == b""
        assert caplog.messages == ["dropped 127.0.0.1 while it connected: Invalid argument"]
        assert server.statistics().connections == 0
        object.__setattr__(keepalive, "idle", 60)
        async with calling(server) as served:
            await served.settled()


async def test_the_start_is_not_held_up_by_a_live_server_that_accepts_nobody(
    tmp_path: Path,
) -> None:
    """Its backlog is full, so that connecting would wait for as long as it does not accept."""
    path = tmp_path / "server"
    config = ServerConfig(listen=(f"unix:{path}",), backlog=0)
    (listener,) = bind(config)
    with listener, socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(path))
        with pytest.raises(ConfigError) as refusal:
            bind(config)
        assert str(refusal.value) == (
            f"listen unix:{path}: another server listens there; stop it, or choose another path"
        )
        async with trio.open_nursery() as nursery:
            with pytest.raises(ConfigError):
                async with open_server(config):
                    nursery.cancel_scope.cancel()
        assert path.exists()
