"""Whose a certificate is, and what a channel is bound to by it.

A certificate has passed OpenSSL's verification before anything here looks at it: what is read are
names in a document that a trusted authority signed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from trigear.errors import TrigearError

if TYPE_CHECKING:
    from trigear.security.users import User, Users

Extension = TypeVar("Extension", bound=x509.ExtensionType)

SCHEME: Final = "trigear:"
"""Of the URI in a certificate that names its user: `trigear://TENANT/NAME`."""

# What the parser raises for certificates that OpenSSL lets pass.
_PARSER_ERRORS: Final = (
    ValueError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class CertificateError(TrigearError):
    """A certificate cannot be read."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says about its owner.

    Args:
        fingerprint: SHA-256 of the certificate, 64 hexadecimal digits.
        uris, dns, emails: the alternative names of these kinds.
        common_names: of the subject; one, as a rule.
        not_after: seconds since 1970 when it expires.
        for_clients: whether it says that it is for clients; None: it says nothing about purposes.
    """

    fingerprint: str
    uris: tuple[str, ...]
    dns: tuple[str, ...]
    emails: tuple[str, ...]
    common_names: tuple[str, ...]
    not_after: float
    for_clients: bool | None


def read(der: bytes) -> Certificate:
    """Read a certificate. Raises CertificateError if that is not possible."""
    try:
        parsed = x509.load_der_x509_certificate(der)
        names = extension(parsed, x509.SubjectAlternativeName)
        usage = extension(parsed, x509.ExtendedKeyUsage)
        common_names = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return Certificate(
            fingerprint=hashlib.sha256(der).hexdigest(),
            uris=_values(names, x509.UniformResourceIdentifier),
            dns=_values(names, x509.DNSName),
            emails=_values(names, x509.RFC822Name),
            common_names=tuple(str(name.value) for name in common_names),
            not_after=parsed.not_valid_after_utc.timestamp(),
            for_clients=None if usage is None else ExtendedKeyUsageOID.CLIENT_AUTH in usage,
        )
    except _PARSER_ERRORS as error:
        raise CertificateError(f"the certificate cannot be read: {error}") from error


def marks(certificate: Certificate) -> list[str]:
    """What a user may list to be known by this certificate: its fingerprint, then its names."""
    found = [f"sha256:{certificate.fingerprint}"]
    found += [f"dns:{name}" for name in certificate.dns]
    found += [f"email:{name}" for name in certificate.emails]
    # Of several common names none is the name of the subject.
    if len(certificate.common_names) == 1:
        found += [f"cn:{name}" for name in certificate.common_names]
    return found


class Match(NamedTuple):
    """Whose a certificate is. ``how`` is the mark that decided, or the reason why it is nobody's;
    it is meant for logs."""

    user: User | None
    how: str
    certificate: Certificate | None = None


def identify(der: bytes, users: Users, now: float, *, client_usage: bool = False) -> Match:
    """Find the one user whom a verified certificate belongs to.

    It belongs to a user by its fingerprint, by a `trigear:` URI, or by a DNS name, an e-mail
    address or the common name, where the user lists them. Names are compared whole and byte by
    byte. If different users are found, it is nobody's.

    Args:
        der: the certificate.
        users: who there is.
        now: seconds since 1970.
        client_usage: whether it must say that it is for clients.
    """
    try:
        certificate = read(der)
    except CertificateError as error:
        return Match(None, str(error))
    if client_usage and not certificate.for_clients:
        return Match(None, "the certificate does not say that it is for clients", certificate)
    claims = [uri for uri in certificate.uris if uri.lower().startswith(SCHEME)]
    if len(claims) > 1:
        return Match(None, f"the certificate has {len(claims)} URIs of {SCHEME}", certificate)
    claimed = {f"uri:{claim}": _claimed(claim, users) for claim in claims}
    listed = {mark: users.of_certificate(mark) for mark in marks(certificate)}
    # A mark that nobody lists says nothing. A URI of ours that names nobody does: it is no name of
    # anybody else either.
    found = claimed | {mark: user for mark, user in listed.items() if user is not None}
    return _only(found, certificate, now)


def endpoint_hash(der: bytes) -> bytes | None:
    """What `tls-server-end-point` binds a channel to: the hash of the server's certificate.

    The hash is that of the certificate's signature, SHA-256 in the place of MD5 and SHA-1 (RFC
    5929). None where the signature has none, as with Ed25519: then there is no such binding.

    Raises:
        CertificateError: the certificate cannot be read.
    """
    try:
        algorithm = x509.load_der_x509_certificate(der).signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    except _PARSER_ERRORS as error:
        raise CertificateError(f"the certificate cannot be read: {error}") from error
    if algorithm is None:
        return None
    if isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        algorithm = hashes.SHA256()
    digest = hashes.Hash(algorithm)
    digest.update(der)
    return digest.finalize()


def extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    """The extension of this kind, if a certificate has it."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _values(
    names: x509.SubjectAlternativeName | None,
    kind: type[x509.DNSName | x509.UniformResourceIdentifier | x509.RFC822Name],
) -> tuple[str, ...]:
    return () if names is None else tuple(names.get_values_for_type(kind))


def _claimed(uri: str, users: Users) -> User | None:
    """The user whom a URI names; it need not be listed, but it must be right to the letter."""
    user = users.get(uri.rpartition("/")[2])
    return user if user is not None and uri == f"{SCHEME}//{user.principal}" else None


def _only(found: dict[str, User | None], certificate: Certificate, now: float) -> Match:
    if not found:
        return Match(None, "nobody lists this certificate", certificate)
    mark, user = next(iter(found.items()))
    if any(other is not user for other in found.values()):
        names = ", ".join(
            f"{mark} {other.name if other else 'nobody'}" for mark, other in found.items()
        )
        return Match(None, f"the certificate belongs to more than one: {names}", certificate)
    if user is None:
        return Match(None, f"{mark} names nobody", certificate)
    if not user.in_force(now):
        return Match(None, f"{mark} is {user.name}, who is shut out", certificate)
    return Match(user, mark, certificate)
