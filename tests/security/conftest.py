"""Fixtures of the room."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def calls_of() -> Callable[[Callable[[], object]], list[str]]:
    """Every call that a function makes, in order: Python's as `module.function`, C's by name.

    Two inputs that a peer must not be able to tell apart by time make the same calls.
    """

    def record(function: Callable[[], object]) -> list[str]:
        seen: list[str] = []

        def note(frame, event, argument) -> None:
            if event == "call":
                code = frame.f_code
                seen.append(f"{Path(code.co_filename).stem}.{code.co_name}")
            elif event == "c_call":
                seen.append(getattr(argument, "__qualname__", str(argument)))

        # A collection would call whatever others have registered for it.
        collecting, before = gc.isenabled(), sys.getprofile()
        gc.disable()
        sys.setprofile(note)
        try:
            function()
        finally:
            sys.setprofile(before)
            if collecting:
                gc.enable()
        return seen

    return record
