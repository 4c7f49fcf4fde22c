"""What an operator asks of the process that the engine is in, which alone can do it."""

from __future__ import annotations

import enum


class Wish(enum.Enum):
    """What is asked for."""

    STOP = "stop"
    DRAIN = "drain"
    RELOAD = "reload"
