"""Programs that know SASL and nothing of Gearman, and what carries their messages to a server.

Each runs on a terminal of its own, on which some insist, and speaks in lines of base64. What is
carried is what packets 101 to 105 are for; nothing here knows a mechanism.
"""

from __future__ import annotations

import base64
import fcntl
import os
import pty
import re
import select
import ssl
import subprocess
import termios
import time
from typing import TYPE_CHECKING, Self

from tests.interop import raw
from tests.interop.peers import ANSWER_SECONDS, PROGRAMS
from tests.interop.servers import stop

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence


class Terminal:
    """A program on a terminal that echoes nothing."""

    def __init__(self, command: Sequence[str]) -> None:
        self._ours, theirs = pty.openpty()
        attributes = termios.tcgetattr(theirs)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(theirs, termios.TCSANOW, attributes)
        self.said = ""
        self._read = 0
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        stop(self.process)
        os.close(self._ours)

    def type(self, line: str) -> None:
        os.write(self._ours, line.encode() + b"\n")

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until it has said this, behind what was waited for before.

        Raises:
            EOFError: it says nothing more.
        """
        deadline = time.monotonic() + ANSWER_SECONDS
        while (found := re.search(pattern, self.said[self._read :], re.MULTILINE)) is None:
            if not select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise EOFError(f"{self.process.args!r} is silent after: {self.said}")
            try:
                self.said += os.read(self._ours, 4096).decode().replace("\r", "")
            except OSError:
                raise EOFError(f"{self.process.args!r} ended: {self.said}") from None
        self._read += found.end()
        return found


class Speaker:
    """A client of SASL."""

    def __init__(self, terminal: Terminal, mechanism: str) -> None:
        self.terminal = terminal
        self.mechanism = mechanism

    def message(self) -> bytes:
        """Its next message, the first one without the name of the mechanism."""
        return base64.b64decode(self.terminal.until(r"^C: (\S*)\n")[1])

    def first(self) -> bytes:
        name, _, message = self.message().partition(b"\0")
        assert name.decode() == self.mechanism
        return message

    def hear(self, data: bytes) -> None:
        self.terminal.type("S: " + base64.b64encode(data).decode())

    def ends(self, data: bytes) -> None:
        """Return once it is content with what the server says last, or with its saying nothing;
        EOFError if it never is."""
        if data:
            self.hear(data)
        self.terminal.until("Negotiation complete")


class Perl(Speaker):
    """Authen::SCRAM and Authen::SASL."""

    def __init__(self, program: str, mechanism: str, user: str, password: str) -> None:
        more = [mechanism] if program == "sasl.pl" else []
        command = ["/usr/bin/perl", str(PROGRAMS / program), *more, user, password]
        super().__init__(Terminal(command), mechanism)


class Cyrus(Speaker):
    """The sample client of Cyrus SASL, which asks for a password."""

    def __init__(self, mechanism: str, user: str, password: str) -> None:
        command = ["/usr/bin/sasl-sample-client", "-m", mechanism, "-s", "gearman"]
        super().__init__(Terminal([*command, "-n", "localhost", "-a", user, "-u", user]), mechanism)
        self._password = password

    def first(self) -> bytes:
        self.terminal.until("mechanism list")
        self.hear(self.mechanism.encode())
        self.terminal.until("Password: ")
        self.terminal.type(self._password)
        return super().first()


class Gsasl(Speaker):
    """The tool of GNU SASL. ``binding`` is a tls-unique value, which it asks for."""

    def __init__(self, mechanism: str, user: str, password: str, binding: bytes = b"") -> None:
        command = ["/usr/bin/gsasl", "--client", "-m", mechanism, "-a", user, "-p", password]
        super().__init__(Terminal([*command, *([] if binding else ["--no-cb"])]), mechanism)
        self._binding = binding

    def message(self) -> bytes:
        return base64.b64decode(self.terminal.until(r"Output from client:\n(\S*)\n")[1])

    def first(self) -> bytes:
        if self._binding:
            self.terminal.until("tls-exporter channel binding: ")
            self.terminal.type("")
            self.terminal.until("tls-unique channel binding: ")
            self.terminal.type(base64.b64encode(self._binding).decode())
        return self.message()

    def hear(self, data: bytes) -> None:
        self.terminal.type(base64.b64encode(data).decode())

    def ends(self, data: bytes) -> None:
        self.hear(data)
        if data:
            # It would hear more, and is told that there is no more.
            assert self.message() == b""
            self.hear(b"")
        self.terminal.until(r"Client authentication finished \(server trusted\)")


class Refused(Exception):
    """The server let somebody not in; its argument is the code."""


class Link(raw.RawConnection):
    """A connection over a socket that is there already."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = b""

    @property
    def certificate(self) -> bytes:
        """The server's (DER)."""
        assert isinstance(self._socket, ssl.SSLSocket)
        return self._socket.getpeercert(binary_form=True) or b""

    @property
    def tls_unique(self) -> bytes:
        """What a login over TLS 1.2 can be bound to."""
        assert isinstance(self._socket, ssl.SSLSocket)
        return self._socket.get_channel_binding("tls-unique") or b""


def log_in(link: raw.RawConnection, speaker: Speaker) -> list[str]:
    """Carry the messages of a client to a server and back.

    Returns:
        Who it is there, its tenant and its roles.

    Raises:
        Refused: it is nobody.
    """
    link.send(raw.OPTION_REQ, b"sasl")
    link.expect(raw.OPTION_RES)
    offered = link.expect(raw.SASL_MECHANISMS)[0].decode().split()
    assert speaker.mechanism in offered
    link.send(raw.SASL_START, speaker.mechanism.encode(), speaker.first())
    while True:
        number, args = link.receive()
        match number:
            case raw.SASL_CHALLENGE:
                speaker.hear(args[0])
                link.send(raw.SASL_RESPONSE, speaker.message())
            case raw.SASL_OK:
                speaker.ends(args[4])
                return [arg.decode() for arg in args[:3]]
            case _:
                assert number == raw.ERROR
                raise Refused(args[0].decode())
