"""Holding a talk of :mod:`trigear.protocol.talks` with whoever can be asked a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from trigear.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trigear.protocol.talks import Talk

Value = TypeVar("Value")


async def hold(ask: Callable[[str], Awaitable[list[str]]], talk: Talk[Value]) -> Value:
    """Hold a talk, and return what came of it.

    Args:
        ask: gives a command line, and returns the lines of the answer.
        talk: what is to be said.
    """
    try:
        line = next(talk)
        while True:
            try:
                lines = await ask(line)
            except Refused as error:
                line = talk.throw(error)
            else:
                line = talk.send(lines)
    except StopIteration as end:
        value: Value = end.value
        return value


def hold_blocking(ask: Callable[[str], list[str]], talk: Talk[Value]) -> Value:
    """The same without Trio."""
    try:
        line = next(talk)
        while True:
            try:
                lines = ask(line)
            except Refused as error:
                line = talk.throw(error)
            else:
                line = talk.send(lines)
    except StopIteration as end:
        value: Value = end.value
        return value
