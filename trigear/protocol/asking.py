"""What client and worker have in common: they ask, and answers come in the order of the questions.

Theory of operation. A reply carries nothing that says which request it answers; its place in the
stream does. So every request that has a reply (the field ``replies`` of the packet table says so)
leaves a :class:`Request` in a queue, and every reply is matched against the head of that queue:

====================================  =========================================================
what comes                            what it does
====================================  =========================================================
a type among the head's ``replies``   answers the head
ERROR                                 answers the head, whatever that is
a line of text                        belongs to the head, if the head is a text command
any other reply, or an empty queue    the streams are out of step: :class:`Broken`, hang up
ERROR that no login is in force, and  :class:`Dismissed`: the server hangs up
an empty queue, or a tombstone
a push (WORK packets, NOOP)           never touches the queue
====================================  =========================================================

A request that nobody waits for any more stays where it is as a *tombstone*: its reply still comes
and has to be absorbed, or every later reply would go to the wrong request.

What may be asked is in the packet table too (``asked_by``, ``served``, ``args``); asking for
anything else raises :class:`~trigear.errors.LocalProtocolError` before a byte is queued. Nothing
that the peer sends raises: after :meth:`Connection.receive` drain :meth:`AskingConnection.events`,
then send what :meth:`Connection.take` yields.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from trigear.errors import LocalProtocolError, RemoteProtocolError
from trigear.model import CloseReason
from trigear.protocol.connection import MAX_PACKET, Connection
from trigear.protocol.events import (
    Answer,
    Broken,
    Challenged,
    Dismissed,
    Echoed,
    Event,
    Expiring,
    LoggedIn,
    Offered,
    OptionSet,
    Refused,
    number_in,
)
from trigear.wire.codec import RES, Handler, Row, request, rows_for
from trigear.wire.commands import LINE_LIMIT, find, words_of
from trigear.wire.packets import (
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    EXTENDED_OPTION,
    EXTENSIONS,
    LOGIN_OPTION,
    LOGINS,
    OPTION_REQ,
    OPTION_RES,
    PACKETS,
    REPLIES,
    SASL_CHALLENGE,
    SASL_EXPIRING,
    SASL_OK,
    SASL_RESPONSE,
    SASL_START,
    SET_CLIENT_ID,
    TENANT_OPTION,
    Side,
    name_of,
)

SIZE_LIMIT: Final = 0xFFFFFFFF
"""Largest payload that a packet's header can announce, in bytes."""

_TEXT: Final = 0

LAST_WORDS: Final = frozenset(
    {"AUTHENTICATION_REQUIRED", "AUTHENTICATION_TIMEOUT", "AUTHENTICATION_EXPIRED", "TLS_REQUIRED"}
)
"""Codes of an ERROR that may come unasked: the server is about to hang up."""

FENCE: Final = b"trigear-fence"
"""What is to be echoed behind the question whether a server knows logins."""

_CODES: Final = {
    CloseReason.BAD_MAGIC: "INVALID_MAGIC",
    CloseReason.UNKNOWN_TYPE: "UNEXPECTED_PACKET",
    CloseReason.TOO_LARGE: "DATA_TOO_LARGE",
}


class Request:
    """A request that waits for its reply; also the token by which events name it.

    ``number`` is its packet type, 0 for a text command. An ``abandoned`` one still has its reply
    coming, but no event will tell of it.
    """

    __slots__ = ("abandoned", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.abandoned = False

    @property
    def name(self) -> str:
        """What was asked, for people."""
        return name_of(self.number) if self.number else "a text command"

    @property
    def replies(self) -> tuple[int, ...]:
        """The packet types that may answer it, beside ERROR."""
        number = self.number
        packet = PACKETS.get(number) or EXTENSIONS.get(number) or LOGINS.get(number)
        return packet.replies if packet else ()

    def __repr__(self) -> str:
        return f"<{self.name}{' (abandoned)' if self.abandoned else ''} at {id(self):#x}>"


class LoginRequest(Request):
    """A request that is part of a login."""

    __slots__ = ()


class TextRequest(Request):
    """A text command that waits for its answer, and the lines of it that have come.

    ``is_list`` says whether a line with a dot closes the answer; None if only the answer can tell.
    """

    __slots__ = ("is_list", "lines")

    def __init__(self, is_list: bool | None) -> None:
        super().__init__(_TEXT)
        self.is_list = is_list
        self.lines: list[bytes] = []


Answering = Callable[[Any, Any, tuple[bytes, ...]], Event]
"""How a column turns the reply to a request into an event: column, request, arguments."""


def _is_extended(column: AskingConnection) -> bool:
    return column.extended


def _knows_logins(column: AskingConnection) -> bool:
    return column.knows_logins


def asking_rows(cls: type[AskingConnection]) -> tuple[Row, ...]:
    """The rows of a column: replies go to the queue, a push to ``on_<packet name>``.

    Pushes among trigear's extensions count in extended mode only, the packets of logins once the
    server has said that it knows them.
    """

    def replied(number: int) -> Handler:
        return lambda column, *args: column.on_reply(number, args)

    def guarded(number: int, handler: Handler, legal: Callable[[Any], bool]) -> Handler:
        def handle(column: AskingConnection, *args: bytes) -> None:
            if legal(column):
                handler(column, *args)
            else:
                column.on_unknown_type(number)

        return handle

    handlers = {
        packet.number: replied(packet.number)
        if packet.number in REPLIES
        else getattr(cls, "on_" + packet.name.lower())
        for packet in PACKETS.values()
        if packet.sent_to & cls.side
    }
    for number, packet in (EXTENSIONS | LOGINS).items():
        if packet.sent_to & cls.side:
            if number in REPLIES:
                handler = replied(number)
            else:
                handler = getattr(cls, "on_" + packet.name.lower())
            # A certificate ends as well, and whoever logged in by it has not asked for logins.
            asked = number in LOGINS and number != SASL_EXPIRING
            handlers[number] = guarded(number, handler, _knows_logins if asked else _is_extended)
    return rows_for(handlers)


def _echoed(column: AskingConnection, asked: Request, args: tuple[bytes, ...]) -> Event:
    return Echoed(asked, args[0])


def _option_set(column: AskingConnection, asked: Request, args: tuple[bytes, ...]) -> Event:
    if args[0] == EXTENDED_OPTION:
        column.on_extended()
    elif args[0] == LOGIN_OPTION:
        # It opens extended mode, too.
        column.knows_logins = True
        column.on_extended()
    return OptionSet(asked, args[0])


def _refused(column: AskingConnection, asked: Request, args: tuple[bytes, ...]) -> Event:
    code, text = (arg.decode("utf-8", "backslashreplace") for arg in args)
    return Refused(asked, code, text)


def _challenged(column: AskingConnection, asked: Request, args: tuple[bytes, ...]) -> Event:
    return Challenged(asked, args[0])


def _logged_in(column: AskingConnection, asked: Request, args: tuple[bytes, ...]) -> Event:
    identity, tenant, roles, lifetime = (
        arg.decode("utf-8", "backslashreplace") for arg in args[:4]
    )
    seconds = number_in(args[3]) / 1000 if lifetime != "0" else None
    return LoggedIn(asked, identity, tenant, _words(roles, ","), seconds, args[4])


def _words(text: str, separator: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(separator) if word)


ANSWERS: Final[Mapping[int, Answering]] = {
    ECHO_RES: _echoed,
    OPTION_RES: _option_set,
    ERROR: _refused,
    SASL_CHALLENGE: _challenged,
    SASL_OK: _logged_in,
}
"""The replies that either side may get."""


def _err(line: str) -> tuple[str, str]:
    """Code and text of an `ERR` line; some of them have no code, in others plus is a blank."""
    says = line.removeprefix("ERR ")
    code, _, text = says.partition(" ")
    return (code, text.replace("+", " ")) if code.isupper() else ("ERR", says)


class AskingConnection(Connection):
    """The asking end of one connection: what its two columns share.

    Args:
        max_packet: largest payload accepted from the server, in bytes.
    """

    __slots__ = ("_events", "_expected", "extended", "knows_logins")

    incoming = RES

    side: ClassVar[Side]
    """Whose packets this column may send and hears."""

    answers: ClassVar[Mapping[int, Answering]] = ANSWERS
    """What a reply means, by its number."""

    def __init__(self, max_packet: int = MAX_PACKET) -> None:
        super().__init__(max_packet)
        # A line of `workers` grows with the functions of a worker: only packets have a small limit.
        self.decoder.max_line = max_packet
        self._expected: deque[Request] = deque()
        self._events: list[Event] = []
        self.extended = False
        """Whether the server speaks extended mode on this connection; see :meth:`extend`."""
        self.knows_logins = False
        """Whether the server knows the packets of logins; see :meth:`ask_for_logins`."""

    def events(self) -> list[Event]:
        """What was heard since the last call, in order, once."""
        events = self._events
        self._events = []
        return events

    @property
    def outstanding(self) -> int:
        """Replies that are still to come, those of abandoned requests included."""
        return len(self._expected)

    # Asking

    def ask(self, number: int, *args: bytes, token: Request | None = None) -> Request:
        """Queue the packet of this type.

        Args:
            number: the packet type.
            args: its arguments, all of them.
            token: stands for the request from now on, if it has a reply; else one is made.

        Raises:
            LocalProtocolError: this side may not send the packet, or not with these arguments.
        """
        packet = PACKETS.get(number)
        if packet is None and self.extended:
            packet = EXTENSIONS.get(number)
        if packet is None and self.knows_logins:
            packet = LOGINS.get(number)
        if packet is None or not packet.asked_by & self.side or not packet.served:
            raise LocalProtocolError(f"{name_of(number)} is no request of a {self._who}")
        if self.closing is not None:
            raise LocalProtocolError(
                f"{packet.name} on a connection that is over: {self.closing.value}"
            )
        if len(args) != len(packet.args):
            raise LocalProtocolError(
                f"{packet.name} has {len(packet.args)} arguments ({', '.join(packet.args)}), "
                f"not {len(args)}"
            )
        for name, arg in zip(packet.args, args[:-1], strict=False):
            if b"\0" in arg:
                raise LocalProtocolError(f"{packet.name}: NUL in the {name} {arg!r}")
        if sum(map(len, args)) + len(args) > SIZE_LIMIT:
            raise LocalProtocolError(
                f"{packet.name} is larger than a packet can be ({SIZE_LIMIT} bytes)"
            )
        asked = Request(number) if token is None else token
        if packet.replies:
            self._expected.append(asked)
        self.out.append(request(number, *args))
        return asked

    def echo(self, data: bytes) -> Request:
        """Ask for the same bytes back: :class:`Echoed`."""
        return self.ask(ECHO_REQ, data)

    def option(self, option: bytes) -> Request:
        """Set an option of this connection: :class:`OptionSet`, or :class:`Refused`."""
        return self.ask(OPTION_REQ, option)

    def extend(self) -> Request:
        """Ask for extended mode; :attr:`extended` tells when the server has agreed.

        Servers that do not know it answer :class:`Refused`, and nothing else changes.
        """
        return self.option(EXTENDED_OPTION)

    def on_extended(self) -> None:
        """The server has agreed to extended mode."""
        self.extended = True

    # Logging in; the steps are in :mod:`trigear.protocol.login`

    def ask_for_logins(self) -> tuple[LoginRequest, LoginRequest]:
        """Ask how one may log in: :class:`Offered` behind an :class:`OptionSet`, or
        :class:`Refused`. Returns the tokens of that and of an echo behind it, which comes in any
        case."""
        option, fence = LoginRequest(OPTION_REQ), LoginRequest(ECHO_REQ)
        self.ask(OPTION_REQ, LOGIN_OPTION, token=option)
        self.ask(ECHO_REQ, FENCE, token=fence)
        return option, fence

    def start_login(self, mechanism: bytes, first: bytes) -> LoginRequest:
        """Begin a login: :class:`Challenged`, :class:`LoggedIn` or :class:`Refused`."""
        token = LoginRequest(SASL_START)
        self.ask(SASL_START, mechanism + b"\0" + first, token=token)
        return token

    def answer_login(self, data: bytes) -> LoginRequest:
        """Answer a challenge; as :meth:`start_login`."""
        token = LoginRequest(SASL_RESPONSE)
        self.ask(SASL_RESPONSE, data, token=token)
        return token

    def act_for(self, tenant: bytes) -> LoginRequest:
        """Have an operator act for a tenant: :class:`OptionSet`, or :class:`Refused`."""
        token = LoginRequest(OPTION_REQ)
        self.ask(OPTION_REQ, TENANT_OPTION + tenant, token=token)
        return token

    def set_client_id(self, client_id: bytes) -> None:
        """Name this connection. The name stands in one word of one line of the server's list.

        Raises:
            LocalProtocolError: the name is empty or holds blanks or control characters.
        """
        if not client_id or any(byte <= 32 or byte == 127 for byte in client_id):
            raise LocalProtocolError(
                f"client id {client_id!r}: a name without blanks and control characters is needed"
            )
        self.ask(SET_CLIENT_ID, client_id)

    def command(self, line: bytes) -> Request:
        """Send a text command: :class:`Answer`, or :class:`Refused` for an `ERR` line.

        Raises:
            LocalProtocolError: the line is no line, or too long for a server.
        """
        if b"\n" in line or b"\0" in line:
            raise LocalProtocolError(f"text command {line!r}: one line, without NUL and newline")
        if len(line) + 2 > LINE_LIMIT:
            raise LocalProtocolError(
                f"text command of {len(line)} bytes: servers read {LINE_LIMIT} at most"
            )
        if self.closing is not None:
            raise LocalProtocolError(
                f"text command on a connection that is over: {self.closing.value}"
            )
        command = find(words_of(line))
        asked = TextRequest(None if command is None else command.is_list)
        self._expected.append(asked)
        self.out.append(line + b"\r\n")
        return asked

    def abandon(self, token: Request) -> None:
        """Tell no more of this request. Its reply is still absorbed when it comes."""
        token.abandoned = True

    # Hearing

    def on_reply(self, number: int, args: tuple[bytes, ...]) -> None:
        """A packet that answers a request: it answers the oldest one."""
        asked = self._expected[0] if self._expected else None
        if number == ERROR and (asked is None or asked.abandoned):
            code, text = (arg.decode("utf-8", "backslashreplace") for arg in args)
            if code in LAST_WORDS:
                self._events.append(Dismissed(code, text))
                return
        if number == ECHO_RES and isinstance(asked, LoginRequest) and asked.number == OPTION_REQ:
            # A server that passes over options it does not know.
            self._expected.popleft()
            self._events.append(Refused(asked, "", "not a word"))
            asked = self._expected[0]
        if asked is None:
            self._break(f"{self._told(number, args)} where no request waits for a reply")
        elif number != ERROR and number not in asked.replies:
            self._break(f"{name_of(number)} in answer to {asked.name}")
        else:
            self._expected.popleft()
            event = self.answers[number](self, asked, args)
            if not asked.abandoned:
                self._events.append(event)

    def on_sasl_mechanisms(
        self, mechanisms: bytes, bindings: bytes, required: bytes, identity: bytes
    ) -> None:
        names, types, who = (
            field.decode("utf-8", "backslashreplace") for field in (mechanisms, bindings, identity)
        )
        self._events.append(Offered(_words(names, " "), _words(types, " "), who))

    def on_sasl_expiring(self, left: bytes) -> None:
        self._events.append(Expiring(number_in(left) / 1000))

    def on_text(self, line: bytes) -> None:
        asked = self._expected[0] if self._expected else None
        if not isinstance(asked, TextRequest):
            self._break(f"the text {line[:40]!r} where a packet is due", CloseReason.BAD_MAGIC)
            return
        first = not asked.lines
        refused = first and line.startswith(b"ERR ") and b"\t" not in line
        if asked.is_list is None:
            asked.is_list = not (refused or line == b"OK" or line.startswith(b"OK "))
        if asked.is_list and not refused and line != b".":
            asked.lines.append(line)
            return
        self._expected.popleft()
        if asked.abandoned:
            return
        if refused:
            self._events.append(Refused(asked, *_err(line.decode("utf-8", "backslashreplace"))))
        else:
            self._events.append(Answer(asked, asked.lines if asked.is_list else [line]))

    def on_unknown_type(self, number: int) -> None:
        self._break(f"{name_of(number)}, which is not for a {self._who}", CloseReason.UNKNOWN_TYPE)

    def close(self, reason: CloseReason) -> None:
        if self.closing is None:
            error = RemoteProtocolError(
                _CODES.get(reason, "INVALID_PACKET"), f"from the server: {reason.value}"
            )
            self._events.append(Broken(error))
        super().close(reason)

    def _break(self, what: str, reason: CloseReason = CloseReason.MALFORMED) -> None:
        error = RemoteProtocolError(
            _CODES.get(reason, "UNEXPECTED_PACKET"), f"the server sent {what}"
        )
        self._events.append(Broken(error))
        super().close(reason)

    @property
    def _who(self) -> str:
        return str(self.side.name).lower()

    def _told(self, number: int, args: tuple[bytes, ...]) -> str:
        """A reply's name, with what an ERROR says."""
        if number != ERROR:
            return name_of(number)
        return f"ERROR ({b': '.join(args).decode('utf-8', 'backslashreplace')})"
