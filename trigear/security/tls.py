"""TLS for both sides: contexts said in full, and certificates that are replaced only by good ones.

A context that connections use is never changed. A reload builds another one, shakes hands with
itself in memory, and only then puts it in the place of the old. Nothing here reads or writes a
socket: connections are :class:`ssl.SSLObject`, made by who uses a context.
"""

from __future__ import annotations

import contextlib
import enum
import math
import os
import ssl
import stat
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from trigear.errors import ConfigError
from trigear.model import public
from trigear.security.x509id import CertificateError, endpoint_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ALPN: Final = "gearman"

END_POINT: Final = "tls-server-end-point"
UNIQUE: Final = "tls-unique"

# Of TLS 1.2. What 1.3 has is good as it comes.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"

_OPTIONS: Final = (
    ssl.OP_NO_COMPRESSION
    | ssl.OP_NO_RENEGOTIATION
    | ssl.OP_NO_TICKET
    | ssl.OP_CIPHER_SERVER_PREFERENCE
)

VERSIONS: Final = MappingProxyType({"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3})

Parsed = TypeVar("Parsed")


class ClientCertificates(enum.Enum):
    """Whether a listener asks its clients for certificates. Where it does, a bad one is refused
    also when none would be let in."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


_VERIFY: Final = {
    ClientCertificates.NONE: ssl.CERT_NONE,
    ClientCertificates.OPTIONAL: ssl.CERT_OPTIONAL,
    ClientCertificates.REQUIRED: ssl.CERT_REQUIRED,
}


@dataclass(frozen=True, slots=True)
class ServerTLS:
    """How a listener speaks TLS. Files are PEM.

    Args:
        certificate: path of the certificate, followed by those between it and the authority.
        key: path of its private key, not encrypted.
        clients: whether clients are asked for certificates.
        client_ca: path of the authorities whose client certificates are accepted.
        crl: path of the revocation lists of these authorities.
        minimum: the oldest version, `1.2` or `1.3`.
        strict: whether certificates must hold to RFC 5280 in every detail.
        names: further certificates, by the host name that a client asks for.
    """

    certificate: str
    key: str
    clients: ClientCertificates = ClientCertificates.NONE
    client_ca: str = ""
    crl: str = ""
    minimum: str = "1.2"
    strict: bool = False
    names: Mapping[str, ServerTLS] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        _known_version("tls_min", self.minimum)
        asked = self.clients is not ClientCertificates.NONE
        if asked and not self.client_ca:
            raise ConfigError(
                "client_ca",
                f"client certificates are {self.clients.value}, and no authority is named",
                "name the file with the authority that signs them",
            )
        for setting, path in (("client_ca", self.client_ca), ("crl", self.crl)):
            if path and not asked:
                raise ConfigError(
                    setting,
                    f"{path} has no effect, because no client is asked for a certificate",
                    "make client certificates optional or required, or leave it out",
                )
        for name, other in self.names.items():
            if self._demands() != other._demands():
                # OpenSSL has decided what it asks of a client before the client says which name it
                # wants: the second context would change the certificate and not the demand.
                raise ConfigError(
                    f"names.{name}",
                    "other demands on clients than the listener's",
                    "give names that differ in that a listener of their own",
                )

    def _demands(self) -> tuple[object, ...]:
        return self.clients, self.client_ca, self.crl, self.minimum, self.strict


@public
@dataclass(frozen=True, slots=True)
class ClientTLS:
    """How a client speaks TLS. Files are PEM.

    Args:
        ca: path of the authorities to trust; empty: those of the system.
        certificate: path of the client's own certificate, if it has one.
        key: path of its private key, not encrypted.
        minimum: the oldest version, `1.2` or `1.3`.
        strict: whether certificates must hold to RFC 5280 in every detail.
        verify: whether the server must prove to be the one that was asked for. Without, the
            connection is hidden from listeners and open to whoever stands in the way.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""
    minimum: str = "1.2"
    strict: bool = False
    verify: bool = True

    def __post_init__(self) -> None:
        _known_version("tls_min", self.minimum)
        for here, there, missing in (
            ("cert", self.certificate, self.key),
            ("key", self.key, self.certificate),
        ):
            if there and not missing:
                raise ConfigError(
                    here, f"{there} alone is of no use", "name both certificate and key"
                )


class ServerContext(ssl.SSLContext):
    """A context, with what belongs to its certificate."""

    endpoint_hash: bytes | None = None
    """What :data:`END_POINT` binds to; None: this certificate cannot be bound to."""

    generation: int = 1
    """Which context of its listener it is."""

    expires: float = 0.0
    """Seconds since 1970 when the certificate expires."""

    crl_ends: float = math.inf
    """Seconds since 1970 when the first of the revocation lists is out of date."""

    others: Mapping[str, ServerContext] = MappingProxyType({})
    """Contexts of further names."""


class ClientContext(ssl.SSLContext):
    """A client's context. ``verified`` says whether servers have to prove who they are,
    ``certified`` whether the client has a certificate to show."""

    verified: bool = False
    certified: bool = False


class Listening:
    """The context of a listener: the last good one.

    Raises on creation what :meth:`reload` raises.

    Args:
        settings: where the files are and what is asked of clients.
        now: seconds since 1970.
    """

    def __init__(self, settings: ServerTLS, now: float) -> None:
        self.settings = settings
        self.context = build_server(settings, now)

    @property
    def ends(self) -> dict[tuple[str, str], float]:
        """When what is in service ends, in seconds since 1970, by file and what that means."""
        found = {}
        contexts = [(self.settings, self.context)]
        for name, settings in self.settings.names.items():
            contexts.append((settings, self.context.others[name.lower()]))
        for settings, context in contexts:
            found[settings.certificate, "clients refuse this server"] = context.expires
            if settings.crl:
                found[settings.crl, "no client certificate is accepted"] = context.crl_ends
        return found

    def reload(self, now: float, settings: ServerTLS | None = None) -> ServerContext:
        """Read the files anew. Connections that are there keep the context they have; on any error
        new ones get the old one as well.

        Raises:
            ConfigError: something cannot be used; the text names file, reason and next step.
        """
        settings = settings or self.settings
        self.adopt(build_server(settings, now), settings)
        return self.context

    def adopt(self, built: ServerContext, settings: ServerTLS) -> None:
        """Put a context into service that :func:`build_server` made, in a thread perhaps."""
        for context in (built, *built.others.values()):
            context.generation = self.context.generation + 1
        self.settings = settings
        self.context = built


def build_server(settings: ServerTLS, now: float) -> ServerContext:
    """A context for a listener, tried out.

    Args:
        settings: where the files are and what is asked of clients.
        now: seconds since 1970, to tell what has expired.

    Raises:
        ConfigError: something cannot be used; the text names file, reason and next step.
    """
    context = _one_server(settings, now)
    context.others = {name.lower(): _one_server(one, now) for name, one in settings.names.items()}
    if context.others:
        context.sni_callback = _choose
    return context


def build_client(settings: ClientTLS | ClientContext) -> ClientContext:
    """A context for clients; one that is made already is that.

    Raises:
        ConfigError: something cannot be used; the text names file, reason and next step.
    """
    if isinstance(settings, ClientContext):
        return settings
    context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    _basics(context, settings.minimum, settings.strict)
    context.verified = settings.verify
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif settings.ca:
        _certificates(settings.ca)
        _load(settings.ca, lambda: context.load_verify_locations(settings.ca))
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if settings.certificate:
        _check_pair(settings.certificate, settings.key)
        _load_pair(context, settings.certificate, settings.key)
        context.certified = True
    return context


def bindings(connection: ssl.SSLObject) -> dict[str, bytes]:
    """What SCRAM can bind this connection to, by type, after its handshake; for both sides."""
    found = {}
    context = connection.context
    if isinstance(context, ServerContext):
        digest = context.endpoint_hash
    else:
        digest = _quiet_hash(connection.getpeercert(binary_form=True) or b"")
    if digest is not None:
        found[END_POINT] = digest
    # With TLS 1.3 there is no such thing, and asking for it returns something else.
    if connection.version() == "TLSv1.2":
        unique = connection.get_channel_binding(UNIQUE)
        assert unique is not None  # None stands for a handshake that is not over
        found[UNIQUE] = unique
    return found


def shake_hands(one: ssl.SSLObject, other: ssl.SSLObject) -> None:
    """Let two ends of one connection in memory finish their handshake, and then read once, because
    a client of TLS 1.3 hears only then that it was refused.

    Raises:
        ssl.SSLError: one of them refuses the other.
    """
    waiting = [one, other]
    while waiting:
        for end in list(waiting):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
                waiting.remove(end)
    for end in (one, other):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.read(1)


def _one_server(settings: ServerTLS, now: float) -> ServerContext:
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    _basics(context, settings.minimum, settings.strict)
    context.num_tickets = 0
    leaf = _check_pair(settings.certificate, settings.key)
    context.expires = leaf.not_valid_after_utc.timestamp()
    if context.expires <= now:
        raise ConfigError(
            settings.certificate,
            f"it expired on {leaf.not_valid_after_utc:%Y-%m-%d}",
            "put a certificate there that is valid",
        )
    _load_pair(context, settings.certificate, settings.key)
    if settings.clients is not ClientCertificates.NONE:
        authorities = _certificates(settings.client_ca)
        _load(settings.client_ca, lambda: context.load_verify_locations(settings.client_ca))
        if settings.crl:
            context.crl_ends = _check_crl(settings.crl, authorities, now)
            _load(settings.crl, lambda: context.load_verify_locations(settings.crl))
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    served = _try_out(context, settings)
    context.endpoint_hash = _quiet_hash(served)
    context.verify_mode = _VERIFY[settings.clients]
    return context


def _basics(context: ssl.SSLContext, minimum: str, strict: bool) -> None:
    context.minimum_version = VERSIONS[minimum]
    context.set_ciphers(_CIPHERS)
    context.options |= _OPTIONS
    context.set_alpn_protocols([ALPN])
    # Said either way: what is the default depends on the version of Python.
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    else:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT


def _try_out(context: ServerContext, settings: ServerTLS) -> bytes:
    """Shake hands with the context in memory; returns the certificate that it serves."""
    served = b""
    for version in VERSIONS.values():
        if version < context.minimum_version:
            continue
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        client.minimum_version = client.maximum_version = version
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        near = client.wrap_bio(to_client, to_server)
        far = context.wrap_bio(to_server, to_client, server_side=True)
        try:
            shake_hands(near, far)
        except ssl.SSLError as error:
            raise ConfigError(
                settings.certificate,
                f"no client can connect with it: {_reason(error)}",
                "use a certificate for a key of type ECDSA P-256 or RSA",
            ) from error
        served = near.getpeercert(binary_form=True) or b""
    return served


def _choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
    """Serve the certificate for the name that the client asks for."""
    assert isinstance(context, ServerContext)
    other = context.others.get((name or "").lower())
    if other is not None:
        connection.context = other


def _known_version(setting: str, version: str) -> None:
    if version not in VERSIONS:
        raise ConfigError(
            setting, f"{version!r} is no version of TLS", f"write {' or '.join(VERSIONS)}"
        )


# Files, and what can be wrong with them


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(
            path, f"it cannot be read: {error.strerror}", "check the path and its rights"
        ) from error


def _parse(path: str, what: str, parse: Callable[[bytes], Parsed]) -> Parsed:
    try:
        return parse(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            path, f"there is no {what} in it that can be read", "PEM is needed"
        ) from (error)


def _certificates(path: str) -> list[x509.Certificate]:
    return _parse(path, "certificate", x509.load_pem_x509_certificates)


def _check_pair(certificate: str, key: str) -> x509.Certificate:
    """The certificate, if the key is its key and nobody else's business."""
    leaf = _certificates(certificate)[0]
    try:
        private = _parse(
            key, "private key", lambda data: serialization.load_pem_private_key(data, None)
        )
    except TypeError as error:
        raise ConfigError(
            key,
            "it is encrypted, and nobody is there to type its password",
            f"run: openssl pkey -in {key} -out FILE, and keep FILE from others",
        ) from error
    mode = stat.S_IMODE(os.stat(key).st_mode)
    if mode & 0o007:
        raise ConfigError(
            key, f"everybody may get at it (mode {mode:04o})", f"run: chmod 600 {key}"
        )
    if _public(private) != _public(leaf):
        raise ConfigError(
            key, f"it is not the key of {certificate}", "name the two files that belong together"
        )
    return leaf


def _public(owner: object) -> bytes:
    key = owner.public_key()  # type: ignore[attr-defined]  # certificates and all kinds of keys
    shown: bytes = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return shown


def _check_crl(path: str, authorities: list[x509.Certificate], now: float) -> float:
    """OpenSSL refuses every client if the list of its authority is missing or too old: say so now
    instead of then. Returns when the first of the lists will be too old."""
    ends = math.inf
    lists = _parse(path, "revocation list", _revocation_lists)
    for one in lists:
        issuers = [one_of for one_of in authorities if one_of.subject == one.issuer]
        if not any(_signed(one, issuer) for issuer in issuers):
            raise ConfigError(
                path,
                f"its list of {one.issuer.rfc4514_string()} is of none of the authorities",
                "name the list that belongs to client_ca",
            )
        until = one.next_update_utc
        ends = min(ends, math.inf if until is None else until.timestamp())
        if until is not None and ends <= now:
            raise ConfigError(
                path,
                f"it is out of date since {until:%Y-%m-%d}, so that every client would be refused",
                "fetch the new list from the authority",
            )
    return ends


def _revocation_lists(data: bytes) -> list[x509.CertificateRevocationList]:
    end = b"-----END X509 CRL-----"
    parts = data.split(end)
    return [x509.load_pem_x509_crl(part + end) for part in parts[:-1] or parts]


def _signed(one: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return one.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # any that signs
    except TypeError:
        return False  # a key that signs nothing


def _load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    _load(certificate, lambda: context.load_cert_chain(certificate, key, password=_no_password))


def _no_password() -> bytes:
    """Without it OpenSSL would ask on the terminal, and wait."""
    raise ssl.SSLError("the key is encrypted")


def _load(path: str, load: Callable[[], None]) -> None:
    try:
        load()
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(path, f"OpenSSL refuses it: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    return str(reason).lower().replace("_", " ")


def _quiet_hash(certificate: bytes) -> bytes | None:
    """A certificate that OpenSSL reads and cryptography does not is one without a binding."""
    try:
        return endpoint_hash(certificate)
    except CertificateError:
        return None
