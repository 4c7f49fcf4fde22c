"""What the store remembers besides jobs, on its way back into the engine.

Each part of the engine that writes records registers their kind, with a function that takes one
back. As with jobs, a record that makes no sense is logged, passed over, and stays in the store.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trigear.model import printable
from trigear.stores.base import SpoiltRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from trigear.model import Now
    from trigear.stores.base import Record

log: Final = logging.getLogger("trigear.engine")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of records.

    Args:
        name: what it is called in the store.
        restore: takes a record, what its ``about`` says, and the time; raises ``KeyError``,
            ``TypeError`` or ``ValueError`` if it makes no sense.
        data: whether the records' data is to be loaded at the start.
    """

    name: str
    restore: Callable[[Record, Mapping[str, Any], Now], None]
    data: bool = True


class Kinds:
    """The kinds that are known, in the order in which they are to be loaded."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind] = {}

    def register(self, kind: Kind) -> None:
        """Make a kind known; once for each."""
        assert kind.name not in self._kinds
        self._kinds[kind.name] = kind

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds.values())

    def restore(self, records: Iterable[Record | SpoiltRecord], now: Now) -> int:
        """Take records back.

        Returns:
            How many of them made no sense.
        """
        spoilt = 0
        for record in records:
            why = self._restore(record, now)
            if why is not None:
                spoilt += 1
                log.error(
                    "%s %s of tenant %s in the store makes no sense and stays there: %s",
                    record.kind,
                    _shown(record.key),
                    _shown(record.tenant),
                    why,
                )
        return spoilt

    def _restore(self, record: Record | SpoiltRecord, now: Now) -> str | None:
        if isinstance(record, SpoiltRecord):
            return record.why
        if not record.tenant:
            return "it has no tenant"
        try:
            about = about_of(record)
            self._kinds[record.kind].restore(record, about, now)
        except KeyError as error:
            return f"{error} is missing"
        except (OverflowError, TypeError, ValueError) as error:
            return str(error)
        return None


def _shown(name: object) -> str:
    return printable(name if isinstance(name, bytes) else str(name).encode("utf-8", "replace"))


def about_of(record: Record) -> Mapping[str, Any]:
    """What the record says about itself.

    Raises:
        ValueError: it is no JSON object.
    """
    about = json.loads(record.about)
    if not isinstance(about, dict):
        raise ValueError("about: is no JSON object")
    return about
