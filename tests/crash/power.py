"""What a loss of power leaves of a store's files: replayed from the writes of a real server.

strace records every write, truncation and sync of the files, what the server was sent and what it
said. At a loss of power a file has what was written before its last sync that has returned, and of
what was written since any part or nothing: sectors, in no order.
"""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from trigear.stores.base import Keep, Owner
from trigear.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator
    from pathlib import Path

CALLS: Final = "pwrite64,ftruncate,fdatasync,fsync,recvfrom,sendto,sendmsg"

SECTOR: Final = 512

_OWNER: Final = Owner(1, "nowhere", "1", b"k" * 16)

_LINE = re.compile(r"(?P<thread>\d+) +(?P<rest>.*)")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>")
_CALL = re.compile(r"(?P<name>\w+)\(\d+<(?P<file>[^>]*)>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_NUMBERS = re.compile(r"(\d+)(?:, (\d+))? *\) += ")
_HANDLE = rb"(H:[\w.-]+:\d{20})"
_CREATED = re.compile(rb"\0RES\0\0\0\x08\0\0\0." + _HANDLE, re.DOTALL)
_COMPLETE = re.compile(rb"\0REQ\0\0\0\x0d\0\0\0." + _HANDLE, re.DOTALL)


@dataclass(frozen=True)
class Change:
    """A write, or a truncation if there is no data."""

    file: str
    place: int
    data: bytes | None


@dataclass(frozen=True)
class Sync:
    """A sync that has returned, of what was written before it began."""

    file: str
    begun: int


@dataclass(frozen=True)
class Talk:
    """Handles of jobs that were announced to clients, or whose end workers have told."""

    created: tuple[bytes, ...]
    ended: tuple[bytes, ...]


Event = Change | Sync | Talk


def events_of(lines: Iterable[str], files: Iterable[str]) -> list[Event]:
    """What a trace made with ``-f -y -xx`` says, in its order."""
    watched = set(files)
    events: list[Event] = []
    begun: dict[str, tuple[int, str]] = {}
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            continue
        thread, text = found["thread"], found["rest"]
        start = len(events)
        if resumed := _RESUMED.match(text):
            if thread not in begun:
                continue
            start, head = begun.pop(thread)
            text = head + text[resumed.end() :]
        if text.endswith("<unfinished ...>"):
            begun[thread] = start, text.removesuffix("<unfinished ...>")
            # What is said may arrive at once.
            if text.startswith("send"):
                _talk(text, events)
            continue
        call = _CALL.match(text)
        if call is None or " = -1 " in text:
            continue
        name, file = call["name"], call["file"]
        if file.startswith("\\x"):
            # Some versions of strace write the names of files like any other text.
            file = os.fsdecode(_bytes(file))
        if name in ("sendto", "sendmsg", "recvfrom"):
            _talk(text, events)
        elif file in watched:
            if name in ("fdatasync", "fsync"):
                events.append(Sync(file, start))
            else:
                events.append(_change(name, file, text))
    return events


def _talk(text: str, events: list[Event]) -> None:
    data = b"".join(map(_bytes, _TEXT.findall(text)))
    talk = Talk(tuple(_CREATED.findall(data)), tuple(_COMPLETE.findall(data)))
    if talk.created or talk.ended:
        events.append(talk)


def _change(name: str, file: str, text: str) -> Change:
    numbers = _NUMBERS.search(text)
    assert numbers is not None, text[-80:]
    if name == "ftruncate":
        return Change(file, int(numbers[1]), None)
    (data,) = _TEXT.findall(text)
    assert len(data) == 4 * int(numbers[1]), "strace has cut a write short"
    return Change(file, int(numbers[2]), _bytes(data))


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass
class Disk:
    """Files as they certainly are, and what may have become of them since."""

    files: dict[str, bytearray]
    loose: list[tuple[int, Change]] = field(default_factory=list)
    created: set[bytes] = field(default_factory=set)
    ended: set[bytes] = field(default_factory=set)

    def take(self, place: int, event: Event) -> None:
        if isinstance(event, Change):
            self.loose.append((place, event))
        elif isinstance(event, Talk):
            self.created.update(event.created)
            self.ended.update(event.ended)
        else:
            left = []
            for when, change in self.loose:
                if change.file == event.file and when < event.begun:
                    _apply(self.files, change)
                else:
                    left.append((when, change))
            self.loose = left

    def images(self, rng: random.Random, some: int) -> Iterator[dict[str, bytearray]]:
        """What may be found after a loss of power now: nothing of what is loose, all of it, and
        ``some`` random parts."""
        yield {file: bytearray(data) for file, data in self.files.items()}
        if not self.loose:
            return
        changes = [change for _, change in self.loose]
        for chosen in (
            changes,
            *([one for one in changes if rng.random() < 0.5] for _ in range(some)),
            *([*_torn(changes, rng)] for _ in range(some)),
        ):
            image = {file: bytearray(data) for file, data in self.files.items()}
            for change in chosen:
                _apply(image, change)
            yield image


def _torn(changes: Iterable[Change], rng: random.Random) -> Iterator[Change]:
    """Random sectors of the writes."""
    for change in changes:
        if change.data is None:
            if rng.random() < 0.5:
                yield change
            continue
        for start in range(0, len(change.data), SECTOR):
            if rng.random() < 0.5:
                piece = change.data[start : start + SECTOR]
                yield Change(change.file, change.place + start, piece)


def _apply(files: dict[str, bytearray], change: Change) -> None:
    data = files.setdefault(change.file, bytearray())
    if change.data is None:
        del data[change.place :]
        data.extend(bytes(change.place - len(data)))
        return
    end = change.place + len(change.data)
    data.extend(bytes(max(0, end - len(data))))
    data[change.place : end] = change.data


def lost_in(image: dict[str, bytearray], disk: Disk, folder: Path) -> list[str]:
    """What is wrong with the store that is found after a loss of power: jobs that were announced
    and are not there, or are there twice, and damage."""
    for name in os.listdir(folder):
        os.unlink(folder / name)
    for file, data in image.items():
        (folder / os.path.basename(file)).write_bytes(data)
    path = str(folder / os.path.basename(min(image, key=len)))
    faults = []
    with closing(SqliteStore(path)) as store:
        store.open(_OWNER)
        rows = store.scan(None, 1 << 30)
        found = [row.handle for row in rows if isinstance(row, Keep)]
    if len(found) != len(set(found)) or len(found) != len(rows):
        faults.append("a job is there twice, or is none")
    faults += [f"{handle!r} is lost" for handle in disk.created - disk.ended - set(found)]
    with closing(sqlite3.connect(path)) as connection:
        (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        faults.append(verdict)
    return faults


@dataclass
class Survey:
    """How often the power was lost, and what was wrong afterwards."""

    points: int = 0
    images: int = 0
    faults: list[str] = field(default_factory=list)


def survey(
    events: list[Event], files: dict[str, bytes], folder: Path, rng: random.Random, some: int
) -> Survey:
    """Lose the power before every sync and after it.

    Args:
        events: what the server did.
        files: the files as they were when it began.
        folder: an empty one, for what is left of them.
        rng: which parts of loose writes reach the disk.
        some: how many random parts are tried at each point.
    """
    result = Survey()
    disk = Disk({file: bytearray(data) for file, data in files.items()})
    for place, event in enumerate(events):
        points = 1
        if isinstance(event, Sync):
            points = 2
        elif not isinstance(event, Talk):
            points = 0
        if points == 2:
            _lose_power(disk, folder, rng, some, result)
        disk.take(place, event)
        if points:
            _lose_power(disk, folder, rng, some if points == 2 else 0, result)
    return result


def _lose_power(disk: Disk, folder: Path, rng: random.Random, some: int, result: Survey) -> None:
    result.points += 1
    for image in disk.images(rng, some):
        result.images += 1
        result.faults += lost_in(image, disk, folder)
