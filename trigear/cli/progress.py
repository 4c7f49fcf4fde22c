"""One line that shows how far a job is, on a terminal that stays as it was."""

from __future__ import annotations

import os
import sys
from typing import Final

BAR: Final = 24
"""Characters of the bar between its brackets."""

CLEAR: Final = "\r\x1b[K"


class Progress:
    """The line, on standard error if that is a terminal; else nothing at all."""

    def __init__(self, *, wanted: bool) -> None:
        self.wanted = wanted and sys.stderr.isatty()
        self.there = False

    def show(self, label: str, numerator: float, denominator: float) -> None:
        """Draw the line anew."""
        if self.wanted:
            text = drawn(label, numerator, denominator, width_of(sys.stderr.fileno()))
            sys.stderr.write(CLEAR + text)
            sys.stderr.flush()
            self.there = True

    def clear(self) -> None:
        """Make room for something else."""
        if self.there:
            sys.stderr.write(CLEAR)
            sys.stderr.flush()
            self.there = False


def drawn(label: str, numerator: float, denominator: float, width: int) -> str:
    """The line for these numbers of a worker's, at most ``width`` characters."""
    numbers = f"{numerator:g}/{denominator:g}" if denominator else f"{numerator:g}"
    if denominator <= 0:
        return f"{label} {numbers}"[: width - 1]
    share = min(1.0, max(0.0, numerator / denominator))
    full = round(share * BAR)
    bar = "#" * full + "." * (BAR - full)
    # What does not fit is left out from the left: the end says most.
    tail = f" [{bar}] {share:4.0%} {numbers}"
    return (label[: max(0, width - 1 - len(tail))] + tail)[-(width - 1) :]


def width_of(descriptor: int) -> int:
    try:
        return os.get_terminal_size(descriptor).columns or 80
    except OSError:
        return 80
