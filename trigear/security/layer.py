"""TLS as one more layer without I/O: bytes of the network on one side, bytes of Gearman on the
other.

What a TLS connection costs is paid per call rather than per byte. So everything that waits is
sealed in one go, and everything that came is opened in one go.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_PIECE: Final = 16384
"""Most plain bytes that are taken out at once: those of a record. OpenSSL gives no more, and memory
for more would be asked for and given back with each record."""

_SEALED: Final = 65536
"""Most plain bytes that are put in at once: the buffer behind OpenSSL keeps the room that they take
until the end of the connection."""


HANDSHAKE_SECONDS: Final = 20.0
"""How long a server may take for its part of a handshake."""

HUNG_UP: Final = (
    "it hung up right after the TLS handshake: does it want a client certificate, or another one"
    " (cert and key)?"
)
"""What is said of a server that goes before it has said anything. With TLS 1.3 a client's handshake
is done before the server has judged its certificate."""


class TlsLayer:
    """One end of a TLS connection, between two buffers.

    Args:
        context: of the side on which this end is.
        server_name: on the client's side, whom the certificate has to name; None on the server's.
    """

    __slots__ = ("_broken", "_incoming", "_outgoing", "over", "tls")

    def __init__(self, context: ssl.SSLContext, server_name: str | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_name is None,
            server_hostname=server_name,
        )
        """Python's end of it: what was agreed on, and what SCRAM can bind to."""
        self._broken = False
        self.over = False
        """Whether the peer has said that nothing more comes."""

    # The handshake

    def feed(self, data: bytes) -> None:
        """Take in what came from the network, to be looked at by the next step; empty means that
        the peer has closed its side."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def step(self) -> bool:
        """Go on with the handshake, which may compute for a millisecond.

        Returns:
            Whether it is done. If not, more has to come from the network.

        Raises:
            ssl.SSLError: it failed; :meth:`outgoing` has an alert for the peer.
        """
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def outgoing(self) -> bytes:
        """What has to be sent to the peer now."""
        return self._outgoing.read()

    # The conversation

    def open(self, data: bytes) -> bytes:
        """The plain bytes in what came from the network; none if a record is incomplete.

        Raises:
            ssl.SSLError: the peer broke the protocol; :meth:`outgoing` has an alert for it.
        """
        if data:
            self._incoming.write(data)
        pieces = []
        # Looked at before: to be told that there is nothing costs an exception. OpenSSL itself
        # holds on to what is no whole record yet, and to opened bytes that were not asked for.
        size = self._incoming.pending
        try:
            while size:
                # Sealed bytes are more than what is in them: no more memory than needed.
                wanted = min(size, _PIECE)
                piece = self.tls.read(wanted)
                if not piece:
                    self.over = True
                    break
                pieces.append(piece)
                size = self._incoming.pending
                if not size and len(piece) == wanted:
                    size = self.tls.pending()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.over = True
        except ssl.SSLError:
            self._broken = True
            raise
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def seal(self, pieces: Iterable[bytes | memoryview]) -> bytes:
        """What has to be sent so that the peer gets these plain bytes, in one piece; on a broken
        connection only what says so."""
        plain = b"".join(pieces)
        if self._broken:
            plain = b""
        if len(plain) <= _SEALED:
            if plain:
                # Never less than all of it: the buffer behind it takes any number of bytes.
                self.tls.write(plain)
            return self._outgoing.read()
        sealed = []
        view = memoryview(plain)
        for at in range(0, len(plain), _SEALED):
            self.tls.write(view[at : at + _SEALED])
            sealed.append(self._outgoing.read())
        return b"".join(sealed)

    def farewell(self) -> bytes:
        """What has to be sent last, so that the peer knows that nothing was cut off."""
        # It would go on to wait for the peer's own farewell.
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        return self._outgoing.read()

    # The peer

    @property
    def certificate(self) -> bytes | None:
        """The peer's verified certificate as DER; None if it showed none."""
        return self.tls.getpeercert(binary_form=True)


def refusal(error: OSError) -> str:
    """What went wrong, and what to do, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = str(error.verify_message).lower().rstrip(".")
        if "mismatch" in why:
            then = "name the server as its certificate does, or give it one for this name"
        else:
            then = "name the authority that signed it (ca, or --ca FILE)"
        return f"its certificate is not trusted: {why}; {then}"
    reason = str(getattr(error, "reason", None) or error).lower().replace("_", " ")
    if "alert" in reason:
        return f"it refuses us: {reason}; does it want a client certificate (cert and key)?"
    if "wrong version number" in reason or "eof" in reason:
        return f"it does not speak TLS there ({reason}); write gearman:// for plain connections"
    return f"TLS failed: {reason}"
