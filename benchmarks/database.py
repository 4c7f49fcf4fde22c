"""A PostgreSQL server for the length of a round, with its files beside those of the server that is
measured."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "postgresql"
USER = "postgres"
"""PostgreSQL refuses to run as root; the Debian package has made this user."""

ROLE = "bench"


def programs() -> Path | None:
    """Where Debian keeps PostgreSQL's programs, None if it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]))
    return found[-1] if found else None


def place(directory: Path) -> Path:
    """Where the server for this round has its socket."""
    return directory / "postgresql"


@contextlib.contextmanager
def postgresql(directory: Path, preloaded: Path | None = None) -> Iterator[None]:
    """Run one whose socket is in :func:`place`, as Debian's would run: it syncs what it commits.

    Args:
        directory: for its files.
        preloaded: a library whose functions it uses instead of the system's.

    Raises:
        subprocess.CalledProcessError: it does not start.
    """
    who: dict[str, Any] = {}
    folder = place(directory)
    folder.mkdir()
    if os.geteuid() == 0:
        who = {"user": USER, "group": USER, "extra_groups": []}
        shutil.chown(folder, USER, USER)
        directory.chmod(0o711)
    data = folder / "data"

    environment = dict(os.environ)

    def call(program: str, *options: str) -> None:
        command = [str(programs()) + f"/{program}", "-D", str(data), *options]
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, cwd="/", env=environment, **who
        )

    call("initdb", "-A", "trust", "-U", ROLE, "-E", "UTF8", "--no-locale")
    if preloaded is not None:
        # Where it lies, the user whom PostgreSQL runs as may not look.
        library = shutil.copyfile(preloaded, folder / preloaded.name)
        environment["LD_PRELOAD"] = str(library)
    settings = f"-k {folder} -c listen_addresses= -c unix_socket_permissions=0777"
    call("pg_ctl", "start", "-w", "-s", "-l", str(folder / "log"), "-o", settings)
    try:
        yield
    finally:
        call("pg_ctl", "stop", "-s", "-m", "immediate")
