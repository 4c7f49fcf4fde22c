"""Network namespaces: port 4730 of localhost for a test alone, whatever else the machine runs."""

from __future__ import annotations

import fcntl
import os
import pathlib
import socket
import struct
import subprocess
import sys

# What programs take that are not told otherwise.
DEFAULT_PORT = 4730

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


def bring_loopback_up() -> None:
    """Make 127.0.0.1 usable, which it is not in a new network namespace."""
    request = struct.Struct("16sh14x")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        answer = fcntl.ioctl(device, _SIOCGIFFLAGS, request.pack(b"lo", 0))
        flags = request.unpack(answer)[1]
        fcntl.ioctl(device, _SIOCSIFFLAGS, request.pack(b"lo", flags | _IFF_UP))


def run_module(module: str, *arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run `python -m module` in a new network namespace; the module calls `bring_loopback_up`."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return subprocess.run(
        ["unshare", *user, "--net", sys.executable, "-bb", "-m", module, *arguments],
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
