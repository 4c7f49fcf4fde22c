"""Measures trigear beside other Gearman servers: `python -m benchmarks.run --help`."""

from __future__ import annotations
