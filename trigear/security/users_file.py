"""`users.toml` on disk: read only if nobody else can, changed as a whole or not at all.

A change is written to a file beside it, synced, and renamed over it, under a lock: whoever reads
sees the old text or the new one, also when the writer is killed in between. Comments stay.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tomllib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import tomlkit

from trigear.errors import ConfigError
from trigear.security.replacing import locked, replace
from trigear.security.scram import HASHES, SALT_BYTES, SHA_256, Verifier
from trigear.security.users import VERSION, Changes, Users

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping

SECRET_BYTES: Final = 32

_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def read_private(path: str, owners: Collection[int] = ()) -> bytes:
    """The bytes of a file that holds secrets.

    Args:
        path: where it is; a link is followed, what it leads to is judged.
        owners: uids that may own it beside root and whoever runs this.

    Raises:
        ConfigError: it is no plain file, others may read or write it, or it belongs to others.
        OSError: it cannot be read; FileNotFoundError if it is not there.
    """
    # Without blocking: a pipe in its place must not hold up the server.
    descriptor = os.open(path, _OPEN)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(path, "no plain file")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise ConfigError(
                path, f"others may get at it (mode {mode:04o})", f"run: chmod 600 {path}"
            )
        if status.st_uid not in {0, os.geteuid(), *owners}:
            raise ConfigError(
                path,
                f"it belongs to uid {status.st_uid}, who could change it",
                f"give it to the user of the server: chown UID {path}",
            )
        return file.read()


def load(path: str, owners: Collection[int] = ()) -> Users:
    """The users of a file.

    Raises:
        ConfigError: it cannot be used; the text says why.
        OSError: it cannot be read; FileNotFoundError if it is not there.
    """
    return Users.parse(_decoded(path, read_private(path, owners)), path)


def mock_secret(path: str, random: Callable[[int], bytes], owners: Collection[int] = ()) -> bytes:
    """The secret from which verifiers of users are invented who do not exist; made if missing.

    Losing it does no harm, but names that nobody has are then seen to change their salt.

    Raises:
        ConfigError: others may read it, or it is damaged.
        OSError: it can be neither read nor made.
    """
    try:
        secret = read_private(path, owners)
    except FileNotFoundError:
        with locked(path):
            replace(path, random(SECRET_BYTES))
        secret = read_private(path, owners)
    if len(secret) != SECRET_BYTES:
        raise ConfigError(
            path,
            f"{len(secret)} bytes instead of {SECRET_BYTES}",
            "remove it; a new one is made at the next start",
        )
    return secret


class Directory:
    """The users of a running server: the last good state of a file.

    Raises on creation what :func:`load` raises.
    """

    def __init__(self, path: str, owners: Collection[int] = ()) -> None:
        self.path = path
        self.users = load(path, owners)
        self._owners = owners

    def read(self) -> Users:
        """Read the file anew and change nothing. A file of thousands takes a while: it may be read
        in a thread.

        Raises:
            ConfigError: it cannot be used.
            OSError: it cannot be read.
        """
        return load(self.path, self._owners)

    def adopt(self, new: Users) -> Changes:
        """Put users that were read into service."""
        changes = self.users.changes_to(new)
        self.users = new
        return changes

    def reload(self) -> Changes:
        """Read and adopt. On any error the users stay who they were; raises what :meth:`read`
        raises."""
        return self.adopt(self.read())


@contextlib.contextmanager
def edit(path: str, *, create: bool = False) -> Iterator[Editor]:
    """Change the file under a lock; what the block has done is written when it ends without error.

    Waits while another process changes it. Ask for passwords before, not inside. The new text
    must be one that :func:`load` accepts, else nothing is written.

    Args:
        path: where it is; behind a link the file itself is replaced.
        create: begin a new file where there is none.

    Raises:
        ConfigError: the file, or what would become of it, cannot be used.
        OSError: it cannot be read or written; FileNotFoundError if it is not there.
    """
    path = os.path.realpath(path)
    with locked(path):
        owner: os.stat_result | None = None
        try:
            text = _decoded(path, read_private(path, _owner_of(path)))
            owner = os.stat(path)
        except FileNotFoundError:
            if not create:
                raise
            text = f"version = {VERSION}\n"
        editor = Editor(path, text)
        yield editor
        after = editor.text()
        if after != text or owner is None:
            Users.parse(after, path)
            replace(path, after.encode(), owner=owner)


class Editor:
    """The text of the file, as long as it is being changed. Made by :func:`edit`.

    Methods that name a user raise ConfigError if there is none of this name.
    """

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self.users = Users.parse(text, path)
        self._document: Any = tomlkit.parse(text)

    def text(self) -> str:
        """The file as it is now."""
        return tomlkit.dumps(self._document)

    def add(self, name: str, settings: Mapping[str, Any]) -> None:
        """A new user, with settings as they stand in the file.

        Raises:
            ConfigError: there is one of this name.
        """
        users = self._document.setdefault("users", tomlkit.table(is_super_table=True))
        if name in users:
            raise ConfigError(f"{self._path}: users.{name}", "there is such a user already")
        table = tomlkit.table()
        for key, value in settings.items():
            table[key] = value
        users[name] = table

    def remove(self, name: str) -> None:
        """Forget a user."""
        self._table(name)
        span = _span(self.text(), name)
        if span is None:
            del self._document["users"][name]
        else:
            before, _, after = span
            self._document = tomlkit.parse(before + after)

    def set(self, name: str, key: str, value: object) -> None:
        """Give a setting of a user a value; None takes it out, which is the default."""
        table = self._table(name)
        span = None if value is None or key in table else _span(self.text(), name)
        if span is not None:
            before, lines, after = span
            more = tomlkit.dumps({key: value})
            self._document = tomlkit.parse(before + lines.rstrip("\n") + "\n" + more + after)
        elif value is None:
            table.pop(key, None)
        else:
            table[key] = value

    def set_password(
        self,
        name: str,
        password: str | bytes,
        iterations: int,
        random: Callable[[int], bytes],
        *,
        hashes: Collection[str] = (SHA_256.mechanism,),
        old_until: float | None = None,
    ) -> None:
        """Replace the password of a user; takes as long as ``iterations`` say.

        Args:
            name: the user.
            password: the new one.
            iterations: what a guess is to cost.
            random: where the salt comes from.
            hashes: the mechanisms to make verifiers for.
            old_until: seconds since 1970 until which the present password is good as well. Salt
                and iterations then stay what they are.

        Raises:
            ConfigError: there is no present password that could stay.
            ScramError: the password is empty or too long.
        """
        texts = []
        present = self.users.get(name)
        for mechanism in hashes:
            pair = None if present is None else present.verifiers.get(mechanism)
            if old_until is None:
                salt = random(SALT_BYTES)
                texts.append(Verifier.derive(password, salt, iterations, HASHES[mechanism]).text())
            elif pair is None:
                raise ConfigError(
                    f"{self._path}: users.{name}.scram",
                    f"there is no {mechanism} verifier that could stay beside a new one",
                    "set the password without an overlap",
                )
            else:
                old = pair.current
                new = Verifier.derive(password, old.salt, old.iterations, old.hash)
                texts += [new.text(), old.text()]
        verifiers = tomlkit.array()
        verifiers.extend(texts)
        self.set(name, "scram", verifiers.multiline(len(texts) > 1))
        self.set(
            name,
            "old_until",
            None if old_until is None else datetime.fromtimestamp(int(old_until), UTC),
        )

    def _table(self, name: str) -> MutableMapping[str, Any]:
        users = self._document.get("users", {})
        if name not in users:
            known = ", ".join(sorted(users)) or "none yet"
            raise ConfigError(
                f"{self._path}: users.{name}", "there is no such user", f"known: {known}"
            )
        table: MutableMapping[str, Any] = users[name]
        return table


def _span(text: str, name: str) -> tuple[str, str, str] | None:
    """The text before the table of a user, the table, and the text behind it; None if the user
    is not written as a table of its own.

    tomlkit counts the comment above a table to the table before it: it would go with that one, and
    new settings would come behind it.
    """
    lines = text.splitlines(keepends=True)
    headers = [at for at, line in enumerate(lines) if line.lstrip().startswith("[")]
    expected = _parsed(text)
    expected["users"].pop(name)
    for begin in headers:
        if _parsed(lines[begin]) != {"users": {name: {}}}:
            continue
        for end in [*(at for at in headers if at > begin), len(lines)]:
            last = end
            while lines[last - 1].lstrip()[:1] in ("", "#"):
                last -= 1
            parts = (lines[:begin], lines[begin:last], lines[last:])
            before, table, after = ("".join(part) for part in parts)
            # What looks like a header may stand inside of a string.
            if {"users": {}} | _parsed(before + after) == expected:
                return before, table, after
    return None


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def _decoded(path: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigError(path, "no TOML: not UTF-8") from None


def _owner_of(path: str) -> tuple[int, ...]:
    """For root, who changes the file for the user of the server, that user is no stranger."""
    return (os.stat(path).st_uid,) if os.geteuid() == 0 else ()
