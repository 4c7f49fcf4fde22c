"""Certificates of an authority of one's own: for trying TLS, for tests, for a few machines.

They pass verification by the letter of RFC 5280 (``VERIFY_X509_STRICT``): each says what its key is
for, which names it has, and who signed it. The authority signs certificates of servers and clients,
and no further authorities.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from trigear.errors import ConfigError
from trigear.security.x509id import SCHEME

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

CLOCK_SKEW: Final = datetime.timedelta(minutes=5)
"""So much before it was made a certificate is valid already, for machines whose clocks are late."""

COMMON_NAME_LIMIT: Final = 64
"""Characters of a common name, by RFC 5280; what is longer stands among the alternative names."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key, not encrypted: keep it from others."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def server_name(text: str) -> x509.GeneralName:
    """A name that a server is reached by: an IP address, or else a DNS name.

    Raises:
        ValueError: it can be neither.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        if not text.isascii():
            raise ValueError(f"{text}: not ASCII; write the name's xn-- form") from None
        if not text or set(text) & set(" /:@,"):
            raise ValueError(f"{text!r}: neither a host name nor an IP address") from None
        return x509.DNSName(text)


def user_name(principal: str) -> x509.GeneralName:
    """The name of a user, `TENANT/NAME`, in a certificate: the server knows whose it is by that."""
    return x509.UniformResourceIdentifier(f"{SCHEME}//{principal}")


def make_authority(name: str, now: datetime.datetime, days: int) -> Issued:
    """A self-signed authority.

    Args:
        name: what it is called.
        now: the time, with zone.
        days: how long it is valid.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, None, key, now, now + datetime.timedelta(days=days))
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(
            # RFC 5280 lets a self-signed certificate leave this out; some strict verifiers do not.
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return Issued(certificate, key)


def for_server(
    authority: Issued, names: Sequence[x509.GeneralName], now: datetime.datetime, days: int
) -> Issued:
    """A certificate of a server.

    Args:
        authority: who signs it.
        names: what the server is reached by; at least one.
        now: the time, with zone.
        days: how long it is valid, at most as long as the authority.
    """
    return _end(authority, str(names[0].value), ExtendedKeyUsageOID.SERVER_AUTH, names, now, days)


def for_client(
    authority: Issued,
    common_name: str,
    names: Sequence[x509.GeneralName],
    now: datetime.datetime,
    days: int,
) -> Issued:
    """A certificate of a client or worker; the arguments are those of :func:`for_server`, and what
    its owner is called."""
    return _end(authority, common_name, ExtendedKeyUsageOID.CLIENT_AUTH, names, now, days)


def revocation_list(
    authority: Issued,
    revoked: Iterable[x509.RevokedCertificate],
    number: int,
    now: datetime.datetime,
    days: int,
) -> bytes:
    """The authority's list of revoked certificates, PEM.

    Args:
        authority: whose list.
        revoked: the entries.
        number: of this list; each later one has a larger number.
        now: the time, with zone.
        days: when the next list is due. After that nobody is let in.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - CLOCK_SKEW)
        .next_update(now + datetime.timedelta(days=days))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
    )
    for entry in revoked:
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def revoked(certificate: x509.Certificate, now: datetime.datetime) -> x509.RevokedCertificate:
    """The entry of a revocation list for a certificate."""
    return (
        x509.RevokedCertificateBuilder()
        .serial_number(certificate.serial_number)
        .revocation_date(now)
        .build()
    )


def is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether an authority has signed a certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a file.

    Raises:
        ConfigError: there is none.
        OSError: the file cannot be read.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except ValueError as error:
        raise ConfigError(str(path), "there is no certificate in it", "name a PEM file") from error


def read_authority(certificate: Path, key: Path) -> Issued:
    """An authority that was made before.

    Raises:
        ConfigError: the files are not those of one.
        OSError: they cannot be read.
    """
    signer = read_certificate(certificate)
    try:
        found = serialization.load_pem_private_key(key.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            str(key), "it holds no private key that can be read", "name an unencrypted PEM file"
        ) from error
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise ConfigError(str(key), "its key is of another kind", "make an authority of its own")
    if found.public_key() != signer.public_key():
        raise ConfigError(str(key), f"it does not belong to {certificate}", "restore the right one")
    return Issued(signer, found)


def write(folder: Path, stem: str, issued: Issued) -> tuple[Path, Path]:
    """Write a certificate and its key as `STEM.pem` and `STEM-key.pem`; the key for its owner only.

    Raises:
        OSError: they cannot be written.
    """
    certificate, key = folder / f"{stem}.pem", folder / f"{stem}-key.pem"
    # Created with its final mode: at no moment can anybody else read it.
    key.unlink(missing_ok=True)
    descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(issued.key_pem)
    certificate.write_bytes(issued.certificate_pem)
    return certificate, key


def _end(
    authority: Issued,
    common_name: str,
    purpose: x509.ObjectIdentifier,
    names: Sequence[x509.GeneralName],
    now: datetime.datetime,
    days: int,
) -> Issued:
    """A certificate for one purpose, signed by the authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = authority.certificate
    # What outlives its authority is worth nothing then; this way its own end says so.
    end = min(now + datetime.timedelta(days=days), signer.not_valid_after_utc)
    certificate = (
        _builder(common_name, signer.subject, key, now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )
    return Issued(certificate, key)


def _builder(
    common_name: str,
    issuer: x509.Name | None,
    key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    """What every certificate here has in common."""
    name = common_name[:COMMON_NAME_LIMIT]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
