"""A server and workers in threads, for tests of what knows no Trio."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from trigear.engine.config import ServerConfig
from trigear.testing import open_server_in_thread
from trigear.wire import packets
from trigear.wire.codec import request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 30.0  # seconds until a test gives up on a thread or a socket


def open_link(address: str) -> socket.socket:
    if address.startswith("unix:"):
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(PATIENCE)
        link.connect(address.removeprefix("unix:"))
        return link
    host, _, port = address.rpartition(":")
    link = socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


@contextlib.contextmanager
def server_in_thread(*listen: str) -> Iterator[tuple[str, ...]]:
    """Serve at these addresses while the body runs; yields where."""
    with open_server_in_thread(ServerConfig(listen=listen or ("127.0.0.1",), port=0)) as server:
        yield server.addresses


class Held:
    """A job in the hands of a :class:`PlainWorker`."""

    def __init__(self, link: socket.socket, handle: bytes, workload: bytes) -> None:
        self.link = link
        self.handle = handle
        self.workload = workload

    def send(self, number: int, *args: bytes) -> None:
        self.link.sendall(request(number, self.handle, *args))

    def status(self, numerator: int, denominator: int) -> None:
        self.send(packets.WORK_STATUS, b"%d" % numerator, b"%d" % denominator)

    def data(self, data: bytes) -> None:
        self.send(packets.WORK_DATA, data)

    def warning(self, data: bytes) -> None:
        self.send(packets.WORK_WARNING, data)

    def complete(self, data: bytes = b"") -> None:
        self.send(packets.WORK_COMPLETE, data)

    def fail(self) -> None:
        self.send(packets.WORK_FAIL)

    def exception(self, data: bytes) -> None:
        self.send(packets.WORK_EXCEPTION, data)


class PlainWorker:
    """Takes one job after the other and has a function deal with it, in a thread of its own."""

    def __init__(self, address: str, **functions: Callable[[Held], None]) -> None:
        self.functions = functions
        self.link = open_link(address)
        self.link.settimeout(None)
        self.stream = self.link.makefile("rb")
        for name in functions:
            self.link.sendall(request(packets.CAN_DO, name.encode()))
        self.link.sendall(request(packets.ECHO_REQ, b""))
        self.receive()  # registered before anybody submits
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def receive(self) -> tuple[int, bytes]:
        """The next packet's number and payload; (0, b"") at the end of the connection."""
        header = self.stream.read(12)
        if len(header) < 12:
            return 0, b""
        return int.from_bytes(header[4:8]), self.stream.read(int.from_bytes(header[8:12]))

    def work(self) -> None:
        with contextlib.suppress(OSError):
            self.link.sendall(request(packets.GRAB_JOB))
            while True:
                number, payload = self.receive()
                if number == packets.JOB_ASSIGN:
                    handle, function, workload = payload.split(b"\0", 2)
                    self.functions[function.decode()](Held(self.link, handle, workload))
                elif number == packets.NO_JOB:
                    self.link.sendall(request(packets.PRE_SLEEP))
                    continue
                elif number == 0:
                    return
                self.link.sendall(request(packets.GRAB_JOB))

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.link.shutdown(socket.SHUT_RDWR)
        self.thread.join(PATIENCE)
        self.stream.close()
        self.link.close()


@contextlib.contextmanager
def plain_worker(address: str, **functions: Callable[[Held], None]) -> Iterator[PlainWorker]:
    worker = PlainWorker(address, **functions)
    try:
        yield worker
    finally:
        worker.stop()


@contextlib.contextmanager
def scripted_server(*scripts: Callable[[socket.socket], None]) -> Iterator[str]:
    """A listener that treats its first connection with the first script, and so on.

    It is gone when the last one is treated: who connects again is refused, and does not wait in a
    queue that nobody looks at.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def run() -> None:
            for left in range(len(scripts), 0, -1):
                script = scripts[-left]
                link, _ = listener.accept()
                if left == 1:
                    listener.close()
                with link:
                    link.settimeout(PATIENCE)
                    script(link)

        thread = threading.Thread(target=run)
        thread.start()
        yield f"127.0.0.1:{port}"
        thread.join(PATIENCE)
        assert not thread.is_alive()
