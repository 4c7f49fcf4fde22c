"""Authorities, certificates and revocation lists as tests need them, odd ones included."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from pathlib import Path

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
DAY = datetime.timedelta(days=1)


def today() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclass
class Issued:
    """A certificate with its key, and the chain up to an authority if it has one."""

    certificate: x509.Certificate
    key: Any

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, password: bytes | None = None) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password)
            if password
            else serialization.NoEncryption(),
        )

    def write(self, folder: Path, name: str) -> tuple[str, str]:
        """The paths of certificate and key."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
        certificate.write_bytes(self.pem)
        key.write_bytes(self.key_pem())
        key.chmod(0o600)
        return str(certificate), str(key)


def subject(*common_names: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names])


class Authority(Issued):
    """Signs what it is asked to."""

    def __init__(self, name: str = "tests", *, expires: datetime.timedelta = 30 * DAY) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            self._builder(subject(name), subject(name), key, -2 * DAY, expires)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
        )
        super().__init__(builder.sign(key, hashes.SHA256()), key)

    @staticmethod
    def _builder(owner, issuer, key, begins, expires) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(owner)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(today() + begins)
            .not_valid_after(today() + expires)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )

    def issue(
        self,
        *common_names: str,
        names: list[x509.GeneralName] | None = None,
        usage: list[x509.ObjectIdentifier] | None = None,
        key: Any = None,
        hash: Any = None,
        begins: datetime.timedelta = -DAY,
        expires: datetime.timedelta = 20 * DAY,
    ) -> Issued:
        key = key or ec.generate_private_key(ec.SECP256R1())
        issuer = self.certificate.subject
        builder = (
            self._builder(subject(*common_names), issuer, key, begins, expires)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        return Issued(builder.sign(self.key, hash or hashes.SHA256()), key)

    def server(self, name: str = "localhost", **options: Any) -> Issued:
        return self.issue(name, names=[x509.DNSName(name)], usage=[SERVER], **options)

    def client(self, name: str = "alice", **options: Any) -> Issued:
        return self.issue(name, usage=[CLIENT], **options)

    def crl(self, *revoked: Issued, expires: datetime.timedelta = 10 * DAY) -> bytes:
        """A revocation list, PEM."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(today() - 2 * DAY)
            .next_update(today() + expires)
        )
        for one in revoked:
            entry = (
                x509.RevokedCertificateBuilder()
                .serial_number(one.certificate.serial_number)
                .revocation_date(today() - DAY)
            )
            builder = builder.add_revoked_certificate(entry.build())
        made = builder.sign(self.key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM)


def self_signed(key: Any, hash: Any) -> Issued:
    """A certificate with a signature of a certain kind."""
    builder = Authority._builder(subject("x"), subject("x"), key, -DAY, DAY)
    return Issued(builder.sign(key, hash), key)


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
