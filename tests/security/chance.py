"""Chance that comes out the same every time."""

from __future__ import annotations

import hashlib
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def dice(seed: str = "") -> Callable[[int], bytes]:
    """A source of bytes that never gives the same ones twice and starts anew with each test."""
    numbers = count()
    return lambda size: hashlib.shake_256(f"{seed}/{next(numbers)}".encode()).digest(size)
