"""Stores as text: a line of JSON for each job and each record, for moving them from one database
to another and for looking at them.

The first line says what follows. Bytes that are printable text stand there as they are, others as
``{"base64": "…"}``. Numbers of jobs are left out: their order is that of the lines, and whoever
reads them gives them numbers of its own. Their handles stay.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, Final, get_type_hints

from trigear.stores.base import RECORD_VERSION, Batch, Keep, Record
from trigear.stores.snapshot import jobs_of, records_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from trigear.stores.base import Line, Row, SpoiltRecord, Store
    from trigear.stores.snapshot import Snapshot

FORMAT: Final = 1
"""Version of the text."""

BATCH: Final = 1000
"""Jobs and records that are written at a time."""

_HEAD: Final = "trigear export"

_JOB_FIELDS: Final = {
    name: kind for name, kind in get_type_hints(Keep).items() if name not in {"sequence", "version"}
}
_RECORD_FIELDS: Final = {
    name: kind for name, kind in get_type_hints(Record).items() if name != "version"
}


class Unreadable(ValueError):
    """A line is none of an export; the text says which and why."""


def export_lines(snapshot: Snapshot, version: str, spoilt: Callable[[str], None]) -> Iterator[str]:
    """Everything in the store as text.

    Args:
        snapshot: the store.
        version: of this trigear, for people who find the file.
        spoilt: is told of each row that cannot be read; it is left out.

    Raises:
        StoreUnusable: the store cannot be read.
    """
    yield json.dumps({_HEAD: FORMAT, "by": version, "layout": RECORD_VERSION})
    for entry in records_of(snapshot):
        yield from _text_of(entry, spoilt)
    for row in jobs_of(snapshot):
        yield from _text_of(row, spoilt)


def _text_of(row: Row | SpoiltRecord | Record, spoilt: Callable[[str], None]) -> Iterator[str]:
    if isinstance(row, Keep):
        fields = _JOB_FIELDS
        what = "job"
    elif isinstance(row, Record):
        fields = _RECORD_FIELDS
        what = "record"
    else:
        spoilt(row.why)
        return
    values = {name: _plain(getattr(row, name)) for name in fields}
    yield json.dumps({what: values}, ensure_ascii=False)


def _plain(value: object) -> object:
    if not isinstance(value, bytes):
        return value
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if text.isprintable():
        return text
    return {"base64": base64.b64encode(value).decode()}


def read_lines(lines: Iterable[str]) -> Iterator[Keep | Record]:
    """The jobs and records of an export. Jobs are numbered from 1 in their order.

    Raises:
        Unreadable: a line is none.
    """
    jobs = 0
    started = False
    for number, text in enumerate(lines, 1):
        try:
            document = json.loads(text)
            if not isinstance(document, dict):
                raise Unreadable("no JSON object")
            if not started:
                _check_head(document)
                started = True
            elif document.keys() == {"job"}:
                jobs += 1
                fields = _fields(document["job"], _JOB_FIELDS)
                yield Keep(sequence=jobs, **fields)
            elif document.keys() == {"record"}:
                yield Record(**_fields(document["record"], _RECORD_FIELDS))
            else:
                raise Unreadable("neither a job nor a record")
        except ValueError as error:
            raise Unreadable(f"line {number}: {error}") from error
    if not started:
        raise Unreadable("line 1: the file is empty")


def _check_head(document: dict[str, Any]) -> None:
    found = document.get(_HEAD)
    if found is None:
        raise Unreadable("no export of trigear's begins like this")
    if (found, document.get("layout")) != (FORMAT, RECORD_VERSION):
        raise Unreadable(f"written by trigear {document.get('by')} in a way this one cannot read")


def _fields(document: object, kinds: dict[str, type]) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise Unreadable("no JSON object")
    if document.keys() != kinds.keys():
        odd = sorted(document.keys() ^ kinds.keys())
        raise Unreadable(f"{', '.join(odd)}: missing or unknown")
    return {name: _value(name, document[name], kind) for name, kind in kinds.items()}


def _value(name: str, value: object, kind: type) -> object:
    if kind is bytes:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, dict) and value.keys() == {"base64"}:
            try:
                return base64.b64decode(value["base64"], validate=True)
            except (TypeError, binascii.Error) as error:
                raise Unreadable(f"{name}: {error}") from error
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, kind) and not isinstance(value, bool):
        return value
    raise Unreadable(f"{name}: {value!r} does not belong there")


class Importer:
    """Writes jobs and records into a store that was opened by us.

    A job whose handle is in the store already is left out, so that an import that was cut short
    can be done again.

    Args:
        store: open.
        first: the number before that of the first job.
        held: handles in the store, by tenant.
    """

    def __init__(self, store: Store, first: int, held: set[tuple[str, bytes]]) -> None:
        self._store = store
        self._sequence = first
        self._held = held
        self._lines: list[Line] = []
        self._number = 0
        self.jobs = 0
        self.records = 0
        self.known = 0

    def add(self, line: Keep | Record) -> None:
        """Take one; written in the next batch.

        Raises:
            StoreUnavailable, StoreUnknown, StoreFenced: it cannot be written.
        """
        if isinstance(line, Keep):
            if (line.tenant, line.handle) in self._held:
                self.known += 1
                return
            self._held.add((line.tenant, line.handle))
            self._sequence += 1
            self._lines.append(line._replace(sequence=self._sequence))
            self.jobs += 1
        else:
            self._lines.append(line)
            self.records += 1
        if len(self._lines) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what was taken; as :meth:`add`."""
        if self._lines:
            self._number += 1
            self._store.commit(Batch(self._number, tuple(self._lines)))
            self._lines.clear()
