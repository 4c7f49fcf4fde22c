"""What operators do with dead letters: look at them, make them jobs again, forget them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from trigear.broker.jobs import Job, key_of

if TYPE_CHECKING:
    from trigear.broker.assignments import Keeper
    from trigear.broker.broker import Broker
    from trigear.broker.dead import DeadLetter
    from trigear.broker.functions import Function, Tenant
    from trigear.model import Now


class Told(Protocol):
    """Who is to know whether what was asked for is on record."""

    def stored(self, now: Now) -> None:
        """It is."""

    def not_stored(self, now: Now) -> None:
        """It is not, and was undone."""


class DeadLetters:
    """The dead letters of a broker."""

    def __init__(self, broker: Broker, keeper: Keeper | None) -> None:
        self._broker = broker
        self._keeper = keeper

    def of(self, tenant: Tenant, function: bytes | None = None) -> list[DeadLetter]:
        """A tenant's dead letters, of one function or of all, partition by partition in the order
        in which they died."""
        return [
            letter
            for partition in self._broker.partitions.values()
            for letter in partition.dead.get(tenant.name, {}).values()
            if function is None or letter.function == function
        ]

    def get(self, tenant: Tenant, handle: bytes) -> DeadLetter | None:
        """The dead letter of the job with this handle, if there is one."""
        for partition in self._broker.partitions.values():
            letter = partition.dead.get(tenant.name, {}).get(handle)
            if letter is not None:
                return letter
        return None

    def restore(self, letter: DeadLetter, now: Now) -> bool:
        """Put back a dead letter that an earlier owner of the queue recorded.

        Returns:
            Whether it belongs to its partition.
        """
        function = self._function_of(letter)
        if function.partition.number != letter.partition:
            return False
        self._broker.lay(letter, function.rules.dead_keep, now)
        return True

    def revive(self, letter: DeadLetter, told: Told, now: Now) -> None:
        """Make a dead letter a job again: as it was submitted, under the same handle, with all its
        attempts. If another job has got its unique meanwhile, it attracts none.

        It can be grabbed once it is on record; if that fails, it is a dead letter as before.

        Raises:
            OverQuota: the tenant may not have another job, or function; nothing has changed then.
        """
        broker = self._broker
        function = broker.wanted_function(broker.tenant(letter.tenant), letter.function)
        unique, workload = letter.unique, letter.workload
        key = key_of(unique, workload) if unique else None
        if key is not None and key in function.uniques:
            key = None
        job = Job(
            *(function, letter.handle, unique, key, workload, letter.priority, True),
            *(0.0, now.wall, letter.reducer),
        )
        broker.revive(job, now)
        broker.lift(letter)
        if self._keeper is None:
            told.stored(now)
        else:
            self._keeper.revive(letter, job, _Revival(self, letter, job, told))

    def remove(self, letter: DeadLetter, told: Told, now: Now) -> None:
        """Forget a dead letter; if that cannot be recorded, it is there again."""
        self._broker.lift(letter)
        if self._keeper is None:
            told.stored(now)
        else:
            self._keeper.erase(letter, _Removal(self, letter, told))

    def settle(self, job: Job, now: Now) -> None:
        """A job that was a dead letter is on record."""
        self._broker.stored(job, now)

    def undo(self, letter: DeadLetter, job: Job | None, now: Now) -> None:
        """A dead letter that was to go, or to be this job again, stays."""
        if job is not None:
            self._broker.not_stored(job, now)
        self._broker.lay(letter, self._function_of(letter).rules.dead_keep, now)

    def _function_of(self, letter: DeadLetter) -> Function:
        broker = self._broker
        return broker.function(broker.tenant(letter.tenant), letter.function)


class _Revival:
    """A dead letter on its way back into the queue."""

    def __init__(self, letters: DeadLetters, letter: DeadLetter, job: Job, told: Told) -> None:
        self._letters = letters
        self._letter = letter
        self._job = job
        self._told = told

    def stored(self, now: Now) -> None:
        self._letters.settle(self._job, now)
        self._told.stored(now)

    def not_stored(self, now: Now) -> None:
        self._letters.undo(self._letter, self._job, now)
        self._told.not_stored(now)


class _Removal:
    """A dead letter on its way out of the store."""

    def __init__(self, letters: DeadLetters, letter: DeadLetter, told: Told) -> None:
        self._letters = letters
        self._letter = letter
        self._told = told

    def stored(self, now: Now) -> None:
        self._told.stored(now)

    def not_stored(self, now: Now) -> None:
        self._letters.undo(self._letter, None, now)
        self._told.not_stored(now)
