"""What goes into the audit log: who came and who was refused, and who changed what.

The engine makes entries, and hands them to a sink that it was given; without one nothing is made.
Why somebody was refused stands here and nowhere else: the peer hears the same whatever it was.
Names that peers chose are made harmless and cut; workloads, passwords and what proves that somebody
knows one are in no entry.

Refusals are limited, so that who asks in a circle cannot fill the disk: after ``BURST`` of one kind
to one peer there is one in ``INTERVAL`` seconds, and of one kind to all peers there are no more
than ``BURST_OF_ALL`` and then ``RATE_OF_ALL`` per second. Each entry says how many like it were
left out before it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from trigear.model import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trigear.model import Now
    from trigear.wire.commands import Command

NAME_BYTES: Final = 128
"""Most of a name that a peer may have chosen."""

REASON_BYTES: Final = 512

BURST: Final = 20
INTERVAL: Final = 10.0
BURST_OF_ALL: Final = 2_000
RATE_OF_ALL: Final = 50.0

MOST_PEERS: Final = 4_096
"""So many are told apart; of who was not heard of for longest, what was left out is told."""

LIMITED: Final = frozenset({"auth.fail", "auth.throttled", "acl.denied", "quota.exceeded"})
"""Events that a peer can bring about as often as it likes."""

READING: Final = frozenset(
    {
        *("status", "prioritystatus", "workers", "show jobs", "show unique jobs", "show job"),
        *("show functions", "jobs", "clients", "getpid", "verbose", "version", "result"),
        *("schedule list", "schedule show", "functions", "tenants", "dead list", "dead show"),
        "loading",
        *("sessions", "whoami", "auth", "tenant", "metrics"),
    }
)
"""Text commands that change nothing. All others are entered."""

_ARGUMENTS: Final = {"set": 3, "maxqueue": 4, "priority": 2, "dead retry": 2, "dead delete": 2}
"""How many arguments of a command are entered, where it is not one. The others of `schedule add`
have the workload among them."""


class _Bucket:
    """Allows so many, and then so many per second."""

    __slots__ = ("_at", "_left", "_most", "_rate", "facts", "left_out")

    def __init__(self, most: float, rate: float, now: Now) -> None:
        self._most = self._left = most
        self._rate = rate
        self._at = now.monotonic
        self.left_out = 0
        self.facts: Mapping[str, object] = {}
        """Of what was left out last."""

    def has(self, now: Now) -> bool:
        """Whether there may be one more now."""
        grown = self._left + (now.monotonic - self._at) * self._rate
        self._left = min(self._most, grown)
        self._at = now.monotonic
        return self._left >= 1

    def take(self) -> None:
        self._left -= 1


class Audit:
    """The audit log of an engine.

    Args:
        sink: gets each entry, which is its to keep; None: there is no audit log.
    """

    def __init__(self, sink: Callable[[Mapping[str, object]], object] | None) -> None:
        self._sink = sink
        self._peers: dict[tuple[str, str], _Bucket] = {}
        self._all: dict[str, _Bucket] = {}

    @property
    def on(self) -> bool:
        """Whether entries are wanted at all."""
        return self._sink is not None

    def note(self, event: str, now: Now, about: Mapping[str, object], **facts: object) -> None:
        """Make an entry.

        Args:
            event: what happened.
            now: when.
            about: the connection; its `peer` is told apart from others.
            facts: what else is known; what is None or empty is left out.
        """
        if self._sink is None:
            return
        facts = {**about, **facts}
        if event in LIMITED:
            bucket = self._bucket(event, str(about.get("peer", "")), now)
            every = self._all.setdefault(event, _Bucket(BURST_OF_ALL, RATE_OF_ALL, now))
            if not (bucket.has(now) and every.has(now)):
                bucket.left_out += 1
                bucket.facts = facts
                return
            bucket.take()
            every.take()
            if bucket.left_out:
                facts["left_out"] = bucket.left_out
                bucket.left_out = 0
        self._write(event, now, facts)

    def _bucket(self, event: str, peer: str, now: Now) -> _Bucket:
        key = event, peer
        bucket = self._peers.pop(key, None)
        if bucket is None:
            bucket = _Bucket(BURST, 1 / INTERVAL, now)
            if len(self._peers) >= MOST_PEERS:
                first = next(iter(self._peers))
                self._tell(first[0], self._peers.pop(first), now)
        self._peers[key] = bucket
        return bucket

    def flush(self, now: Now) -> None:
        """Tell what was left out so far."""
        for (event, _), bucket in self._peers.items():
            self._tell(event, bucket, now)

    def _tell(self, event: str, bucket: _Bucket, now: Now) -> None:
        if bucket.left_out:
            self._write(event, now, {**bucket.facts, "left_out": bucket.left_out})
            bucket.left_out = 0

    def enters(self, command: Command) -> bool:
        """Whether there is to be an entry of this command."""
        return self._sink is not None and command.name not in READING

    def command(
        self,
        command: Command,
        args: Sequence[bytes],
        answer: bytes | None,
        now: Now,
        about: Mapping[str, object],
    ) -> None:
        """A text command that changes something was given.

        Args:
            command: which.
            args: its arguments.
            answer: what was answered; None: that is not known yet.
            now: when.
            about: the connection that gave it.
        """
        words = b"" if answer is None else b" ".join(answer.split()[:2])
        refused = words.startswith(b"ERR")
        self.note(
            "admin",
            now,
            about,
            command=command.name,
            arguments=[_text(arg) for arg in args[: _ARGUMENTS.get(command.name, 1)]],
            outcome=_text(words) if refused else "begun" if answer is None else "done",
        )

    def _write(self, event: str, now: Now, facts: Mapping[str, Any]) -> None:
        assert self._sink is not None
        time = datetime.fromtimestamp(now.wall, UTC).isoformat(timespec="milliseconds")
        entry: dict[str, object] = {"time": time.replace("+00:00", "Z"), "event": event}
        for name, value in facts.items():
            if isinstance(value, str | bytes):
                value = _text(value, REASON_BYTES if name == "reason" else NAME_BYTES)
            if value not in (None, "", ()):
                entry[name] = value
        self._sink(entry)


def _text(value: str | bytes, most: int = NAME_BYTES) -> str:
    """A name, or other words, that do nothing to whoever reads them; cut where they are long."""
    data = value if isinstance(value, bytes) else value.encode("utf-8", "backslashreplace")
    # Escaping makes it longer: by four at most.
    text = printable(data[:most]).encode()
    if len(data) <= most and len(text) <= most:
        return text.decode()
    return text[: most - 3].decode("utf-8", "ignore") + "..."
