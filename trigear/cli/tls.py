"""What a server's options say about TLS: the files, who is asked for a certificate, and addresses
that go with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from trigear.cli.plan import absolute
from trigear.errors import ConfigError
from trigear.runtime.address import parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trigear.engine.config import ServerConfig
    from trigear.security.tls import Listening, ServerTLS

VERSIONS: Final = ("1.2", "1.3")
CLIENT_CERTIFICATES: Final = ("none", "optional", "required")

_OPTION_OF: Final = {"client_ca": "--client-ca", "crl": "--crl", "tls_min": "--tls-min"}


def with_tls_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `trigear server`."""
    for add in reversed(
        (
            click.option(
                "--cert",
                metavar="FILE",
                help="Certificate for gearmans:// addresses (PEM), followed by those between it and"
                " its authority.",
            ),
            click.option("--key", metavar="FILE", help="Its private key (PEM), not encrypted."),
            click.option(
                "--client-certs",
                type=click.Choice(CLIENT_CERTIFICATES),
                default="none",
                help="Whether those who connect with TLS are asked for a certificate.",
            ),
            click.option(
                "--client-ca",
                metavar="FILE",
                help="Authorities (PEM) whose client certificates are accepted.",
            ),
            click.option("--crl", metavar="FILE", help="Revocation lists (PEM) of these."),
            click.option(
                "--tls-min",
                type=click.Choice(VERSIONS),
                default=VERSIONS[0],
                help="The oldest version of TLS to speak.",
            ),
        )
    ):
        command = add(command)
    return command


def server_tls(given: Mapping[str, Any], listen: Sequence[str], folder: str) -> ServerTLS | None:
    """How TLS is spoken; None if it is not.

    Args:
        given: the values of the options, by parameter name.
        listen: where the server serves.
        folder: where relative paths begin.

    Raises:
        ConfigError: the options contradict each other or the addresses.
    """
    secure = [text for text in listen if parse_address(text, setting=f"--listen {text}").tls]
    cert, key = given["cert"], given["key"]
    if cert is None and key is None:
        if secure:
            raise ConfigError(
                f"--listen {secure[0]}",
                "it asks for TLS, and there is no certificate",
                "name one with --cert and --key",
            )
        for name in ("client_ca", "crl"):
            if given[name] is not None:
                raise ConfigError(_OPTION_OF[name], "of no use without --cert and --key")
        if given["client_certs"] != "none":
            raise ConfigError("--client-certs", "of no use without --cert and --key")
        return None
    if key is None:
        raise ConfigError("--cert", "of no use without its key", "name it with --key")
    if cert is None:
        raise ConfigError("--key", "of no use without its certificate", "name it with --cert")
    if not secure:
        raise ConfigError(
            "--cert", "no address asks for TLS", "write --listen gearmans://HOST:PORT"
        )
    return settings_of(
        absolute(cert, folder),
        absolute(key, folder),
        given["client_certs"],
        client_ca="" if given["client_ca"] is None else absolute(given["client_ca"], folder),
        crl="" if given["crl"] is None else absolute(given["crl"], folder),
        least=given["tls_min"],
    )


def settings_of(
    cert: str,
    key: str,
    clients: str = "none",
    client_ca: str = "",
    crl: str = "",
    least: str = "1.2",
) -> ServerTLS:
    """These files as settings.

    Raises:
        ConfigError: they contradict each other.
    """
    # Only here: it brings what reads certificates, and most servers and all --help need none.
    from trigear.security.tls import ClientCertificates, ServerTLS

    try:
        return ServerTLS(cert, key, ClientCertificates(clients), client_ca, crl, least)
    except ConfigError as error:
        _, _, rest = str(error).partition(": ")
        raise ConfigError(_OPTION_OF[error.setting], rest) from error


def opened(config: ServerConfig) -> Mapping[str, Listening]:
    """The files of every address read and tried out; to be done while the process may read them.

    Raises:
        ConfigError: one cannot be used.
    """
    from trigear.runtime.accepting import tls_of

    return tls_of(config, time.time())
