"""`trigear.toml` while commands change the tenants in it.

A change is written to a file beside it, synced, and renamed over it, under a lock, so that whoever
reads sees the old text or the new one. Comments stay, and so do mode and owner. What would become
of the file is looked at before: a change that it is not written for is refused, not guessed.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import os
import stat
import tomllib
from typing import TYPE_CHECKING, Any

from trigear.cli import config_file
from trigear.cli.report import Failure, Status
from trigear.errors import ConfigError
from trigear.security.replacing import locked, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trigear.engine.config import TenantSettings


def usual_place() -> str:
    """The file that the server would read; if there is none, the one to make."""
    found = config_file.usual_place()
    if found is not None:
        return found
    home = os.environ.get("XDG_CONFIG_HOME")
    if home is None and os.geteuid() == 0:
        return os.path.join("/etc/trigear", config_file.NAME)
    return os.path.join(home or os.path.expanduser("~/.config"), "trigear", config_file.NAME)


class TenantFile:
    """The text of the file.

    Args:
        path: where it is.
        text: what stands there; nothing if there is no such file.

    Raises:
        ConfigError: its tenants cannot be used as they are.
    """

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.document = _parsed(path, text)
        self.tenants = self._tenants()

    def _tenants(self) -> Mapping[str, TenantSettings]:
        from trigear.cli.tenant_tables import tenants_in

        return tenants_in(self.path, self.document.get("tenant", {}))

    def written(self, name: str) -> Mapping[str, Any]:
        """What the file says about a tenant.

        Raises:
            Failure: it says nothing.
        """
        tenants = self.document.get("tenant", {})
        if name not in tenants:
            known = difflib.get_close_matches(name, tenants, n=1)
            then = f"did you mean '{known[0]}'?" if known else "`trigear tenant list` has all"
            raise Failure(f"{self.path}: there is no tenant '{name}': {then}")
        written: Mapping[str, Any] = tenants[name]
        return written

    def add(self, name: str, quotas: Mapping[str, object]) -> None:
        """Declare a tenant.

        Raises:
            ConfigError: that is no name, or the tenant is declared already.
        """
        if name in self.document.get("tenant", {}):
            raise ConfigError(
                f"{self.path}: [tenant.{name}]",
                "there is such a tenant already",
                f"change it with `trigear tenant set {name} QUOTA VALUE`",
            )
        import tomlkit

        body = tomlkit.dumps({"tenant": {name: dict(quotas)}})
        head = self.text
        if head.strip():
            head = head.rstrip("\n") + "\n\n"
        self._become(head + body, lambda tenants: tenants.update({name: dict(quotas)}))

    def set(self, name: str, key: str, value: object) -> None:
        """Give a quota a value; None takes it out, which is the default."""
        import tomlkit

        present = next((each for each in self.written(name) if each.replace("_", "-") == key), None)
        if present is None and value is None:
            return
        span = None if present is not None else _spans(self.text, name, whole=False)
        if span is not None and len(span) == 1:
            end = span[0][1]
            lines = self.text.splitlines(keepends=True)
            above = "".join(lines[:end]).rstrip("\n") + "\n"
            text = above + tomlkit.dumps({key: value}) + "".join(lines[end:])
        elif present is None:
            # Only tables below it stand in the file: its own comes behind them.
            body = tomlkit.dumps({"tenant": {name: {key: value}}})
            text = self.text.rstrip("\n") + "\n\n" + body
        else:
            document: Any = tomlkit.parse(self.text)
            if value is None:
                del document["tenant"][name][present]
            else:
                document["tenant"][name][present] = value
            text = tomlkit.dumps(document)

        def change(tenants: dict[str, Any]) -> None:
            if value is None:
                del tenants[name][present]
            else:
                tenants[name][present or key] = value

        self._become(text, change)

    def remove(self, name: str) -> None:
        """Declare a tenant no more, nor its functions' settings."""
        self.written(name)
        lines = self.text.splitlines(keepends=True)
        for begin, end in reversed(_spans(self.text, name, whole=True)):
            del lines[begin:end]
        self._become("".join(lines), lambda tenants: tenants.pop(name))

    def _become(self, text: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Take the new text, if it says what the old one said, but for this change."""
        expected = copy.deepcopy(self.document)
        change(expected.setdefault("tenant", {}))
        found = _parsed(self.path, text, fallback={})
        if {"tenant": {}} | found != {"tenant": {}} | expected:
            raise Failure(
                f"{self.path}: its tenants are written in a way that this command cannot change:"
                " change it by hand"
            )
        self.text, self.document = text, found
        self.tenants = self._tenants()


def read(path: str) -> TenantFile:
    """The file as it is.

    Raises:
        ConfigError: it cannot be used.
        Failure: it cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as source:
            text = source.read()
    except (FileNotFoundError, NotADirectoryError):
        text = ""
    except UnicodeDecodeError as error:
        raise ConfigError(path, f"is not TOML: {error}") from error
    except OSError as error:
        raise _failure(path, error) from error
    return TenantFile(path, text)


def change(path: str, act: Callable[[TenantFile], None], *, dry_run: bool) -> list[str]:
    """Change the file, if it is to be changed.

    Returns:
        The difference, in lines.

    Raises:
        ConfigError: the file, or what would become of it, cannot be used.
        Failure: it cannot be read or written, or is not written for this change.
    """
    path = os.path.realpath(path)
    with contextlib.ExitStack() as stack:
        if not dry_run:
            try:
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                stack.enter_context(locked(path))
            except OSError as error:
                raise _failure(path, error) from error
        file = read(path)
        before = file.text
        act(file)
        if file.text != before and not dry_run:
            try:
                _put(path, file.text.encode())
            except OSError as error:
                raise _failure(path, error) from error
    lines = (before.splitlines(), file.text.splitlines())
    return list(difflib.unified_diff(*lines, path, path, lineterm=""))


def _put(path: str, data: bytes) -> None:
    """Put new contents in the place of the file, with the mode and the owner of the old one."""
    try:
        old = os.stat(path)
    except FileNotFoundError:
        replace(path, data)
    else:
        replace(path, data, owner=old, mode=stat.S_IMODE(old.st_mode))


def _failure(path: str, error: OSError) -> Failure:
    status = Status.NOT_ALLOWED if isinstance(error, PermissionError) else Status.NO
    return Failure(f"{path}: {error.strerror}; name another file with --config", status)


def _parsed(path: str, text: str, fallback: dict[str, Any] | None = None) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        if fallback is not None:
            return fallback
        raise ConfigError(path, f"is not TOML: {error}") from error


def _spans(text: str, name: str, *, whole: bool) -> list[tuple[int, int]]:
    """From which line to which the table of a tenant stands; ``whole``: those below it, too.

    tomlkit counts the comment above a table to the table before it: it would go with that one.
    """
    lines = text.splitlines(keepends=True)
    headers = [at for at, line in enumerate(lines) if line.lstrip().startswith("[")]
    found = []
    for place, begin in enumerate(headers):
        try:
            tenants = tomllib.loads(lines[begin]).get("tenant", {})
        except tomllib.TOMLDecodeError:
            continue  # it stands inside of a value
        if not isinstance(tenants, dict) or name not in tenants or (tenants[name] and not whole):
            continue
        end = headers[place + 1] if place + 1 < len(headers) else len(lines)
        while lines[end - 1].lstrip()[:1] in ("", "#"):
            end -= 1
        found.append((begin, end))
    return found
