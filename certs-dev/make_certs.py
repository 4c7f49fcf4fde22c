#!/usr/bin/env python3
"""Makes certificates for development: an authority of your own, a server's and a client's.

The keys are unencrypted and the authority is nobody's: use them on your own machine and for tests,
nowhere else. What it writes, all PEM, keys readable by their owner only:

    ca.pem ca-key.pem           the authority
    server.pem server-key.pem   for the names given with --name
    client.pem client-key.pem   for the client called --client
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DEFAULT_NAMES = ("localhost", "127.0.0.1", "::1")
DEFAULT_DAYS = 90
CLOCK_SKEW = datetime.timedelta(minutes=5)


@dataclass(frozen=True)
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def general_name(name: str) -> x509.GeneralName:
    """An address if `name` is one, else a DNS name. Raises ValueError if it can be neither."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        if not name.isascii():
            raise ValueError(f"{name}: not ASCII; write the name's xn-- form") from None
        if not name or set(name) & set(" /:@,"):
            raise ValueError(f"{name!r}: neither a host name nor an IP address") from None
        return x509.DNSName(name)


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def builder(
    common_name: str, issuer: x509.Name | None, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    """What every certificate here has in common."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def make_authority(days: int) -> Issued:
    """A self-signed authority that may sign end certificates and no further authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        builder("trigear development authority", None, key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .add_extension(
            # RFC 5280 lets a self-signed certificate leave this out; some strict verifiers do not.
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return Issued(certificate, key)


def make_end(
    authority: Issued,
    common_name: str,
    purpose: x509.ObjectIdentifier,
    names: list[x509.GeneralName],
    days: int,
) -> Issued:
    """A certificate for one purpose, signed by the authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        builder(common_name, authority.certificate.subject, key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )
    return Issued(certificate, key)


def write(folder: Path, stem: str, issued: Issued) -> None:
    key_pem = issued.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key_path = folder / f"{stem}-key.pem"
    # Created with its final mode: at no moment can anybody else read it.
    key_path.unlink(missing_ok=True)
    descriptor = os.open(key_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key_pem)
    pem = issued.certificate.public_bytes(serialization.Encoding.PEM)
    (folder / f"{stem}.pem").write_bytes(pem)


def existing_files(folder: Path) -> list[str]:
    stems = ("ca", "server", "client")
    candidates = [f"{stem}{end}" for stem in stems for end in (".pem", "-key.pem")]
    return [name for name in candidates if (folder / name).exists()]


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(
        description="Make an authority, a server and a client certificate for development.",
        epilog="For tests and your own machine only: keys are not encrypted.",
    )
    parser.add_argument(
        *("-n", "--name"),
        action="append",
        dest="names",
        metavar="NAME",
        help=f"host name or address of the server, repeatable (default: {' '.join(DEFAULT_NAMES)})",
    )
    parser.add_argument(
        *("-c", "--client"),
        default="client",
        metavar="NAME",
        help="name in the client certificate (default: %(default)s)",
    )
    parser.add_argument(
        *("-d", "--days"),
        type=int,
        default=DEFAULT_DAYS,
        help="days until they expire (default: %(default)s)",
    )
    parser.add_argument(
        *("-o", "--out"),
        type=Path,
        default=here / "out",
        metavar="DIR",
        help="folder to write to, made if missing (default: %(default)s)",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace certificates that are already there"
    )
    options = parser.parse_args(arguments)
    if not 1 <= options.days <= 3650:
        parser.error(f"--days {options.days}: from 1 to 3650")
    try:
        options.server_names = [general_name(name) for name in options.names or DEFAULT_NAMES]
        options.client_names = [general_name(options.client)]
    except ValueError as error:
        parser.error(str(error))
    return options


def main(arguments: list[str] | None = None) -> int:
    """Write the files. Returns the exit status: 0 done, 1 not done (2, usage, exits by itself)."""
    options = parse_arguments(arguments)
    folder: Path = options.out
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = existing_files(folder)
        if there and not options.force:
            print(
                f"{folder}: {', '.join(there)} already there; "
                "--force replaces them, --out DIR writes elsewhere",
                file=sys.stderr,
            )
            return 1
        authority = make_authority(options.days)
        write(folder, "ca", authority)
        server_names: list[x509.GeneralName] = options.server_names
        server = make_end(
            authority,
            str(server_names[0].value),
            ExtendedKeyUsageOID.SERVER_AUTH,
            server_names,
            options.days,
        )
        write(folder, "server", server)
        client = make_end(
            authority,
            options.client,
            ExtendedKeyUsageOID.CLIENT_AUTH,
            options.client_names,
            options.days,
        )
        write(folder, "client", client)
    except OSError as error:
        print(
            f"{error.filename or folder}: {error.strerror}; nothing more is written",
            file=sys.stderr,
        )
        return 1
    print(f"wrote {', '.join(existing_files(folder))} to {folder}, valid for {options.days} days")
    return 0


if __name__ == "__main__":
    sys.exit(main())
