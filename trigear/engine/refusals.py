"""Why submissions are refused: the code and the text of ERROR."""

from __future__ import annotations

from typing import Final

STOPPING: Final = ("SHUTDOWN_GRACEFUL", "The server is about to stop")
STALLED: Final = ("QUEUE_ERROR", "The store does not answer")
NOT_STORED: Final = ("NOT_STORED", "Could not be stored")
NOT_YET_STORED: Final = ("NOT_STORED", "In effect, but not stored yet")
FULL: Final = ("QUEUE_ERROR", "Job queue is full")
DENIED: Final = ("PERMISSION_DENIED", "Permission denied")


def over(quota: str) -> tuple[str, str]:
    """The tenant is over this quota, which is its own affair: others are not told of it."""
    return "QUOTA_EXCEEDED", f"Quota exceeded: {quota}"
