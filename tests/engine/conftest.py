from __future__ import annotations

from tests.engine.world import world

__all__ = ["world"]
