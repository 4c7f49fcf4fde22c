"""Settings that cannot be used are refused where they are made, in one line."""

from __future__ import annotations

from typing import Any

import pytest

from trigear.engine.config import (
    EngineConfig,
    FunctionSettings,
    Keepalive,
    ListenerConfig,
    OnTimeout,
    ServerConfig,
)
from trigear.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"handle_prefix": b""}, "job handle prefix: b'' is not 1 to 42 bytes without blanks"),
        ({"handle_prefix": b"x" * 43}, "is not 1 to 42 bytes"),
        ({"handle_prefix": b"H:a b"}, "without blanks"),
        ({"handle_prefix": b"H:a\t"}, "without blanks"),
        ({"handle_prefix": b"H:a\0"}, "without blanks"),
        ({"max_packet": 1023}, "max packet: 1023 bytes is below the least, 1024"),
        ({"max_packet": (512 << 20) + 1}, "max packet: 536870913 bytes is above the most, 512MiB"),
        ({"wakeup": -1}, "worker wakeup: -1 is not between 0 and 255"),
        ({"wakeup": 256}, "worker wakeup: 256 is not between 0 and 255"),
        ({"attempts": -1}, "attempts: -1 is negative; use 0 for no limit"),
    ],
)
def test_a_servers_settings_have_limits(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EngineConfig(**settings)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"timeout": -0.1}, "timeout: -0.1 is negative; use 0 for no timeout"),
        ({"attempts": -1}, "attempts: -1 is negative; use 0 for no limit"),
    ],
)
def test_a_functions_settings_have_limits(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FunctionSettings(**settings)
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"idle": 0}, "keepalive idle: 0 is not between 1 and 32767"),
        ({"interval": 32768}, "keepalive interval: 32768 is not between 1 and 32767"),
        ({"count": 128}, "keepalive count: 128 is not between 1 and 127"),
        ({"user_timeout": -1}, "keepalive user timeout: -1 is not between 1 and 2000000"),
    ],
)
def test_keepalive_has_the_limits_of_the_system(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Keepalive(**settings)
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"port": 65536}, "port: 65536 is not between 0 and 65535"),
        ({"port": -1}, "port: -1 is not between 0 and 65535"),
        ({"backlog": -1}, "backlog: -1 is negative"),
        ({"grace": -0.5}, "grace: -0.5 s is negative"),
        (
            {"allow": ("::1", "10.0.0.0/33")},
            "allow: '10.0.0.0/33' is no network; write 10.0.0.0/8 or ::1",
        ),
        ({"allow": ("localhost",)}, "allow: 'localhost' is no network; write 10.0.0.0/8 or ::1"),
    ],
)
def test_a_server_with_sockets_has_settings_with_limits(
    settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig(**settings)
    assert str(caught.value) == says


def test_settings_at_their_limits_are_fine() -> None:
    EngineConfig(handle_prefix=b"x" * 42, max_packet=1024, wakeup=0, attempts=0)
    EngineConfig(max_packet=512 << 20)
    EngineConfig(handle_prefix=b"\xff", wakeup=255)
    ServerConfig(port=0, backlog=0, grace=0, allow=("10.0.0.1/8",))
    ServerConfig(port=65535, grace=None)
    Keepalive(idle=1, interval=32767, count=127, user_timeout=None)
    FunctionSettings(timeout=0, attempts=0, on_timeout=OnTimeout.FAIL)


def test_the_defaults_are_those_of_the_documentation() -> None:
    server = ServerConfig()
    assert (server.listen, server.port) == (("localhost",), 4730)
    assert server.grace == 30.0
    assert server.keepalive is not None
    alive = server.keepalive
    assert (alive.idle, alive.interval, alive.count, alive.user_timeout) == (60, 10, 6, 120)
    assert server.engine.max_packet == 64 << 20
    assert server.engine.attempts == 10
    assert server.engine.on_timeout is OnTimeout.REASSIGN
    assert (server.engine.soft_mark, server.engine.hard_mark) == (4 << 20, 64 << 20)
    assert not server.engine.exceptions
    assert server.engine.wakeup is None


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        EngineConfig().pid = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        EngineConfig().functions[b"f"] = FunctionSettings()  # type: ignore[index]


def test_an_address_has_of_its_own_what_is_said_of_it() -> None:
    own = ListenerConfig(allow=("::1",))
    config = ServerConfig(listen=("a", "b"), listeners={"a": own})
    assert config.own("a") is own
    assert config.own("b") == ListenerConfig()
    with pytest.raises(ConfigError, match=r"limit-exempt: '10/8' is no network; write"):
        ServerConfig(limit_exempt=("10/8",))
