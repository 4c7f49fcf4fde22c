"""What is told about a handler that went wrong: to the client in words, to the log with the part of
the traceback that is the handler's."""

from __future__ import annotations

import inspect
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

OURS: Final = frozenset({"trigear", "trio", "outcome", "trio_asyncio", "asyncio"})
"""Packages between the worker and a handler."""

STANDSTILL_SECONDS: Final = 1.0
"""How long nothing but one task may go on before that is worth a warning."""

REMARK_SECONDS: Final = 60.0
"""The least time between two such warnings."""


def in_words(error: BaseException) -> str:
    """An exception in a line: its name and its text; of a group, those of what it holds."""
    if isinstance(error, BaseExceptionGroup):
        parts = [in_words(part) for part in error.exceptions]
        return parts[0] if len(parts) == 1 else f"{len(parts)} exceptions: {'; '.join(parts)}"
    name, text = type(error).__name__, str(error)
    return f"{name}: {text}" if text else name


def for_log(
    error: BaseException,
) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """An exception for `exc_info`, with the traceback from where the handler begins."""
    trace = error.__traceback__
    while trace is not None:
        module: str = trace.tb_frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in OURS:
            return type(error), error, trace
        trace = trace.tb_next
    return type(error), error, error.__traceback__


def as_result(result: object) -> bytes:
    """What a handler returned, as it goes over the wire.

    Raises:
        TypeError: it cannot.
    """
    if result is None:
        return b""
    if isinstance(result, bytes | bytearray | memoryview):
        return bytes(result)
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError("the handler returned a coroutine: await it, in an `async def`")
    raise TypeError(f"the handler returned {type(result).__name__}, not bytes: encode it")


class Standstill(trio.abc.Instrument):
    """Notices when the event loop does not get on.

    Args:
        report: called with the seconds it stood still; must not raise.
        clock: what measures, in seconds; real time, whatever Trio's clock says.

    ``busy`` is for names of those who have had their turn; it is emptied before each round of
    turns.
    """

    def __init__(
        self, report: Callable[[float], object], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._report = report
        self._clock = clock
        self.busy: set[bytes] = set()
        self._began: float | None = None
        self._said: float | None = None

    def after_io_wait(self, timeout: float) -> None:
        self._began = self._clock()
        self.busy.clear()

    def before_io_wait(self, timeout: float) -> None:
        if self._began is None:
            return
        now = self._clock()
        stood = now - self._began
        if stood < STANDSTILL_SECONDS:
            return
        if self._said is None or now - self._said >= REMARK_SECONDS:
            self._said = now
            self._report(stood)


@contextmanager
def watched(report: Callable[[float], object]) -> Iterator[Standstill]:
    """Have the event loop watched in the block."""
    watch = Standstill(report)
    trio.lowlevel.add_instrument(watch)
    try:
        yield watch
    finally:
        trio.lowlevel.remove_instrument(watch)
