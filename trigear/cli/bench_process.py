"""The server as a process of this machine: what it has used of processor, memory and disk.

Only Linux tells, and only of processes of one's own, unless one is root. Where it does not, nothing
is said: a figure of the wrong process would be worse than none.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trigear.runtime.address import Address

PROC: Final = Path("/proc")

_LISTENING: Final = "0A"
_CREDENTIALS: Final = struct.Struct("iII")


class ServerProcess:
    """A process. Each figure is as of now; asking raises OSError once it has ended."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._folder = PROC / str(pid)

    def cpu_seconds(self) -> float:
        """Processor time used so far, by all threads."""
        text = (self._folder / "stat").read_text(errors="replace")
        # The name of the program may hold anything, blanks and brackets included.
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Bytes of it in memory."""
        return int((self._folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def disk(self) -> int | None:
        """Bytes of the files that it has open for reading and writing: a store, and no log.

        None if there is no such file.
        """
        sizes: dict[tuple[int, int], int] = {}
        for descriptor in (self._folder / "fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                status = descriptor.stat()
                if stat.S_ISREG(status.st_mode) and status.st_nlink and self._updates(descriptor):
                    sizes[status.st_dev, status.st_ino] = status.st_size
        return sum(sizes.values()) if sizes else None

    def _updates(self, descriptor: Path) -> bool:
        info = (self._folder / "fdinfo" / descriptor.name).read_text()
        flags = int(info.partition("flags:")[2].split()[0], 8)
        return flags & os.O_ACCMODE == os.O_RDWR

    def sockets(self) -> set[str]:
        """The inodes of its sockets."""
        found = set()
        for descriptor in (self._folder / "fd").iterdir():
            with suppress(FileNotFoundError):
                link = os.readlink(descriptor)
                if link.startswith("socket:["):
                    found.add(link[8:-1])
        return found


def process_at(address: Address, pid: int | None) -> ServerProcess | None:
    """The process that serves an address.

    Args:
        address: where it listens; a host is one of this machine.
        pid: the process id that the server gives itself, if it does. In a container or behind a
            proxy that is another process here, so it has to hold the socket that listens.

    Returns:
        None where that cannot be known.
    """
    try:
        if address.path is not None:
            return ServerProcess(peer_of(address.path))
        if pid is None or pid <= 0:
            return None
        process = ServerProcess(pid)
        return process if process.sockets() & set(listeners(address.port)) else None
    except OSError:
        return None


def peer_of(path: str) -> int:
    """The process that listens at a Unix socket."""
    if not hasattr(socket, "SO_PEERCRED"):
        raise OSError("this system does not tell who listens")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.connect(path)
        told = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(told)[0]
    if pid <= 0:
        raise OSError("the one who listens lives in another namespace")
    return pid


def listeners(port: int) -> Iterator[str]:
    """The inodes of the sockets that listen on a TCP port."""
    for table in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):
            for line in (PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
