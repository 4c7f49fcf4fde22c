"""Certificates that we make: by the letter, for one purpose, not longer than their authority."""

from __future__ import annotations

import datetime
import stat
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.security.certificates import Authority
from trigear.errors import ConfigError
from trigear.security import issuing, x509id

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.fixture(scope="module")
def authority() -> issuing.Issued:
    return issuing.make_authority("us", NOW, 100)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("localhost", x509.DNSName),
        ("*.jobs.example", x509.DNSName),
        ("10.0.0.5", x509.IPAddress),
        ("::1", x509.IPAddress),
    ],
)
def test_a_server_is_reached_by_names_and_addresses(text, kind):
    name = issuing.server_name(text)
    assert type(name) is kind
    assert str(name.value) == text


@pytest.mark.parametrize("text", ["", "a b", "host:4730", "a/b", "a,b", "a@b", "jöbs.example"])
def test_what_is_no_name_is_refused(text):
    with pytest.raises(ValueError, match=r"neither a host name|not ASCII"):
        issuing.server_name(text)


def test_a_client_is_who_its_certificate_says(authority):
    name = [issuing.user_name("acme/alice")]
    issued = issuing.for_client(authority, "alice", name, NOW, 10)
    read = x509id.read(issued.certificate.public_bytes(serialization.Encoding.DER))
    assert (read.uris, read.common_names) == (("trigear://acme/alice",), ("alice",))
    assert read.for_clients is True
    assert issuing.is_signed_by(issued.certificate, authority.certificate)
    assert issued.certificate.not_valid_before_utc < NOW
    assert issued.certificate.not_valid_after_utc == NOW + 10 * DAY


def test_a_certificate_ends_with_its_authority(authority):
    issued = issuing.for_server(authority, [issuing.server_name("localhost")], NOW, 1000)
    assert issued.certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc
    assert x509id.read(issued.certificate.public_bytes(serialization.Encoding.DER)).for_clients is (
        False
    )


def test_a_name_that_is_too_long_for_a_subject_stands_among_the_others_whole(authority):
    long = "a" * 60 + ".example"
    issued = issuing.for_server(authority, [issuing.server_name(long)], NOW, 1)
    (common,) = issued.certificate.subject
    assert common.value == long[:64]
    names = x509id.extension(issued.certificate, x509.SubjectAlternativeName)
    assert names.get_values_for_type(x509.DNSName) == [long]


def test_who_signed_a_certificate_is_known(authority):
    other = issuing.make_authority("us", NOW, 100)  # of the same name
    issued = issuing.for_server(authority, [issuing.server_name("localhost")], NOW, 1)
    assert issuing.is_signed_by(issued.certificate, authority.certificate)
    assert not issuing.is_signed_by(issued.certificate, other.certificate)
    assert not issuing.is_signed_by(issued.certificate, Authority("them").certificate)


def test_a_list_tells_what_is_revoked(authority):
    issued = issuing.for_client(authority, "a", [issuing.user_name("t/a")], NOW, 1)
    pem = issuing.revocation_list(authority, [issuing.revoked(issued.certificate, NOW)], 7, NOW, 30)
    made = x509.load_pem_x509_crl(pem)
    assert made.is_signature_valid(authority.certificate.public_key())
    assert [entry.serial_number for entry in made] == [issued.certificate.serial_number]
    assert made.next_update_utc == NOW + 30 * DAY
    assert made.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 7


def test_an_authority_is_read_as_it_was_written(authority, tmp_path: Path):
    certificate, key = issuing.write(tmp_path, "ca", authority)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    read = issuing.read_authority(certificate, key)
    assert read.certificate == authority.certificate
    assert read.key_pem == authority.key_pem
    # A key that is there keeps nothing of its mode.
    key.chmod(0o644)
    issuing.write(tmp_path, "ca", authority)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def pem_of(key, password: bytes | None = None) -> bytes:
    encryption = (
        serialization.NoEncryption()
        if password is None
        else serialization.BestAvailableEncryption(password)
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (b"", "it holds no private key that can be read"),
        (pem_of(ec.generate_private_key(ec.SECP256R1()), b"x"), "it holds no private key that can"),
        (pem_of(rsa.generate_private_key(65537, 2048)), "its key is of another kind"),
        (pem_of(ec.generate_private_key(ec.SECP256R1())), "it does not belong to"),
    ],
)
def test_a_key_that_is_not_the_authoritys_is_refused(authority, tmp_path: Path, key, says):
    certificate, place = issuing.write(tmp_path, "ca", authority)
    place.write_bytes(key)
    with pytest.raises(ConfigError, match=says):
        issuing.read_authority(certificate, place)


def test_a_file_without_a_certificate_is_refused(tmp_path: Path):
    file = tmp_path / "x.pem"
    file.write_text("no")
    with pytest.raises(ConfigError, match="there is no certificate in it"):
        issuing.read_certificate(file)
