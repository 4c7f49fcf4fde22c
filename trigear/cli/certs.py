"""`trigear certs`: an authority of one's own, and certificates of servers and clients by it.

It is made for trying TLS, for tests, and for deployments small enough that a folder is their
authority. Where there is one already, its certificates do as well: the server asks for nothing that
only these have.
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from trigear.cli import logins
from trigear.cli.groups import NearGroup
from trigear.cli.manners import ask, remark, with_help, with_manners
from trigear.cli.manual import examples
from trigear.cli.report import Failure, Status
from trigear.cli.tables import columns, json_option, show
from trigear.cli.values import Kind, Whole
from trigear.errors import ConfigError
from trigear.model import DEFAULT_TENANT
from trigear.security import issuing, replacing, x509id
from trigear.security.users import TENANT_NAME, USER_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NAMES: Final = ("localhost", "127.0.0.1", "::1")
"""What a server is reached by unless told otherwise."""

AUTHORITY_DAYS: Final = 3650
DAYS: Final = 365

AUTHORITY: Final = "trigear authority"
CA, CA_KEY, CRL, SERVER = "ca.pem", "ca-key.pem", "crl.pem", "server"

SOON: Final = datetime.timedelta(days=30)
"""A certificate that ends within this time is remarked upon."""

FILES: Final = columns("file", "purpose")
FOUND: Final = columns("file", "subject", "names", "purpose", "expires", "sha256")


def parse_server_name(value: object) -> x509.GeneralName:
    """A server's name or address, as the type of an argument."""
    return value if isinstance(value, x509.GeneralName) else issuing.server_name(str(value))


def parse_principal(value: object) -> tuple[str, str]:
    """TENANT/NAME, or the name of somebody of the default tenant, as the type of an argument."""
    if isinstance(value, tuple):
        return value
    tenant, slash, name = str(value).rpartition("/")
    tenant = tenant if slash else DEFAULT_TENANT
    if not TENANT_NAME.fullmatch(tenant) or not USER_NAME.fullmatch(name):
        raise ValueError(f"'{value}' is no user: write TENANT/NAME")
    return tenant, name


SERVER_NAME: Final = Kind("name", parse_server_name)
PRINCIPAL: Final = Kind("user", parse_principal)

dir_option = click.option(
    "--dir",
    "folder",
    metavar="DIR",
    help="The folder. Default: certs in $XDG_CONFIG_HOME/trigear or /etc/trigear.",
)
days_option = click.option(
    "--days", type=Whole(1, AUTHORITY_DAYS), default=DAYS, show_default=True, metavar="N",
    help="How long it is valid.",
)  # fmt: skip
force_option = click.option("--force", is_flag=True, help="Replace files that are there already.")


def place_of(folder: str | None) -> Path:
    """The folder, without links and relative parts: it is shown in commands to be copied."""
    usual = os.path.join(os.path.dirname(logins.usual_place()), "certs")
    return Path(os.path.abspath(usual if folder is None else folder))


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def authority_in(folder: Path) -> issuing.Issued:
    """The authority that was made here.

    Raises:
        Failure: none was.
    """
    try:
        return issuing.read_authority(folder / CA, folder / CA_KEY)
    except FileNotFoundError as error:
        raise Failure(
            f"{error.filename}: there is no authority here; `trigear certs init` makes one, and"
            " --dir says where it is"
        ) from error


def refuse_to_replace(paths: Iterable[Path], remedy: str, *, force: bool) -> None:
    """Leave alone what is there.

    Raises:
        Failure: something is.
    """
    there = [str(path) for path in paths if path.exists()]
    if there and not force:
        raise Failure(f"{', '.join(there)}: already there; {remedy}")


def tell(made: Sequence[tuple[Path, str]], *, as_json: bool) -> None:
    show(FILES, [(str(path), what) for path, what in made], as_json=as_json)


def described(certificate: Path, key: Path, whose: str) -> list[tuple[Path, str]]:
    """What is said of a new certificate and its key."""
    return [
        (certificate, f"the certificate of {whose}: --cert"),
        (key, "its private key, to be kept from others: --key"),
    ]


@click.group(
    name="certs",
    cls=NearGroup,
    epilog=examples(
        """
        trigear certs init jobs.example.com 10.0.0.5
        trigear certs client acme/alice
        trigear certs revoke alice.pem
        """
    ),
)
@with_manners
@with_help
def certs_group() -> None:
    """Make certificates for TLS with an authority of your own.

    For trying things out, and for few machines. The authority's key is not encrypted and lies
    beside what it signs: who can read the folder can be anybody. Certificates of any other
    authority do as well: `trigear server --cert, --key, --client-ca`.
    """


@certs_group.command(
    name="init",
    epilog=examples(
        """
        trigear certs init                              # for this machine alone
        trigear certs init jobs.example.com 10.0.0.5
        """
    ),
)
@click.argument("names", metavar="[NAME...]", nargs=-1, type=SERVER_NAME)
@dir_option
@days_option
@force_option
@json_option
@with_manners
@with_help
def init_command(
    names: tuple[x509.GeneralName, ...],
    *,
    folder: str | None,
    days: int,
    force: bool,
    as_json: bool,
) -> int:
    """Make an authority, and a certificate for the server that is reached by these names.

    Names are host names and addresses; without any, the server is that of this machine.
    """
    place = place_of(folder)
    refuse_to_replace(
        [place / CA, place / CA_KEY],
        "`trigear certs server` and `client` make certificates with that authority; --force makes"
        " another one, and what the old one signed is refused then",
        force=force,
    )
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    moment = now()
    authority = issuing.make_authority(AUTHORITY, moment, AUTHORITY_DAYS)
    issuing.write(place, "ca", authority)
    server = issuing.for_server(authority, names or servers(NAMES), moment, days)
    certificate, key = issuing.write(place, SERVER, server)
    made = [
        (place / CA, "the authority: clients and workers trust it by --ca"),
        (place / CA_KEY, "its private key: with it, anybody can be made; keep it safe"),
        *described(certificate, key, "the server"),
    ]
    tell(made, as_json=as_json)
    remark(
        "next: trigear server --auth sasl --listen gearmans://0.0.0.0:4731 --cert"
        f" {certificate} --key {key}"
    )
    return Status.DONE


def servers(names: Iterable[str]) -> tuple[x509.GeneralName, ...]:
    return tuple(map(issuing.server_name, names))


@certs_group.command(
    name="server", epilog=examples("trigear certs server jobs2.example.com --file jobs2")
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=SERVER_NAME)
@click.option(
    "--file",
    "stem",
    default=SERVER,
    show_default=True,
    metavar="STEM",
    help="Write STEM.pem and STEM-key.pem.",
)
@dir_option
@days_option
@force_option
@json_option
@with_manners
@with_help
def server_command(
    names: tuple[x509.GeneralName, ...],
    *,
    stem: str,
    folder: str | None,
    days: int,
    force: bool,
    as_json: bool,
) -> int:
    """Make a certificate for another server, or another one when the first ends.

    A server takes it over at SIGHUP.
    """
    place = place_of(folder)
    authority = authority_in(place)
    issued = issuing.for_server(authority, names, now(), days)
    tell(described(*written(place, stem, issued, force=force), "the server"), as_json=as_json)
    return Status.DONE


@certs_group.command(name="client", epilog=examples("trigear certs client acme/alice"))
@click.argument("user", metavar="TENANT/NAME", type=PRINCIPAL)
@dir_option
@days_option
@force_option
@json_option
@with_manners
@with_help
def client_command(
    user: tuple[str, str], *, folder: str | None, days: int, force: bool, as_json: bool
) -> int:
    """Make a certificate by which the server knows a user.

    The user has to be there as well: `trigear user add NAME --tenant TENANT --no-password`.
    """
    place = place_of(folder)
    authority = authority_in(place)
    tenant, name = user
    principal = f"{tenant}/{name}"
    issued = issuing.for_client(authority, name, [issuing.user_name(principal)], now(), days)
    made = described(*written(place, name, issued, force=force), principal)
    tell(
        [*made, (place / CA, "the authority, by which it knows the server: --ca")], as_json=as_json
    )
    remark(
        "next: a server that has this user lets it in with --auth mtls --client-certs optional"
        f" --client-ca {place / CA}"
    )
    return Status.DONE


def written(place: Path, stem: str, issued: issuing.Issued, *, force: bool) -> tuple[Path, Path]:
    """Write a certificate and its key; returns where.

    Raises:
        click.UsageError: the name is none for a file here.
        Failure: they are there already.
    """
    if not USER_NAME.fullmatch(stem) or stem in {"ca", "crl"} or stem.endswith("-key"):
        raise click.UsageError(f"'{stem}' cannot be the name of the files")
    refuse_to_replace(
        [place / f"{stem}.pem", place / f"{stem}-key.pem"], "--force replaces it", force=force
    )
    return issuing.write(place, stem, issued)


@certs_group.command(
    name="revoke",
    epilog=examples(
        """
        trigear certs revoke alice.pem
        trigear certs revoke                 # only a new list, before the old one ends
        """
    ),
)
@click.argument("files", metavar="[FILE...]", nargs=-1)
@dir_option
@days_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_manners
@with_help
def revoke_command(files: tuple[str, ...], *, folder: str | None, days: int, yes: bool) -> int:
    """Revoke certificates: write them into the authority's revocation list.

    FILE is a certificate, here or in the folder. A server that is started with --crl takes the new
    list over at SIGHUP. A list ends too, after --days, and then the server lets in nobody with a
    certificate: make a new one before.
    """
    place = place_of(folder)
    authority = authority_in(place)
    path = place / CRL
    certificates = [issuing.read_certificate(found(file, place)) for file in files]
    for file, certificate in zip(files, certificates, strict=True):
        if not issuing.is_signed_by(certificate, authority.certificate):
            raise Failure(f"{file}: it is not by the authority in {place}")
    known, _ = revoked_in(path)
    new = [
        file
        for file, one in zip(files, certificates, strict=True)
        if one.serial_number not in known
    ]
    if new and not ask(f"Revoke {', '.join(new)} for good?", yes=yes):
        return Status.NO
    # Whoever revokes at the same time must not have that forgotten.
    with replacing.locked(str(path)):
        entries, number = revoked_in(path)
        before = len(entries)
        for certificate in certificates:
            entries.setdefault(certificate.serial_number, issuing.revoked(certificate, now()))
        pem = issuing.revocation_list(authority, entries.values(), number + 1, now(), days)
        replacing.replace(str(path), pem, mode=0o644)
    remark(
        f"revoked: {len(entries) - before}, altogether {len(entries)}; in {path}, good for {days}"
        " days; a server with --crl takes it over at SIGHUP"
    )
    return Status.DONE


def revoked_in(path: Path) -> tuple[dict[int, x509.RevokedCertificate], int]:
    """What a revocation list holds, by serial numbers, and the list's own number; nothing and 0 if
    there is no such file."""
    if not path.exists():
        return {}, 0
    old = revocation_list_in(path)
    number = old.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    return {entry.serial_number: entry for entry in old}, number


def revocation_list_in(path: Path) -> x509.CertificateRevocationList:
    try:
        return x509.load_pem_x509_crl(path.read_bytes())
    except ValueError as error:
        raise ConfigError(str(path), "it is no revocation list", "move it away") from error


def found(file: str, place: Path) -> Path:
    """A certificate's file, named as from here or as in the folder.

    Raises:
        Failure: there is none.
    """
    for path in (Path(file), place / file):
        if path.exists():
            return path
    raise Failure(f"{file}: there is no such file, neither here nor in {place}")


@certs_group.command(
    name="show", epilog=examples("trigear certs show\ntrigear certs show /etc/ssl/jobs.pem --json")
)
@click.argument("files", metavar="[FILE...]", nargs=-1)
@dir_option
@json_option
@with_manners
@with_help
def show_command(files: tuple[str, ...], *, folder: str | None, as_json: bool) -> int:
    """Show certificates: whose, for which names, for what, and until when.

    Without a FILE, all in the folder, and a word about the revocation list if it ends soon. Exit
    status 1 if something has expired.
    """
    place = place_of(folder)
    paths = [found(file, place) for file in files] or sorted(
        path
        for path in place.glob("*.pem")
        if not path.name.endswith("-key.pem") and path.name != CRL
    )
    certificates = [(path, issuing.read_certificate(path)) for path in paths]
    show(
        FOUND,
        [(str(path), *facts(certificate)) for path, certificate in certificates],
        as_json=as_json,
        nothing=f"no certificates in {place}; `trigear certs init` makes some",
    )
    ends = [(path, certificate.not_valid_after_utc) for path, certificate in certificates]
    if not files and (place / CRL).exists():
        end = revocation_list_in(place / CRL).next_update_utc
        # One that never ends would be somebody else's.
        ends += [] if end is None else [(place / CRL, end)]
    moment = now()
    for path, end in ends:
        renew = "; `trigear certs revoke` makes a new one" if path.name == CRL else ""
        if end <= moment:
            remark(f"{path}: it has expired{renew}")
        elif end <= moment + SOON:
            remark(f"{path}: it expires in {(end - moment).days} days{renew}")
    return Status.NO if any(end <= moment for _, end in ends) else Status.DONE


def facts(certificate: x509.Certificate) -> tuple[Any, ...]:
    """The columns about a certificate."""
    return (
        certificate.subject.rfc4514_string(),
        tuple(names_of(certificate)),
        purpose_of(certificate),
        certificate.not_valid_after_utc.isoformat(),
        certificate.fingerprint(hashes.SHA256()).hex(),
    )


def names_of(certificate: x509.Certificate) -> list[str]:
    extension = x509id.extension(certificate, x509.SubjectAlternativeName)
    return [] if extension is None else [str(name.value) for name in extension]


def purpose_of(certificate: x509.Certificate) -> str:
    """What a certificate says that it is for."""
    constraints = x509id.extension(certificate, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        return "authority"
    usage = x509id.extension(certificate, x509.ExtendedKeyUsage)
    known = {
        ExtendedKeyUsageOID.SERVER_AUTH: "server",
        ExtendedKeyUsageOID.CLIENT_AUTH: "client",
    }
    return "any" if usage is None else " ".join(known.get(one, "other") for one in usage)
