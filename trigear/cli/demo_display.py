"""How `trigear demo` shows what it does: bars on a terminal, lines elsewhere, or nothing."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Final, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

LINE_SECONDS: Final = 2.0
"""How often a line says how far things are, where there are no bars."""


class Display(Protocol):
    """Where a demo shows how it gets on; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def begin(self, kind: str, total: float) -> None:
        """Something is about to be done, ``total`` units of it."""

    def advance(self, kind: str, units: float = 1.0) -> None:
        """Some of it was done; a negative number takes it back."""

    def say(self, text: str) -> None:
        """Something happened."""


class Quiet:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, kind: str, total: float) -> None:
        pass

    def advance(self, kind: str, units: float = 1.0) -> None:
        pass

    def say(self, text: str) -> None:
        pass


class Lines(Quiet):
    """Lines on standard error: what happens, and now and then how far things are."""

    def __init__(self) -> None:
        self._total: dict[str, float] = {}
        self._done: dict[str, float] = {}
        self._next = time.monotonic() + LINE_SECONDS

    def begin(self, kind: str, total: float) -> None:
        self._total[kind] = total
        self._done[kind] = 0.0

    def advance(self, kind: str, units: float = 1.0) -> None:
        self._done[kind] += units
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_SECONDS
            self.say(
                ", ".join(
                    f"{kind} {100 * self._done[kind] / total:.0f} %"
                    for kind, total in self._total.items()
                )
            )

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class Bars:
    """A bar for each kind of job, on a terminal, and above them what happens."""

    def __init__(self, *, color: bool) -> None:
        # rich takes longer to load than many a command to run: only who shows bars pays for it.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TaskID,
            TextColumn,
            TimeElapsedColumn,
        )

        self._progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True, no_color=not color, highlight=False),
        )
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, kind: str, total: float) -> None:
        self._bars[kind] = self._progress.add_task(kind, total=total)

    def advance(self, kind: str, units: float = 1.0) -> None:
        self._progress.advance(self._bars[kind], units)

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False)


def display_for(*, quiet: bool, color: bool) -> Display:
    """The display that suits where standard error goes."""
    if quiet:
        return Quiet()
    return Bars(color=color) if sys.stderr.isatty() else Lines()


class SayLog(logging.Handler):
    """Shows the server's warnings among what happens, instead of across the bars."""

    def __init__(self, display: Display) -> None:
        super().__init__(logging.WARNING)
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        self._display.say(f"server: {record.getMessage()}")
