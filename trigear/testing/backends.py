"""What transcripts are played on: the engine itself, and any server that has sockets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from trigear.engine.config import EngineConfig, OnTimeout
from trigear.model import parse_duration
from trigear.testing.clock import SettableClock
from trigear.testing.memory import MemoryEngine, MemoryPeer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from trigear.testing.transcript import Wire

PATIENCE: Final = 10.0
"""Seconds that a server over sockets may take to send what it should."""

_SWITCHES: Final = {
    "exceptions": "--exceptions",
    "attempts": "--job-retries={}",
    "wakeup": "--worker-wakeup={}",
}


_OWN: Final = frozenset(
    {"on_timeout", "max_packet", "backoff", "expires", "dead_letters", "retry_failures"}
)
"""Settings that gearmand does not have."""


def engine_config(settings: Mapping[str, str]) -> EngineConfig:
    """The configuration that a transcript asks for. By default jobs are retried without limit and
    delay, and leave no dead letters."""
    known = {*_SWITCHES, *_OWN}
    if strange := set(settings) - known:
        raise ValueError(f"unknown settings: {', '.join(sorted(strange))}")
    return EngineConfig(
        version="0",
        exceptions="exceptions" in settings,
        attempts=int(settings.get("attempts", 0)),
        wakeup=int(settings["wakeup"]) if "wakeup" in settings else None,
        on_timeout=OnTimeout(settings.get("on_timeout", "reassign")),
        backoff=parse_duration(settings.get("backoff", 0)),
        expires=parse_duration(settings.get("expires", 0)),
        dead_letters="dead_letters" in settings,
        retry_failures="retry_failures" in settings,
        max_packet=int(settings.get("max_packet", 64 * 1024 * 1024)),
    )


def gearmand_options(settings: Mapping[str, str]) -> list[str] | None:
    """The options that give gearmand these settings, or None if it has no such settings."""
    if not set(settings) <= set(_SWITCHES):
        return None
    return [_SWITCHES[name].format(value) for name, value in settings.items()]


class EngineBackend:
    """The engine, without I/O, with a clock that stands still.

    Args:
        settings: what the transcript asks for.
        step: how many bytes the engine is given at a time; 0 gives it everything at once.
    """

    side = "trigear"
    immediate = True

    def __init__(self, settings: Mapping[str, str], *, step: int = 0) -> None:
        self._clock = SettableClock()
        self._server = MemoryEngine(self._clock, engine_config(settings))
        self._step = step

    def connect(self) -> Wire:
        return _MemoryWire(self._server.connect(), self._step)

    def wall(self) -> float:
        return self._clock().wall

    def pass_time(self, seconds: float) -> None:
        # In small steps, as a timer would: what is due first happens first.
        end = self._clock().monotonic + seconds
        while (due := self._server.engine.next_deadline()) <= end:
            self._clock.advance(max(due - self._clock().monotonic, 0.0))
            self._server.tick()
        self._clock.advance(end - self._clock().monotonic)


class _MemoryWire:
    def __init__(self, peer: MemoryPeer, step: int) -> None:
        self._peer = peer
        self._step = step

    def send(self, data: bytes) -> None:
        step = self._step or len(data)
        for start in range(0, len(data), step):
            if start and self._peer.closed is not None:
                return  # as a socket would: what is sent after the end goes nowhere
            self._peer.send(data[start : start + step])

    def receive(self) -> bytes | None:
        data = self._peer.take()
        return data or (None if self._peer.closed is None else b"")

    def close(self) -> None:
        self._peer.hang_up()


class SocketBackend:
    """A server that is reached by sockets, and whose clock is the world's.

    Args:
        side: `trigear` or `1.1`.
        dial: makes a connected socket.
    """

    immediate = False

    def __init__(self, side: str, dial: Callable[[], socket.socket]) -> None:
        self.side = side
        self._dial = dial
        self._sockets: list[socket.socket] = []
        self._control: socket.socket | None = None

    def connect(self) -> Wire:
        return _SocketWire(self, self.dial())

    def dial(self) -> socket.socket:
        """A connection that is closed with the backend."""
        sock = self._dial()
        sock.settimeout(PATIENCE)
        self._sockets.append(sock)
        return sock

    def wall(self) -> float:
        return time.time()

    def pass_time(self, seconds: float) -> None:
        """Time passes by itself, while the next step waits for what it brings."""

    def hang_up(self, sock: socket.socket) -> None:
        """Close a connection and wait until the server has noticed: it vanishes from its list."""
        before = self._connections()
        sock.close()
        give_up = time.monotonic() + PATIENCE
        while self._connections() >= before:
            if time.monotonic() > give_up:
                raise TimeoutError("the server does not notice that a connection was closed")

    def _connections(self) -> int:
        if self._control is None:
            self._control = self.dial()
        self._control.sendall(b"workers\n")
        answer = b""
        while not answer.endswith(b"\n.\n"):
            answer += self._control.recv(65536)
        return answer.count(b"\n")

    def close(self) -> None:
        """Close every connection."""
        for sock in self._sockets:
            sock.close()


class _SocketWire:
    def __init__(self, backend: SocketBackend, sock: socket.socket) -> None:
        self._backend = backend
        self._sock = sock

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def receive(self) -> bytes | None:
        try:
            return self._sock.recv(65536)
        except TimeoutError:
            return None
        except ConnectionResetError:
            return b""

    def close(self) -> None:
        self._backend.hang_up(self._sock)
