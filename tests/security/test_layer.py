"""TLS as a layer: what came is opened in one go, and nothing of it stays behind unread."""

from __future__ import annotations

import ssl
import subprocess
import sys
import time
from copy import copy

import pytest

from tests.security.certificates import Authority
from trigear.security.layer import TlsLayer
from trigear.security.tls import ClientTLS, ServerTLS, build_client, build_server

RECORD = 1 << 14
"""Plain bytes in a record at most."""

VERSIONS = {
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}


class Pair:
    """Both ends of a conversation, and the contexts that they come from."""

    def __init__(self, folder, version):
        authority = Authority()
        ca = folder / "ca.pem"
        ca.write_bytes(authority.pem)
        certificate, key = authority.server().write(folder, "server")
        self.server_context = build_server(ServerTLS(certificate=certificate, key=key), time.time())
        self.client_context = build_client(ClientTLS(ca=str(ca)))
        self.client_context.minimum_version = self.client_context.maximum_version = version
        self.begin()

    def begin(self):
        self.client = TlsLayer(self.client_context, "localhost")
        self.server = TlsLayer(self.server_context)

    def another(self):
        """One more conversation, past its handshake."""
        other = copy(self)
        other.begin()
        other.shake_hands()
        return other

    def shake_hands(self, *behind):
        """The handshake, until both ends may talk.

        Args:
            behind: what the client says together with its last part of it.

        Returns:
            What the server has said last, which the client has not seen.
        """
        while not self.client.step():
            self.server.feed(self.client.outgoing())
            self.server.step()
            self.client.feed(self.server.outgoing())
        if last := self.client.outgoing() + self.client.seal(behind):
            self.server.feed(last)
        assert self.server.step()
        return self.server.outgoing()


@pytest.fixture(params=VERSIONS)
def pair(request, tmp_path):
    return Pair(tmp_path, VERSIONS[request.param])


@pytest.mark.parametrize("size", [1, RECORD - 1, RECORD, RECORD + 1, 1 << 20])
def test_everything_that_came_is_opened_in_one_go(pair, size):
    pair.client.open(pair.shake_hands())
    plain = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert pair.server.open(pair.client.seal([plain])) == plain
    assert pair.client.open(pair.server.seal([plain[:1], plain[1:]])) == plain
    assert pair.server.open(b"") == b""
    assert not pair.server.over
    assert not pair.client.over


@pytest.mark.parametrize("size", [1, 5, 999, RECORD, 65536])
def test_a_record_is_opened_with_its_last_byte_and_not_before(pair, size):
    pair.shake_hands()
    records = [bytes([number]) * RECORD for number in range(8)]
    sealed = [pair.client.seal([record]) for record in records]
    ends = [sum(map(len, sealed[: number + 1])) for number in range(8)]
    stream = b"".join(sealed)
    opened = 0
    for at in range(0, len(stream), size):
        opened += len(pair.server.open(stream[at : at + size]))
        assert opened == sum(end <= at + size for end in ends) * RECORD


def test_what_came_right_behind_the_handshake_is_opened_without_anything_more(pair):
    pair.shake_hands(b"x" * RECORD, b"behind")
    assert pair.server.open(b"") == b"x" * RECORD + b"behind"


def test_what_is_said_of_tls_itself_is_taken_in_and_means_nothing(pair):
    """As the tickets are with which a client might come back."""
    last = pair.shake_hands()
    assert pair.client.open(last) == b""
    assert not pair.client.over
    assert pair.client.open(pair.server.seal([b"hello"])) == b"hello"


@pytest.mark.parametrize("plain", [b"", b"last words", b"x" * RECORD, b"x" * 100_000])
def test_the_farewell_behind_the_last_words_is_heard_with_them(pair, plain):
    pair.shake_hands()
    stream = pair.client.seal([plain]) + pair.client.farewell()
    assert pair.server.open(stream) == plain
    assert pair.server.over


def test_the_farewell_alone_is_heard(pair):
    pair.shake_hands()
    farewell = pair.client.farewell()
    assert pair.server.open(farewell[:-1]) == b""
    assert not pair.server.over
    assert pair.server.open(farewell[-1:]) == b""
    assert pair.server.over


def test_a_broken_record_is_told_of_at_once_and_answered_with_nothing_but_that(pair):
    pair.shake_hands()
    good, bad = pair.client.seal([b"good"]), bytearray(pair.client.seal([b"bad"]))
    bad[-1] ^= 1
    with pytest.raises(ssl.SSLError, match=r"BAD_RECORD_MAC|DECRYPTION_FAILED"):
        pair.server.open(good + bytes(bad))
    with pytest.raises(ssl.SSLError, match="ALERT_BAD_RECORD_MAC"):
        pair.client.open(pair.server.seal([b"this is not said any more"]))


MANY_ENDS = """
import sys
from pathlib import Path
from tests.security.test_layer import Pair, VERSIONS

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

def talk(pair, size):
    for at in range(0, len(sealed := pair.client.seal([bytes(size)])), 65536):
        pair.server.open(sealed[at : at + 65536])

pair = Pair(Path(sys.argv[1]), VERSIONS["TLSv1.3"]).another()
talks = [pair.another() for _ in range(40)]
talk(pair, 1 << 21)
before = resident()
for one in talks:
    talk(one, 1 << 21)
print((resident() - before) * 4096)
"""


def test_who_has_said_much_once_keeps_no_room_for_it(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MANY_ENDS, str(tmp_path)], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 20 << 20, "bytes of 40 connections on which two mebibytes were said"
