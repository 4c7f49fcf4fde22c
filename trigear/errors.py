"""Every exception that trigear raises on purpose, one tree.

::

    TrigearError
    ├── ProtocolError            abstract: one of the two below
    │   ├── LocalProtocolError   you asked for what the protocol forbids; nothing was sent
    │   └── RemoteProtocolError  the peer broke the protocol
    ├── ConnectionLost           the connection broke, or never came about: .in_doubt
    ├── Refused                  the server answered ERROR: .code and .text
    ├── LoginFailed              no login came about, and nothing was done without it
    │   └── LoginRefused         the server refused the login: .code, .text and .temporary
    ├── JobError                 a job did not end well: .handle
    │   ├── JobFailed            WORK_FAIL
    │   ├── JobRaised            WORK_EXCEPTION: .data
    │   └── JobLost              the connection went away before the end was known
    ├── StoreError               the durable store
    │   ├── StoreUnavailable     this batch was not written; trying again may help
    │   ├── StoreUnknown         this batch may or may not have been written
    │   ├── StoreFenced          another owner took the store over; final
    │   └── StoreUnusable        it cannot be opened or read; the text says what to do
    ├── ConfigError              a setting cannot be used: .setting
    └── TrigearInternalError     a bug of ours

Trio's own exceptions keep their meaning: ``trio.Cancelled`` and ``trio.TooSlowError`` pass through
untouched, and using something after closing it raises ``trio.ClosedResourceError``.
"""

from __future__ import annotations

from typing import ClassVar, Final

from trigear.model import printable, public, said


@public
class TrigearError(Exception):
    """Root of everything trigear raises on purpose."""


@public
class ProtocolError(TrigearError):
    """The Gearman protocol was broken, by us or by the peer; never raised itself."""

    def __init__(self, *args: object) -> None:
        if type(self) is ProtocolError:
            raise TypeError("ProtocolError is abstract: raise the local or the remote kind")
        super().__init__(*args)


@public
class LocalProtocolError(ProtocolError):
    """The caller asked for something that the protocol forbids. Nothing was sent."""


@public
class RemoteProtocolError(ProtocolError):
    """The peer sent something that the protocol forbids.

    ``code`` and ``text`` are what an ERROR packet in answer would carry.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


@public
class ConnectionLost(TrigearError):
    """The connection to the server broke or could not be made; ``__cause__`` says how.

    ``in_doubt`` says whether a request was on its way whose reply will not come: the server may
    have done what was asked. Otherwise it has not heard of it.
    """

    def __init__(self, text: str, *, in_doubt: bool = False) -> None:
        super().__init__(text)
        self.in_doubt = in_doubt


@public
class Refused(TrigearError):
    """The server answered a request with ERROR."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"the server refused: {code}: {text}")
        self.code = code
        self.text = text


@public
class LoginFailed(TrigearError):
    """There is no login, and nothing was done without one.

    Of this kind itself: the client broke the login off. The server knows no logins, offers nothing
    that may be used on this connection, asks for too much, or has not proved who it is. No password
    was told to it.
    """


@public
class LoginRefused(LoginFailed):
    """The server refused the login. ``code`` and ``text`` are its own; which of name, password and
    certificate is wrong it tells nobody but its log.

    ``temporary`` says whether the same login may do later: others are being checked, or there were
    too many failures.
    """

    def __init__(self, server: str, code: str, text: str) -> None:
        super().__init__(server, code, text)
        self.server = server
        self.code = code
        self.text = text

    def __str__(self) -> str:
        says = printable(f"{self.text} ({self.code})".encode("utf-8", "backslashreplace"))
        if self.code == "AUTHENTICATION_REQUIRED":
            return f"{self.server} serves nobody without a login: {says}"
        hint = _LOGIN_HINTS.get(self.code, "")
        return f"{self.server} refuses the login: {says}{hint}"

    @property
    def temporary(self) -> bool:
        return self.code == "AUTHENTICATION_TEMPORARY_FAILURE"


WANTS_TLS: Final = "write gearmans://HOST:PORT"

_LOGIN_HINTS: Final = {
    "TLS_REQUIRED": f"; {WANTS_TLS}",
    "AUTHENTICATION_FAILED": "; check name and password, the server's log says what is wrong",
    "AUTHENTICATION_TEMPORARY_FAILURE": "; there were many failures, or it is busy",
}


@public
class JobError(TrigearError):
    """A job did not end well.

    A handler that raises :class:`JobFailed` about its own job may leave the handle out.
    """

    what: ClassVar[str] = "did not end well"

    def __init__(self, handle: bytes = b"") -> None:
        if not isinstance(handle, bytes):
            raise TypeError(
                f"{type(self).__name__} takes a job's handle or nothing, and no words: a failure"
                " has none. Raise any other exception, and its words are sent"
            )
        name = f"job {printable(handle)}" if handle else "the job"
        super().__init__(f"{name} {self.what}")
        self.handle = handle


@public
class JobFailed(JobError):
    """The worker, or the server for it, answered WORK_FAIL."""

    what = "failed"


@public
class JobRaised(JobError):
    """The worker answered WORK_EXCEPTION; ``data`` is what it sent along."""

    what = "raised an exception in its worker"

    def __init__(self, handle: bytes, data: bytes) -> None:
        super().__init__(handle)
        if words := said(data):
            self.args = (f"{self}: {words}",)
        self.data = data


@public
class JobLost(JobError):
    """The connection went away before the job's end was known; it may still run."""

    what = "was lost with its connection: whether it ran is unknown"


@public
class StoreError(TrigearError):
    """The durable store did not do what it was asked."""


class StoreUnavailable(StoreError):
    """The batch was not written, and it is known that it was not."""


class StoreUnknown(StoreError):
    """The store went away in the middle of a commit: the batch may have been written."""


class StoreFenced(StoreError):
    """Another server owns the store now. This one must forget what it holds and stop."""


class StoreUnusable(StoreError):
    """The store cannot be opened or read: it belongs to another server, is damaged, is of a later
    version, or may not be written. It was left as it is."""


@public
class ConfigError(TrigearError):
    """A setting cannot be used.

    ``setting`` names it as its author wrote it: an option, or a path in the configuration file.
    """

    def __init__(self, setting: str, problem: str, remedy: str = "") -> None:
        super().__init__(f"{setting}: {problem}" + (f"; {remedy}" if remedy else ""))
        self.setting = setting


@public
class TrigearInternalError(TrigearError):
    """A bug in trigear. Please report it, with the traceback."""
