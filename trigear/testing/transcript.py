r"""Golden transcripts: who sends what, who receives exactly what, in order, and nothing more.

A transcript is a text file. Blank lines and lines that begin with ``#`` say nothing::

    title: A job goes to the worker, its result comes back
    server: exceptions attempts=2

    worker > CAN_DO reverse
    client > SUBMIT_JOB reverse "" abc
    client < JOB_CREATED $H
    worker > GRAB_JOB
    worker < JOB_ASSIGN $H reverse abc
    worker > WORK_COMPLETE $H cba
    client < WORK_COMPLETE $H cba

``NAME >`` sends on the connection NAME, which opens when it is first mentioned; ``NAME >>`` keeps
what it sends until the next ``>`` of that connection, so that both go out in one piece. ``NAME <``
is the very next thing that the connection receives. After the ``<`` lines that follow something
sent, no connection may have received anything else.

What can be sent and received:

=======================  ===========================================================================
``PACKET arg …``         a packet by its name; its arguments, joined by NUL, are the payload
``RES PACKET arg …``     sent only: the same with the magic of the other direction
``text "line"``          a line; the newline is added, a carriage return is not
``bytes "…"``            sent only: these bytes
``nothing``              received only: nothing has come, and nothing was on its way
``closed``               received only: the server has closed the connection
=======================  ===========================================================================

An argument is a word or stands in quotes, where ``\0 \t \r \n \" \\ \$ \xHH`` are escapes; ``*N``
behind it repeats it; ``@+5`` is five seconds from now as a decimal number. ``$NAME`` stands for
what was received in its place first, and must be the same every time; two names never stand for the
same thing, unless they begin with an underscore.

Other lines: ``NAME opens`` and ``NAME closes``; ``clock +SECONDS`` lets time pass (a real server
takes its time itself); ``note: …`` explains.

Where servers differ, the lines of each stand in an indented block with the reason in front::

    differs: gearmand 1.1 keeps the job of a client that left
        1.1: admin < text "f\t1\t0\t0"
        trigear: admin < text "f\t0\t0\t0"

``only: trigear: reason`` and ``only: engine: reason`` at the top restrict a whole transcript, and
``whole: reason`` says that what is sent must arrive in one piece.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from trigear.wire.codec import HEADER_SIZE, REQ, RES, request, response
from trigear.wire.packets import ECHO_REQ, ECHO_RES, PACKETS, name_of

NUMBERS: Final = {row.name: row.number for row in PACKETS.values()}

_WORD: Final = re.compile(
    rb"""\s* (?: "(?P<quoted> (?: [^"\\] | \\. )* )" | (?P<bare> [^\s"]+? ) )"""
    rb""" (?: \*(?P<times> [0-9]+ ) )? (?= \s | $ )""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(
    rb"\\(?:x([0-9a-fA-F]{2})|(.))|\$([A-Za-z_][A-Za-z0-9_]*)|@\+([0-9]+)", re.DOTALL
)
_SIMPLE: Final = {
    b"0": b"\0",
    b"t": b"\t",
    b"r": b"\r",
    b"n": b"\n",
    b'"': b'"',
    b"\\": b"\\",
    b"$": b"$",
    b"@": b"@",
}
_STEP: Final = re.compile(r"(?P<who>[A-Za-z][\w-]*)\s+(?P<do><|>>|>|opens|closes)\s*(?P<rest>.*)")

_HEADINGS: Final = ("title", "note", "differs", "server", "only", "whole")

SIDES: Final = ("1.1", "trigear")


class TranscriptError(Exception):
    """A transcript that cannot be read."""


class TranscriptFailure(AssertionError):
    """A server that does not do what a transcript says."""


@dataclass(frozen=True, slots=True)
class Name:
    """A variable in an argument."""

    name: str


@dataclass(frozen=True, slots=True)
class Later:
    """A time from now, in an argument."""

    seconds: int


Piece = bytes | Name | Later


@dataclass(frozen=True, slots=True)
class Step:
    """One line. ``kind`` is `packet`, `text`, `bytes`, `nothing`, `closed` or, for steps that
    neither send nor receive, empty; ``number`` is the packet type; ``pieces`` the payload, line or
    bytes."""

    line: int
    source: str
    do: str
    who: str = ""
    kind: str = ""
    magic: bytes = b""
    number: int = 0
    pieces: tuple[Piece, ...] = ()
    seconds: float = 0.0
    side: str = ""


@dataclass(slots=True)
class Transcript:
    """A transcript that was read."""

    path: str
    title: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    only: str = ""
    whole: bool = False
    steps: list[Step] = field(default_factory=list)

    def steps_on(self, side: str) -> list[Step]:
        """What is to be played on this kind of server."""
        return [step for step in self.steps if step.side in ("", side)]


def read(text: str, path: str) -> Transcript:
    """Read a transcript.

    Raises:
        TranscriptError: a line means nothing; the error names it.
    """
    transcript = Transcript(path)
    differing = False
    for number, source in enumerate(text.splitlines(), 1):
        line = source.strip()
        if not line or line.startswith("#"):
            continue
        try:
            indented = source[0].isspace()
            differing = differing and indented
            head, colon, rest = line.partition(": ")
            if indented:
                if not differing or head not in SIDES or not colon:
                    raise TranscriptError("belongs to no `differs:` block")
                transcript.steps.append(_step(number, rest.strip(), head))
            elif colon and head in _HEADINGS:
                differing = head == "differs"
                _heading(transcript, head, rest)
            else:
                transcript.steps.append(_step(number, line, ""))
        except TranscriptError as error:
            raise TranscriptError(f"{path}:{number}: {line!r}: {error}") from None
    if not transcript.title:
        raise TranscriptError(f"{path}: no title")
    return transcript


def _heading(transcript: Transcript, head: str, rest: str) -> None:
    match head:
        case "title":
            transcript.title = rest
        case "server":
            for word in rest.split():
                name, _, value = word.partition("=")
                transcript.settings[name] = value
        case "whole":
            transcript.whole = True
        case "only":
            transcript.only, _, reason = rest.partition(": ")
            if transcript.only not in ("trigear", "engine") or not reason:
                raise TranscriptError("write `only: trigear: reason` or `only: engine: reason`")


def _step(number: int, line: str, side: str) -> Step:
    if line.startswith("clock +"):
        try:
            return Step(number, line, "clock", seconds=float(line[7:]), side=side)
        except ValueError:
            raise TranscriptError("seconds are a number") from None
    found = _STEP.fullmatch(line)
    if found is None:
        raise TranscriptError("is no step")
    who, do, rest = found["who"], found["do"], found["rest"]
    if do in ("opens", "closes"):
        if rest:
            raise TranscriptError("nothing follows here")
        return Step(number, line, do, who, side=side)
    verb, _, tail = rest.partition(" ")
    if do == "<" and verb in ("nothing", "closed") and not tail:
        return Step(number, line, do, who, verb, side=side)
    magic = REQ if do != "<" else RES
    if verb == "RES" and do != "<":
        magic = RES
        verb, _, tail = tail.partition(" ")
    args = _arguments(tail)
    if verb == "text" or (verb == "bytes" and do != "<"):
        if len(args) != 1:
            raise TranscriptError("one argument is needed")
        pieces = (*args[0], b"\n") if verb == "text" else args[0]
        return Step(number, line, do, who, verb, pieces=pieces, side=side)
    if verb not in NUMBERS:
        raise TranscriptError(f"there is no packet {verb}")
    payload: list[Piece] = []
    for position, arg in enumerate(args):
        payload += [b"\0", *arg] if position else arg
    return Step(number, line, do, who, "packet", magic, NUMBERS[verb], tuple(payload), side=side)


def _arguments(tail: str) -> list[tuple[Piece, ...]]:
    args = []
    rest = tail.strip().encode()
    while rest:
        found = _WORD.match(rest)
        if found is None:
            raise TranscriptError(f"cannot read {rest.decode()!r}")
        word = found["bare"] if found["quoted"] is None else found["quoted"]
        args.append(tuple(_pieces(word)) * int(found["times"] or 1))
        rest = rest[found.end() :].lstrip()
    return args


def _pieces(word: bytes) -> Iterator[Piece]:
    done = 0
    for found in _ESCAPE.finditer(word):
        if found.start() > done:
            yield word[done : found.start()]
        done = found.end()
        if found[1] is not None:
            yield bytes([int(found[1], 16)])
        elif found[2] is not None:
            if found[2] not in _SIMPLE:
                raise TranscriptError(f"unknown escape {found[0].decode()}")
            yield _SIMPLE[found[2]]
        elif found[3] is not None:
            yield Name(found[3].decode())
        else:
            yield Later(int(found[4]))
    if done < len(word):
        yield word[done:]


# Playing


class Wire(Protocol):
    """One connection to a server."""

    def send(self, data: bytes) -> None:
        """Send."""

    def receive(self) -> bytes | None:
        """More bytes, b"" if the server has closed, None if nothing comes."""

    def close(self) -> None:
        """Close from this side."""


class Backend(Protocol):
    """A server to play against, fresh for one transcript."""

    side: str
    """`trigear` or `1.1`."""

    immediate: bool
    """Whether everything has arrived when `send` returns; else an echo has to fetch it."""

    def connect(self) -> Wire:
        """A new connection."""

    def wall(self) -> float:
        """The server's time in seconds since 1970."""

    def pass_time(self, seconds: float) -> None:
        """Let time pass, if that is ours to do."""


class _Line:
    """One connection of the transcript: its wire, and what came over it, cut into messages."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.messages: list[bytes] = []
        self.kept = b""
        self.closed = False
        self.ragged = False
        self._bytes = b""

    def fetch(self) -> bool:
        """Wait for one more message; False if there will be none, or none comes."""
        while not self.closed:
            if message := self._cut():
                self.messages.append(message)
                return True
            data = self.wire.receive()
            if data is None:
                return False
            self.closed = not data
            self._bytes += data
        if message := self._cut():
            self.messages.append(message)
            return True
        return False

    def _cut(self) -> bytes:
        if self._bytes[:1] == b"\0":
            end = HEADER_SIZE + int.from_bytes(self._bytes[8:12], "big")
            if len(self._bytes) < max(end, HEADER_SIZE):
                return b""
        else:
            end = self._bytes.find(b"\n") + 1
        message, self._bytes = self._bytes[:end], self._bytes[end:]
        return message

    def describe_rest(self) -> str:
        """Everything that came and was not asked for."""
        rest = [shown(message) for message in self.messages]
        if self._bytes:
            rest.append(f"bytes {self._bytes!r}")
        return ", ".join(rest)


def play(transcript: Transcript, backend: Backend) -> None:
    """Play a transcript against a server.

    Raises:
        TranscriptFailure: the server did something else; the error says where, and what.
    """
    _Player(transcript, backend).play()


class _Player:
    def __init__(self, transcript: Transcript, backend: Backend) -> None:
        self._path = transcript.path
        self._steps = transcript.steps_on(backend.side)
        self._backend = backend
        self._lines: dict[str, _Line] = {}
        self._known: dict[str, bytes] = {}
        self._echoes = 0

    def play(self) -> None:
        step = None
        for position, step in enumerate(self._steps):
            match step.do:
                case "opens":
                    self._open(step.who)
                case "closes":
                    self._settle(step)
                    self._lines.pop(step.who).wire.close()
                case "clock":
                    self._settle(step)
                    self._backend.pass_time(step.seconds)
                case "<":
                    self._receive(step, self._line(step.who))
                case _:
                    self._settle(step)
                    self._send(step, self._line(step.who), self._answered(position))
        if step is not None:
            self._settle(step)
            for who, line in self._lines.items():
                if not line.closed:
                    self._fence(step, who, line)
            self._settle(step)

    def _line(self, who: str) -> _Line:
        return self._lines.get(who) or self._open(who)

    def _open(self, who: str) -> _Line:
        line = self._lines[who] = _Line(self._backend.connect())
        return line

    def _answered(self, position: int) -> bool:
        """Whether what is sent here has an answer on the same connection before the next step that
        sends: receiving that shows that the server has read it."""
        who = self._steps[position].who
        for step in self._steps[position + 1 :]:
            if step.do != "<":
                return False
            if step.who == who:
                return True
        return False

    def _send(self, step: Step, line: _Line, answered: bool) -> None:
        data = self._bytes_of(step)
        if step.kind == "packet":
            data = (request if step.magic == REQ else response)(step.number, data)
        if step.do == ">>":
            line.kept += data
            return
        data, line.kept = line.kept + data, b""
        line.ragged = step.kind == "bytes"
        try:
            line.wire.send(data)
        except OSError as error:
            raise self._failure(step, f"could not be sent: {error}") from error
        if not answered:
            self._fence(step, step.who, line)

    def _fence(self, step: Step, who: str, line: _Line) -> None:
        """Make sure that the server has handled what was sent, and that its answers are here."""
        if self._backend.immediate or line.ragged:
            return
        self._echoes += 1
        mark = b"transcript fence %d" % self._echoes
        try:
            line.wire.send(request(ECHO_REQ, mark))
        except OSError:
            # Closed by the server: what it said before that is still to be read.
            while line.fetch():
                pass
            return
        while line.fetch():
            if line.messages[-1] == response(ECHO_RES, mark):
                line.messages.pop()
                return
        if not line.closed:
            raise self._failure(step, f"the server does not answer an echo of {who} any more")

    def _receive(self, step: Step, line: _Line) -> None:
        if step.kind == "nothing":
            self._fence(step, step.who, line)
            self._settle(step)
            if line.closed:
                raise self._failure(step, "the server closed the connection")
            return
        if not line.messages and not line.fetch():
            if step.kind == "closed" and line.closed:
                return
            what = "the server closed the connection" if line.closed else "nothing came"
            raise self._failure(step, what)
        message = line.messages.pop(0)
        if step.kind == "closed":
            raise self._failure(step, shown(message))
        start = b""
        if step.kind == "packet":
            start, message = message[:HEADER_SIZE], message[HEADER_SIZE:]
            header = RES + step.number.to_bytes(4, "big") + len(message).to_bytes(4, "big")
            if start != header:
                raise self._failure(step, shown(start + message))
        found = re.fullmatch(self._pattern(step), message, re.DOTALL)
        if found is None:
            raise self._failure(step, shown(start + message))
        for name, value in found.groupdict().items():
            self._learn(step, name, value)

    def _learn(self, step: Step, name: str, value: bytes) -> None:
        for other, known in self._known.items():
            if known == value and not name.startswith("_") and not other.startswith("_"):
                raise self._failure(step, f"${name} and ${other} are both {value!r}")
        self._known[name] = value

    def _settle(self, step: Step) -> None:
        """Nobody may have received more than was asked for."""
        for who, line in self._lines.items():
            if self._backend.immediate and not line.closed:
                while line.fetch():
                    pass
            if rest := line.describe_rest():
                raise self._failure(step, f"{who} received {rest}", before=True)

    def _bytes_of(self, step: Step) -> bytes:
        data = b""
        for piece in step.pieces:
            match piece:
                case bytes():
                    data += piece
                case Later(seconds):
                    data += b"%d" % (int(self._backend.wall()) + seconds)
                case Name(name):
                    if name not in self._known:
                        raise self._failure(step, f"${name} was not received yet")
                    data += self._known[name]
        return data

    def _pattern(self, step: Step) -> bytes:
        pattern = b""
        fresh: set[str] = set()
        for piece in step.pieces:
            match piece:
                case Name(name) if name in self._known:
                    pattern += re.escape(self._known[name])
                case Name(name) if name in fresh:
                    pattern += b"(?P=%s)" % name.encode()
                case Name(name):
                    fresh.add(name)
                    pattern += rb"(?P<%s>[^\0\t\r\n ]+)" % name.encode()
                case Later():
                    raise self._failure(step, "a time from now can only be sent")
                case bytes():
                    pattern += re.escape(piece)
        return pattern

    def _failure(self, step: Step, got: str, *, before: bool = False) -> TranscriptFailure:
        where = f"{self._path}:{step.line}"
        names = "".join(f"\n  ${name} is {value!r}" for name, value in self._known.items())
        if before:
            return TranscriptFailure(f"{where}: before `{step.source}`: {got}{names}")
        return TranscriptFailure(f"{where}: `{step.source}`, but: {got}{names}")


def shown(message: bytes) -> str:
    """A message as a transcript would have it, more or less."""
    if message[:4] not in (REQ, RES):
        return f"text {message!r}"
    args = message[HEADER_SIZE:].split(b"\0") if len(message) > HEADER_SIZE else []
    words = [name_of(int.from_bytes(message[4:8], "big")), *map(repr, args)]
    return ("RES " if message[:4] != RES else "") + " ".join(words)


Starter = Callable[[Mapping[str, str]], Backend]
"""Starts a server with a transcript's settings."""
