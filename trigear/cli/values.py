"""Kinds of option values: durations, sizes, times, ports, networks. Each says in its error how to
write one. Plain numbers keep the unit that Gearman's own programs give them."""

from __future__ import annotations

import datetime
import re
import socket
from typing import TYPE_CHECKING, Final

import click

from trigear.model import parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable


def spell_duration(seconds: float) -> str:
    """Whole seconds for people, in the two largest units: `45s`, `3m 20s`, `2d 4h`."""
    left = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
    return " ".join(filter(None, parts[:2])) or "0s"


def parse_whole_seconds(value: object) -> int:
    """The same for what the system counts in whole seconds: one at least.

    Raises:
        ValueError: it is less, or broken, or no duration.
    """
    seconds = parse_duration(value)
    if seconds < 1 or not seconds.is_integer():
        raise ValueError(f"'{value}' is not a whole number of seconds, at least 1")
    return int(seconds)


def parse_time(value: object) -> datetime.datetime:
    """A moment of `2026-11-23T08:00:00+01:00`, or with `Z` for UTC.

    Raises:
        ValueError: it is none, or which one is open without a zone.
    """
    how = "write 2026-11-23T08:00:00+01:00, or Z in place of the zone for UTC"
    try:
        moment = datetime.datetime.fromisoformat(str(value).strip())
    except ValueError:
        raise ValueError(f"'{value}' is not a time: {how}") from None
    if moment.tzinfo is None:
        raise ValueError(f"'{value}' has no time zone: {how}")
    return moment


def parse_port(value: object) -> int:
    """A TCP port by number, or by the name of its service.

    Raises:
        ValueError: it is neither.
    """
    text = str(value)
    if text.isascii() and text.isdigit():
        port = int(text)
        if port > 65535:
            raise ValueError(f"{port} is not a port: the last one is 65535")
        return port
    try:
        return socket.getservbyname(text, "tcp")
    except OSError as error:
        raise ValueError(f"'{text}' is neither a port nor the name of a service") from error


def parse_network(value: object) -> str:
    """An IP network, or one address.

    Raises:
        ValueError: it is neither.
    """
    import ipaddress

    text = str(value)
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"'{text}' is not a network: write 10.0.0.0/8, fd00::/8 or ::1") from None
    raise ValueError(f"'{text}' has bits set beyond its length: did you mean {meant}?")


class Kind(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """A kind of value that a function reads; its ValueError is what the user gets to see."""

    def __init__(self, name: str, parse: Callable[[object], object]) -> None:
        self.name = name
        self.parse = parse

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        try:
            return self.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Whole(Kind):
    """A whole number of at least, and at most, so much."""

    def __init__(self, least: int, most: int | None = None) -> None:
        super().__init__("number", self.read)
        self.least = least
        self.most = most

    def read(self, value: object) -> int:
        text = str(value)
        number = int(text) if re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII) else None
        if number is None or number < self.least or (self.most is not None and number > self.most):
            most = "" if self.most is None else f" and at most {self.most:,}"
            raise ValueError(f"'{value}' is not a whole number, at least {self.least}{most}")
        return number


DURATION: Final = Kind("duration", parse_duration)
WHOLE_SECONDS: Final = Kind("duration", parse_whole_seconds)
SIZE: Final = Kind("size", parse_size)
TIME: Final = Kind("time", parse_time)
PORT: Final = Kind("port", parse_port)
NETWORK: Final = Kind("network", parse_network)
