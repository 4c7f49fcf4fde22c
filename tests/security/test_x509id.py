"""Whose a certificate is: exactly one user's, or nobody's."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from hypothesis import given
from hypothesis import strategies as st
from scramp.core import CBindData

from tests.security.certificates import CLIENT, DAY, SERVER, Authority, self_signed, subject
from trigear.security.users import Users
from trigear.security.x509id import CertificateError, endpoint_hash, identify, read

NOW = 1_800_000_000.0  # 2027-01-15

# Version 1, without extensions, the common name is "alice": what gearmand's handbook makes.
VERSION_1 = b"""
-----BEGIN CERTIFICATE-----
MIIBGTCBwAIUIgnxCouP5hviUIVgMqrOxUI67qswCgYIKoZIzj0EAwIwDTELMAkG
A1UEAwwCY2EwIBcNMjYxMTIzMTg1MDA0WhgPMjEyNjEwMzAxODUwMDRaMBAxDjAM
BgNVBAMMBWFsaWNlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqpmromO9vSbt
7uLFgccKwO/UorVv9T+dQkL6tzi2iK0kSrSOvKv5LGmJhqjH9WtQYUQOPiBP158j
wp+z6/gRwDAKBggqhkjOPQQDAgNIADBFAiBsS1u6Ey8TO+cfJVNviQAbrnPJpslP
R5TEwsW8brnCZgIhALry2msrLjYLpyKk1NEtU9OXjzkyGkmyuceOfOxdHr3r
-----END CERTIFICATE-----
"""

# Signed with SHA-1, which OpenSSL would not let a test do everywhere.
SIGNED_WITH_SHA_1 = b"""
-----BEGIN CERTIFICATE-----
MIIBbTCCARSgAwIBAgIUZhnjY9RnZY+NB5Qu2BshxY4RFBMwCQYHKoZIzj0EATAM
MQowCAYDVQQDDAF4MCAXDTI2MTEyMzE4NTE0NloYDzIxMjYxMDMwMTg1MTQ2WjAM
MQowCAYDVQQDDAF4MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEGiDIVc8hisbm
9l7b5GwYAIHjorXPPOU/UyBZj0B2vamEfqvTBs59nchGnEPNylaqOgt/A5dS6i25
ke75SsO61aNTMFEwHQYDVR0OBBYEFKGEEaCsbMjWEk5bN1xCmgbmUEyqMB8GA1Ud
IwQYMBaAFKGEEaCsbMjWEk5bN1xCmgbmUEyqMA8GA1UdEwEB/wQFMAMBAf8wCQYH
KoZIzj0EAQNIADBFAiEAmTYEWdLjv2dK8nci7NoqUYjpa7VwIe7IRPLoIZSnr2QC
IEvZKyWHxwWy58J4bw/5wFdQY+MeMClhfN8AwY6qMuwk
-----END CERTIFICATE-----
"""

USERS = """
version = 1
[users.alice]
tenant = "acme"
certs = ["cn:alice", "dns:alice.example", "email:alice@example.org"]
[users.bob]
certs = ["cn:bob", "dns:bob.example"]
[users.gone]
disabled = true
certs = ["cn:gone"]
[users.over]
not_after = 2020-01-01T00:00:00Z
[users.plain]
"""


@pytest.fixture(scope="module")
def authority():
    return Authority()


def dns(name):
    return x509.DNSName(name)


def uri(name):
    return x509.UniformResourceIdentifier(name)


def email(name):
    return x509.RFC822Name(name)


def whose(issued, users=USERS, **options):
    return identify(issued.der, Users.parse(users), NOW, **options)


@pytest.mark.parametrize(
    ("common_names", "names", "user", "how"),
    [
        (["alice"], [], "alice", "cn:alice"),
        (["x"], [dns("alice.example")], "alice", "dns:alice.example"),
        (["x"], [dns("y.example"), dns("alice.example")], "alice", "dns:alice.example"),
        (["x"], [email("alice@example.org")], "alice", "email:alice@example.org"),
        (["x"], [uri("trigear://acme/alice")], "alice", "uri:trigear://acme/alice"),
        ([], [uri("trigear://default/plain")], "plain", "uri:trigear://default/plain"),
        (["x"], [uri("https://example.org"), uri("trigear://acme/alice")], "alice", "uri:trig"),
        (["alice"], [dns("alice.example"), uri("trigear://acme/alice")], "alice", "uri:trig"),
    ],
)
def test_a_certificate_is_the_users_whom_its_names_lead_to(
    authority, common_names, names, user, how
):
    match = whose(authority.issue(*common_names, names=names))
    assert match.user is not None
    assert match.user.name == user
    assert match.how.startswith(how)
    assert match.certificate.common_names == tuple(common_names)


@pytest.mark.parametrize(
    ("common_names", "names", "how"),
    [
        (["x"], [], "nobody lists"),
        ([], [], "nobody lists"),
        (["Alice"], [], "nobody lists"),
        (["alice "], [], "nobody lists"),
        (["alice\0.evil"], [], "nobody lists"),
        (["bob\0"], [], "nobody lists"),
        (["alice.example"], [], "nobody lists"),
        (["plain"], [], "nobody lists"),
        (["acme/alice"], [], "nobody lists"),
        (["x"], [dns("*.example")], "nobody lists"),
        (["x"], [dns("*")], "nobody lists"),
        (["x"], [dns("ALICE.example")], "nobody lists"),
        (["x"], [dns("alice.example.")], "nobody lists"),
        (["x"], [dns("alice.example\0.evil.org")], "nobody lists"),
        (["x"], [dns("alice")], "nobody lists"),
        (["x"], [email("alice.example")], "nobody lists"),
        (["x"], [email("Alice@example.org")], "nobody lists"),
        (["x"], [uri("https://acme/alice")], "nobody lists"),
        (["alice", "bob"], [], "nobody lists"),
        (["alice", "alice"], [], "nobody lists"),
        (["x"], [dns("alice.example"), dns("bob.example")], "more than one: dns:alice.exam"),
        (["bob"], [dns("alice.example")], "more than one"),
        (["bob"], [uri("trigear://acme/alice")], "more than one"),
        (["alice"], [uri("trigear://acme/nobody")], "uri:trigear://acme/nobody nobody"),
        (["x"], [uri("trigear://acme/nobody")], "names nobody"),
        (["x"], [uri("trigear://other/alice")], "names nobody"),
        (["x"], [uri("trigear://alice")], "names nobody"),
        (["x"], [uri("trigear:acme/alice")], "names nobody"),
        (["x"], [uri("trigear://acme/alice/")], "names nobody"),
        (["x"], [uri("trigear://acme/alice?x")], "names nobody"),
        (["x"], [uri("trigear://acme/ali%63e")], "names nobody"),
        (["x"], [uri("trigear://acme//alice")], "names nobody"),
        (["x"], [uri("TRIGEAR://acme/alice")], "names nobody"),
        (["x"], [uri("trigear://ACME/alice")], "names nobody"),
        (["x"], [uri("trigear://acme/alice"), uri("trigear://default/bob")], "2 URIs"),
        (["x"], [uri("trigear://acme/alice"), uri("trigear://acme/alice")], "2 URIs"),
        (["alice"], [uri("trigear://acme/alice"), uri("Trigear://x")], "2 URIs"),
        (["gone"], [], "cn:gone is gone, who is shut out"),
        (["x"], [uri("trigear://default/over")], "over, who is shut out"),
        (["gone"], [dns("alice.example")], "more than one"),
    ],
)
def test_t27_odd_and_ambiguous_certificates_are_nobodys(authority, common_names, names, how):
    match = whose(authority.issue(*common_names, names=names))
    assert match.user is None
    assert how in match.how


def test_a_certificate_is_known_by_its_fingerprint_whatever_it_says(authority):
    issued = authority.issue("whoever")
    pinned = f"[users.pinned]\ncerts = ['sha256:{hashlib.sha256(issued.der).hexdigest()}']"
    match = whose(issued, USERS + pinned)
    assert match.user.name == "pinned"
    assert match.how.startswith("sha256:")
    again = authority.issue("whoever", key=issued.key)
    assert whose(again, USERS + pinned).user is None


def test_t27_a_fingerprint_of_one_and_a_name_of_another_is_nobody(authority):
    issued = authority.issue("alice")
    pinned = f"[users.pinned]\ncerts = ['sha256:{hashlib.sha256(issued.der).hexdigest()}']"
    match = whose(issued, USERS + pinned)
    assert match.user is None
    assert "more than one" in match.how


def test_a_certificate_of_version_1_is_known_by_its_common_name_or_its_fingerprint():
    der = x509.load_pem_x509_certificate(VERSION_1).public_bytes(serialization.Encoding.DER)
    assert identify(der, Users.parse(USERS), NOW).user.name == "alice"
    assert read(der).for_clients is None


@pytest.mark.parametrize(
    ("usage", "without", "asked"),
    [
        ([CLIENT], "alice", "alice"),
        ([SERVER, CLIENT], "alice", "alice"),
        (None, "alice", None),
        ([SERVER], "alice", None),
    ],
)
def test_t23_a_certificate_can_be_required_to_say_that_it_is_for_clients(
    authority, usage, without, asked
):
    issued = authority.issue("alice", usage=usage)
    for required, name in ((False, without), (True, asked)):
        user = whose(issued, client_usage=required).user
        assert (user and user.name) == name


def test_a_certificate_ends_when_it_says(authority):
    issued = authority.issue("alice")
    expires = issued.certificate.not_valid_after_utc.timestamp()
    assert whose(issued).certificate.not_after == expires


# Certificates that no parser likes

ORDINARY = Authority().issue("alice", names=[dns("alice.example")], usage=[CLIENT]).der


def twice_the_same_extension(issued):
    """The alternative names once more, in the place of another extension of the same length."""
    der = issued.der
    san, aki = bytes.fromhex("0603551d11"), bytes.fromhex("0603551d23")
    assert der.count(san) == der.count(aki) == 1
    return der.replace(aki, san)


def test_t27_what_cannot_be_read_is_nobodys(authority):
    issued = authority.issue("alice", names=[dns("alice.example")])
    for der in (b"", b"nonsense", issued.der[:-10], twice_the_same_extension(issued)):
        match = identify(der, Users.parse(USERS), NOW)
        assert match.user is None
        assert match.how.startswith("the certificate cannot be read: ")
        assert match.certificate is None


@pytest.mark.filterwarnings("ignore")  # the parser warns of what it will refuse some day
@given(st.data())
def test_t27_no_change_of_a_certificate_makes_reading_it_raise_anything_else(data):
    der = bytearray(ORDINARY)
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    for look in (read, endpoint_hash):
        # Most changes are refused, some make no difference.
        with contextlib.suppress(CertificateError):
            look(bytes(der))


# What a channel is bound to

P256 = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.mark.parametrize(
    ("key", "hash", "algorithm"),
    [
        (P256, hashes.SHA256(), "sha256"),
        (P256, hashes.SHA384(), "sha384"),
        (P256, hashes.SHA512(), "sha512"),
        (RSA, hashes.SHA256(), "sha256"),
        (RSA, hashes.SHA512(), "sha512"),
    ],
    ids=lambda value: getattr(value, "name", type(value).__name__),
)
def test_a_channel_is_bound_to_the_hash_that_the_signature_uses(key, hash, algorithm):
    der = self_signed(key, hash).der
    assert endpoint_hash(der) == hashlib.new(algorithm, der).digest()
    assert endpoint_hash(der) == CBindData.from_der(der).data


def test_a_weak_hash_of_a_signature_is_replaced_by_sha_256():
    der = x509.load_pem_x509_certificate(SIGNED_WITH_SHA_1).public_bytes(serialization.Encoding.DER)
    assert endpoint_hash(der) == hashlib.sha256(der).digest() == CBindData.from_der(der).data


def test_the_hash_of_an_rsa_pss_signature_is_found():
    builder = Authority._builder(subject("x"), subject("x"), RSA, -DAY, DAY)
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), padding.PSS.DIGEST_LENGTH)
    made = builder.sign(RSA, hashes.SHA384(), rsa_padding=pss)
    der = made.public_bytes(serialization.Encoding.DER)
    assert endpoint_hash(der) == hashlib.sha384(der).digest()


def test_a_signature_without_a_hash_binds_nothing():
    assert endpoint_hash(self_signed(ed25519.Ed25519PrivateKey.generate(), None).der) is None


def test_an_unknown_signature_binds_nothing():
    der = self_signed(P256, hashes.SHA256()).der
    known, unknown = bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d04037f")
    assert der.count(known) == 2
    assert endpoint_hash(der.replace(known, unknown)) is None


def test_what_is_no_certificate_binds_nothing_and_says_so():
    with pytest.raises(CertificateError, match="cannot be read"):
        endpoint_hash(b"nonsense")
