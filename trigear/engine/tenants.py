"""What can be said about a tenant in `trigear.toml`: its quotas, in one table.

The file's reader, the commands and the documentation go by it; what is charged to a quota is told
in :mod:`trigear.broker.quotas`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from trigear.broker.quotas import Quotas
from trigear.engine.settings import count_of, duration
from trigear.model import parse_size, show_duration, show_size

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Quota:
    """One quota of a tenant; 0 is any number.

    Args:
        name: what it is called in files and commands.
        about: what it limits, in a line.
        parse: makes its value of what stands in a file or on a command line; raises ``ValueError``
            if it is none.
        show: the reverse, as one word.
        kind: what a value of it looks like, for people.
        charged: whether a tenant uses it up, instead of each single thing being measured by it.
    """

    name: str
    about: str
    parse: Callable[[object], Any]
    show: Callable[[Any], str]
    kind: str = "NUMBER"
    charged: bool = True

    @property
    def field(self) -> str:
        """Its name as an attribute of :class:`~trigear.broker.quotas.Quotas`."""
        return self.name.replace("-", "_")

    @property
    def default(self) -> Any:  # noqa: ANN401
        """What a tenant may have of whom nothing else is said."""
        return getattr(_DEFAULTS, self.field)

    def plain(self, value: float) -> object:
        """Its value as a file has it."""
        return value if self.kind == "NUMBER" or not value else self.show(value)


_DEFAULTS: Final = Quotas()


def _size(value: object) -> int:
    if isinstance(value, bool):
        raise ValueError(f"'{value}' is not a size: write 64KiB, 16MiB, 1GiB or a number of bytes")
    return parse_size(value)


QUOTAS: Final = (
    Quota("max-connections", "Connections that are logged in.", count_of("connections"), str),
    Quota("max-workers", "Connections that can do some function.", count_of("workers"), str),
    Quota(
        "max-functions",
        "Functions with jobs or workers, or with something set by command.",
        count_of("functions"),
        str,
    ),
    Quota(
        "max-queued-jobs",
        "Jobs, from their submission to their end; those that run are among them.",
        count_of("jobs"),
        str,
    ),
    Quota(
        "max-queued-bytes",
        "What these jobs are together: their workloads and their names.",
        _size,
        show_size,
        "SIZE",
    ),
    Quota("max-job-bytes", "What one job may be.", _size, show_size, "SIZE", charged=False),
    Quota(
        "max-abilities-per-connection",
        "Functions that one connection may say it can do.",
        count_of("functions"),
        str,
        charged=False,
    ),
    Quota(
        "max-background-age",
        "How old a background job may become before it is given up, unless it runs.",
        duration,
        show_duration,
        "DURATION",
        charged=False,
    ),
)
"""Every quota, in the order in which they are shown."""

QUOTA_NAMED: Final = {quota.name: quota for quota in QUOTAS}

assert [quota.field for quota in QUOTAS] == [field.name for field in fields(Quotas)]
