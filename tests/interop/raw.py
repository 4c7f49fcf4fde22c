"""Just enough of the protocol to set scenes, written apart from the package under test."""

from __future__ import annotations

import socket
import struct
from typing import Self

CAN_DO = 1
PRE_SLEEP = 4
SUBMIT_JOB = 7
JOB_CREATED = 8
GRAB_JOB = 9
JOB_ASSIGN = 11
WORK_STATUS = 12
SUBMIT_JOB_BG = 18
SET_CLIENT_ID = 22
SUBMIT_JOB_HIGH_BG = 32
SUBMIT_JOB_LOW_BG = 34
ECHO_REQ = 16
ECHO_RES = 17
ERROR = 19
OPTION_REQ = 26
OPTION_RES = 27
GET_STATUS_UNIQUE = 41
STATUS_RES_UNIQUE = 42
SASL_MECHANISMS = 101
SASL_START = 102
SASL_CHALLENGE = 103
SASL_RESPONSE = 104
SASL_OK = 105

_HEADER = struct.Struct(">4sII")


class RawConnection:
    """One blocking connection that sends any packet and reads replies one by one."""

    def __init__(self, host: str, port: int, timeout: float = 10.0) -> None:
        self._socket = socket.create_connection((host, port), timeout)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, packet_type: int, *arguments: bytes) -> None:
        """Send one request; all arguments but the last get their terminator."""
        payload = b"\0".join(arguments)
        self._socket.sendall(_HEADER.pack(b"\0REQ", packet_type, len(payload)) + payload)

    def receive(self) -> tuple[int, list[bytes]]:
        """The next packet as its type and its payload split at every NUL."""
        magic, packet_type, size = _HEADER.unpack(self._read(_HEADER.size))
        if magic != b"\0RES":
            raise ValueError(f"no response: {magic!r} (type {packet_type}, {size} bytes)")
        return packet_type, self._read(size).split(b"\0")

    def expect(self, packet_type: int) -> list[bytes]:
        """The next packet, which has to be of this type."""
        got, arguments = self.receive()
        if got != packet_type:
            raise ValueError(f"expected packet {packet_type}, got {got}: {arguments}")
        return arguments

    def settle(self) -> None:
        """Return once the server has worked through everything sent so far."""
        self.send(ECHO_REQ, b"settled")
        if self.expect(ECHO_RES) != [b"settled"]:
            raise ValueError("the server echoed something else")

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            chunk = self._socket.recv(65536)
            if not chunk:
                raise ConnectionError("the server closed the connection")
            self._buffer += chunk
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data


def text_command(host: str, port: int, command: str, timeout: float = 10.0) -> list[str]:
    """Send one text command on a connection of its own; its reply's lines without the last dot."""
    lists = command in ("status", "workers", "prioritystatus", "show jobs", "show unique jobs")
    with socket.create_connection((host, port), timeout) as connection:
        connection.sendall(command.encode() + b"\r\n")
        reply = b""
        while not (
            reply == b".\n" or reply.endswith(b"\n.\n") or (not lists and reply.endswith(b"\n"))
        ):
            chunk = connection.recv(65536)
            if not chunk:
                raise ConnectionError(f"the server closed the connection after {reply!r}")
            reply += chunk
    lines = reply.decode().split("\n")[:-1]
    return lines[:-1] if lists else lines
