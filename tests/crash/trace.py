"""Reads what strace wrote of a loaded server, and says whether each JOB_CREATED waited for the sync
that put its job on the disk."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

CALLS = "pwrite64,write,fdatasync,fsync,sendto,sendmsg"

_LINE = re.compile(r"(?P<thread>\d+) +(?P<rest>.*)")
_RESUMED = re.compile(r"<\.\.\. (?P<call>\w+) resumed>")
_HANDLE = re.compile(r"H:[\w.-]+:\d{20}")
_LOG = "-wal>"


@dataclass
class Verdict:
    """What a trace shows: how many jobs were announced, and which of them too early."""

    announced: int = 0
    early: list[str] = field(default_factory=list)


def judge(lines: Iterable[str]) -> Verdict:
    """Go through the calls in their order.

    A call counts as begun where it is first seen, as ended where its result is. A job is on the
    disk when a sync of the log that began after the job's row was written to it has succeeded.
    """
    verdict = Verdict()
    open_calls: dict[str, tuple[int, str]] = {}
    written: dict[str, int] = {}
    """By handle: when writing its row into the log had ended."""
    synced = -1
    """When the latest sync of the log that has succeeded had begun."""
    seen: set[str] = set()
    for place, line in enumerate(lines):
        found = _LINE.match(line)
        if found is None:
            continue
        thread, text = found["thread"], found["rest"]
        begin = place
        if _RESUMED.match(text):
            begin, start = open_calls.pop(thread)
            text = start + text
        elif text.startswith(("sendto", "sendmsg", "write")) and not text.startswith("writev"):
            # Counts from its beginning: the first byte may leave at once.
            for handle in _HANDLE.findall(text):
                if handle in seen:
                    continue
                seen.add(handle)
                verdict.announced += 1
                if written.get(handle, place) >= synced:
                    verdict.early.append(handle)
        if text.endswith("<unfinished ...>"):
            open_calls[thread] = begin, text
            continue
        if _LOG not in text.split(",")[0]:
            continue
        if text.startswith("pwrite64"):
            for handle in _HANDLE.findall(text):
                written.setdefault(handle, place)
        elif text.startswith(("fdatasync", "fsync")) and text.rstrip().endswith("= 0"):
            synced = max(synced, begin)
    return verdict
