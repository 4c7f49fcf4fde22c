"""Contexts: names for the servers that somebody works with, and how they are spoken with.

They stand in `contexts.toml` in the configuration folder, the user's or the system's; where both
name a context, the user's holds. Commands change the user's only.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from trigear.cli.access import Access
from trigear.cli.report import Failure, Status
from trigear.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tomlkit import TOMLDocument

NAME: Final = "contexts.toml"

SYSTEM: Final = "/etc/trigear"

FLAGS: Final = {"tls": "tls", "insecure-no-verify": "insecure"}
FILES: Final = {"ca": "ca", "cert": "cert", "key": "key", "password-file": "password_file"}
TEXTS: Final = {"user": "user"} | FILES
"""How TLS and login are called in a context, and in :class:`Access`."""


class Context(NamedTuple):
    """One of them."""

    name: str
    servers: tuple[str, ...]
    access: Access


class Contexts(NamedTuple):
    """All contexts: their servers as they were written, how they are spoken with, and the name of
    the one in use."""

    servers: dict[str, tuple[str, ...]]
    current: str | None
    places: dict[str, str]
    """By name, the file it stands in."""
    accesses: dict[str, Access]


def home() -> str:
    """The user's file."""
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(folder, "trigear", NAME)


def read() -> Contexts:
    """All contexts there are.

    Raises:
        ConfigError: a file holds what cannot be used; names the file.
        Failure: a file cannot be read.
    """
    servers: dict[str, tuple[str, ...]] = {}
    places: dict[str, str] = {}
    accesses: dict[str, Access] = {}
    current = None
    for path in (os.path.join(SYSTEM, NAME), home()):
        try:
            with open(path, "rb") as source:
                text = source.read()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            status = Status.NOT_ALLOWED if isinstance(error, PermissionError) else Status.NO
            raise Failure(f"contexts: {path}: {error.strerror}", status) from error
        found = checked(path, text)
        servers |= found.servers
        places |= found.places
        accesses |= found.accesses
        current = found.current or current
    return Contexts(servers, current, places, accesses)


def checked(path: str, text: bytes) -> Contexts:
    """The contexts of one file."""
    import tomllib

    try:
        document = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(path, f"is not TOML: {error}") from error
    current = document.pop("current", None)
    if current is not None and not isinstance(current, str):
        raise ConfigError(f"{path}: current", "is no name of a context")
    tables = document.pop("context", {})
    if document or not isinstance(tables, dict):
        wrong = next(iter(document), "context")
        raise ConfigError(f"{path}: {wrong}", "no such table", "write [context.NAME]")
    servers = {}
    accesses = {}
    for name, table in tables.items():
        place = f"{path}: [context.{name}]"
        if not isinstance(table, dict) or "servers" not in table:
            raise ConfigError(place, "names no servers", 'write servers = ["HOST:PORT"]')
        # What a newer version wrote there may be what makes a connection safe.
        for key in table:
            if key != "servers" and key not in FLAGS and key not in TEXTS:
                raise ConfigError(f"{place} {key}", "this version does not know this setting")
        listed = table["servers"]
        if not isinstance(listed, list) or not listed or not all(map(is_text, listed)):
            raise ConfigError(f"{place} servers", "is no list of addresses")
        servers[name] = tuple(listed)
        accesses[name] = access_in(table, place, os.path.dirname(path))
    return Contexts(servers, current, dict.fromkeys(servers, path), accesses)


def access_in(table: Mapping[str, Any], place: str, folder: str) -> Access:
    """How the servers of a context are spoken with; relative paths begin in the file's folder."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key in FLAGS:
            if not isinstance(value, bool):
                raise ConfigError(f"{place} {key}", "is neither true nor false")
            found[FLAGS[key]] = value
        elif key in TEXTS:
            if not isinstance(value, str) or not value:
                raise ConfigError(f"{place} {key}", "is no text")
            found[TEXTS[key]] = os.path.join(folder, value) if key in FILES else value
    return Access(**found)


def is_text(value: object) -> bool:
    return isinstance(value, str)


def chosen(name: str | None) -> Context | None:
    """A context, or the one in use if there is one.

    Raises:
        ConfigError: there is no such context, or the file cannot be used.
    """
    contexts = read()
    wanted = name if name is not None else contexts.current
    if wanted is None:
        return None
    if wanted not in contexts.servers:
        if name is None:
            raise ConfigError(
                "context",
                f"{wanted!r} is in use and does not exist any more",
                "choose another with `trigear context use`",
            )
        raise unknown(wanted, contexts)
    return Context(wanted, contexts.servers[wanted], contexts.accesses[wanted])


def unknown(name: str, contexts: Contexts) -> ConfigError:
    known = ", ".join(contexts.servers)
    return ConfigError(
        "context",
        f"there is no {name!r}" + (f", only {known}" if known else ""),
        f"make it with `trigear context add {name} ADDRESS`",
    )


class Draft:
    """The user's file while it is changed; what people wrote into it stays."""

    def __init__(self) -> None:
        import tomlkit

        self.path = home()
        text = b""
        try:
            with open(self.path, "rb") as source:
                text = source.read()
        except (FileNotFoundError, NotADirectoryError):
            pass
        checked(self.path, text)
        self.document: TOMLDocument = tomlkit.parse(text)

    @property
    def tables(self) -> Any:  # noqa: ANN401
        """The table of contexts, made if there is none."""
        import tomlkit

        if "context" not in self.document:
            self.document["context"] = tomlkit.table(is_super_table=True)
        return self.document["context"]

    def put(self, name: str, servers: Sequence[str], access: Access) -> None:
        """Write a context; what it had before is not there any more."""
        import tomlkit

        table = self.tables.get(name)
        if table is None:
            table = tomlkit.table()
            self.tables[name] = table
        table["servers"] = list(servers)
        for key, attribute in (FLAGS | TEXTS).items():
            value = getattr(access, attribute)
            if value:
                table[key] = value
            else:
                table.pop(key, None)

    def use(self, name: str | None) -> None:
        if name is None:
            self.document.pop("current", None)
        else:
            self.document["current"] = name

    def save(self) -> None:
        """Put the file in its place, whole or not at all.

        Raises:
            Failure: it cannot be written.
        """
        folder = os.path.dirname(self.path)
        try:
            os.makedirs(folder, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=folder, prefix=NAME)
            try:
                with open(handle, "w", encoding="utf-8") as target:
                    target.write(self.document.as_string().lstrip("\n"))
                os.replace(part, self.path)
            except BaseException:
                os.unlink(part)
                raise
        except OSError as error:
            status = Status.NOT_ALLOWED if isinstance(error, PermissionError) else Status.NO
            raise Failure(
                f"contexts: cannot write {self.path}: {error.strerror}; XDG_CONFIG_HOME names"
                " another configuration folder",
                status,
            ) from error
