"""The reply gate, cell by cell: what a submission meets, its kind, and what the store makes of it.

Broker and gate, with a store that answers when and as the test says. ``none`` is a submission that
makes a new job; in the other states there is a job with the same unique, submitted in the
foreground or the background.
"""

from __future__ import annotations

import pytest

from tests.broker.world import World
from trigear.broker.jobs import DELAYED, PENDING, QUEUED, RUNNING
from trigear.engine.gate import STALL_SECONDS, Gate
from trigear.errors import StoreUnavailable, StoreUnknown
from trigear.stores.base import Forget, Keep

WAITS = {
    # Met by the submission, and its kind: whether its reply has to wait for the store.
    ("none", "foreground"): False,
    ("none", "background"): True,
    ("pending", "foreground"): True,
    ("pending", "background"): True,
    ("delayed", "foreground"): False,
    ("delayed", "background"): False,
    ("queued in the background", "foreground"): False,
    ("queued in the background", "background"): False,
    ("queued in the foreground", "foreground"): False,
    ("queued in the foreground", "background"): True,
    ("running in the background", "foreground"): False,
    ("running in the background", "background"): False,
    ("running in the foreground", "foreground"): False,
    ("running in the foreground", "background"): True,
}
OUTCOMES = [
    "written",
    "not written",
    "unknown, then written",
    "unknown, then not written",
    "late, then written",
    "late, then not written",
    "never",
    "written, client gone",
    "not written, client gone",
]
STATES = {"delayed": DELAYED, "queued": QUEUED, "running": RUNNING, "pending": PENDING}
DELAY = 60


class Desk(World):
    """A broker whose keeper is the gate, and the store behind it."""

    def __init__(self, partitions: int) -> None:
        self.gate = Gate()
        super().__init__(partitions=partitions, keeper=self.gate)
        self.gate.serve(self.broker)
        self.records: dict[tuple[int, int], Keep] = {}
        self.flying = None

    def take(self) -> list:
        """The lines of the next batch, which is now with the store."""
        assert self.flying is None
        self.flying = self.gate.next_commit(self.now)
        return [] if self.flying is None else list(self.flying.batch.lines)

    def answer(self, written: bool) -> None:
        """The store says how the batch that it has came out."""
        flying, self.flying = self.flying, None
        if written:
            for line in flying.batch.lines:
                if isinstance(line, Keep):
                    self.records[line.partition, line.sequence] = line
                elif isinstance(line, Forget):
                    self.records.pop((line.partition, line.sequence), None)
        self.gate.done(flying, None if written else StoreUnavailable("no"), self.now)
        self.check()

    def write(self) -> None:
        """Commit until there is nothing to commit."""
        while self.take():
            self.answer(True)


class Cell:
    """A submission that meets a job, or nothing, and what has come of it so far."""

    def __init__(self, desk: Desk, met: str, kind: str) -> None:
        self.desk = desk
        self.met = met
        self.kind = kind
        self.newcomer, self.owner = desk.connect("newcomer"), desk.connect("owner")
        self.worker = desk.worker()
        self.old = self.prepare()
        self.waits = WAITS[met, kind]
        # A new record is written unless there is one, or one is on its way.
        self.writes = self.waits and met != "pending"
        self.job = self.newcomer.submit(unique=b"u", background=kind == "background", token="token")

    def prepare(self):
        if self.met == "none":
            return None
        background = "foreground" not in self.met
        due = self.desk.now.wall + DELAY if self.met == "delayed" else 0.0
        job = self.owner.submit(unique=b"u", background=background, due=due, token="old")
        if self.met == "pending":
            self.desk.take()
            return job
        self.desk.write()
        if self.met.startswith("running"):
            assert self.worker.grab() is job
        return job

    @property
    def durable_before(self) -> bool:
        """Whether the job is wanted in the background whatever becomes of this submission."""
        return "background" in self.met or self.met == "delayed"

    @property
    def unstored(self) -> bool:
        """Whether the job itself is not there before the store has answered."""
        return self.met == "pending" or (self.met, self.kind) == ("none", "background")


@pytest.fixture(params=[1, 1024], ids=["one-partition", "1024-partitions"])
def desk(request):
    return Desk(request.param)


def run_to_the_end(cell: Cell) -> None:
    """Somebody does the job, wherever it is."""
    desk, job = cell.desk, cell.job
    if job.state == DELAYED:
        assert cell.worker.grab() is None
        desk.pass_time(DELAY)
    if job.state == QUEUED:
        assert cell.worker.grab() is job
    assert cell.worker.complete(job) is None


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize(("met", "kind"), WAITS)
def test_cell(desk, met, kind, outcome):
    cell = Cell(desk, met, kind)
    job, newcomer = cell.job, cell.newcomer

    # At once: one job, answered or not.
    assert cell.old is None or job is cell.old
    assert newcomer.answers == ([] if cell.waits else [("token", job.handle)])
    lines = desk.take() if cell.writes else []
    assert [line.handle for line in lines] == ([job.handle] if cell.writes else [])
    if desk.flying is None:
        assert desk.take() == []

    # While the store is busy: a new durable job is not there, any other goes on.
    gone = outcome.endswith("client gone")
    assert (desk.status(job) is None) == cell.unstored
    if not cell.unstored and met != "none":
        assert job.state == STATES[met.split()[0]]
    if gone:
        newcomer.leave()
    if outcome == "never":
        desk.pass_time(STALL_SECONDS)
        desk.gate.tick(desk.now)
        assert desk.gate.stalled == (cell.waits or desk.flying is not None)
        assert newcomer.answers == ([] if cell.waits else [("token", job.handle)])
        if not cell.unstored:
            run_to_the_end(cell)
            assert newcomer.told(job) == ["complete"] * (kind == "foreground")
        else:
            assert cell.worker.grab() is None
        assert newcomer.answers == ([] if cell.waits else [("token", job.handle)])
        return
    if outcome.startswith("unknown") and desk.flying is not None:
        desk.gate.done(desk.flying, StoreUnknown("perhaps"), desk.now)
        assert desk.gate.stalled
        assert newcomer.answers == ([] if cell.waits else [("token", job.handle)])
    if outcome.startswith("late"):
        desk.pass_time(STALL_SECONDS)
        desk.gate.tick(desk.now)

    # The store has answered.
    written = "not written" not in outcome
    if desk.flying is not None:
        desk.answer(written)
        assert not desk.gate.stalled
    if not gone:
        answer = job.handle if written or not cell.waits else None
        assert newcomer.answers == [("token", answer)]
    if met == "pending":
        assert cell.owner.answers == [("old", job.handle if written else None)]

    # Whether there is a job, and who wants it.
    refused = cell.unstored and not written
    deserted = gone and (met, kind) == ("none", "foreground")
    if refused or deserted:
        assert desk.status(job) is None
        assert cell.worker.grab() is None
        assert (newcomer.heard, cell.owner.heard) == ([], [])
        assert desk.function().total == desk.function().pending == 0
        fresh = desk.connect().submit(unique=b"u")
        assert fresh is not job
    else:
        promoted = kind == "background" and written
        durable = cell.durable_before or met == "pending" or promoted
        assert job.background == durable
        assert len(desk.records) == durable
        run_to_the_end(cell)
        accepted = kind == "foreground" and not gone
        assert newcomer.told(job) == ["complete"] * accepted
        assert cell.owner.told(job) == ["complete"] * ("foreground" in met)

    # In the end nothing is left in the store.
    desk.write()
    assert desk.records == {}
    assert desk.gate.idle


@pytest.mark.parametrize("met", ["queued in the foreground", "running in the foreground"])
@pytest.mark.parametrize("written", [True, False])
def test_a_job_whose_own_client_leaves_while_it_is_promoted(desk, met, written):
    cell = Cell(desk, met, "background")
    desk.take()
    cell.owner.leave()
    assert desk.status(cell.job) is cell.job
    desk.answer(written)
    assert cell.newcomer.answers == [("token", cell.job.handle if written else None)]
    # What runs is not taken away, but a loss ends it.
    cell.worker.leave()
    assert (desk.status(cell.job) is cell.job) == written
    desk.write()
    assert len(desk.records) == written


@pytest.mark.parametrize("met", ["queued in the foreground", "running in the foreground"])
@pytest.mark.parametrize("written", [True, False])
def test_a_job_that_is_done_while_it_is_promoted_leaves_no_record(desk, met, written):
    cell = Cell(desk, met, "background")
    desk.take()
    run_to_the_end(cell)
    assert cell.owner.told(cell.job) == ["complete"]
    desk.answer(written)
    assert cell.newcomer.answers == [("token", cell.job.handle if written else None)]
    desk.write()
    assert desk.records == {}


@pytest.mark.parametrize("met", ["delayed", "queued in the background", "pending"])
def test_cancelling_meets_what_is_there_and_leaves_no_record(desk, met):
    cell = Cell(desk, met, "foreground")
    assert cell.owner.cancel(cell.job.handle) == (met != "pending")
    if desk.flying is not None:
        desk.answer(True)
        assert cell.owner.cancel(cell.job.handle)
    assert cell.newcomer.told(cell.job) == ["failed"]
    desk.write()
    assert desk.records == {}
