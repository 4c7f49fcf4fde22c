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
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trigear.security import issuing

if TYPE_CHECKING:
    from cryptography import x509

DEFAULT_NAMES = ("localhost", "127.0.0.1", "::1")
DEFAULT_DAYS = 90


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
        options.server_names = [
            issuing.server_name(name) for name in options.names or DEFAULT_NAMES
        ]
        options.client_names = [issuing.server_name(options.client)]
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
        now, days = datetime.datetime.now(datetime.UTC), options.days
        authority = issuing.make_authority("trigear development authority", now, days)
        server_names: list[x509.GeneralName] = options.server_names
        server = issuing.for_server(authority, server_names, now, days)
        client = issuing.for_client(authority, options.client, options.client_names, now, days)
        for stem, issued in (("ca", authority), ("server", server), ("client", client)):
            issuing.write(folder, stem, issued)
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
