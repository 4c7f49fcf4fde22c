"""Workers that do nothing, one for each way of writing them, for `benchmarks.handlers`."""

from __future__ import annotations
