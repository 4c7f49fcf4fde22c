"""What does not grow with the size of things: the work of a submission with the number of workers
that are asleep, the memory of a job with more than its workload, what it takes to enter a job with
the number of jobs."""

from __future__ import annotations

import tracemalloc

import pytest

from tests.engine.cost import HANDLE, Bench
from trigear.wire.codec import request
from trigear.wire.packets import (
    CAN_DO,
    GRAB_JOB_UNIQ,
    PRE_SLEEP,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    WORK_COMPLETE,
)

MIB = 1 << 20
CHUNK = 65536
IN_FLIGHT = 8


def calls_of_a_job(sleepers: int, submission: int, functions: int = 1) -> int:
    """Calls from a submission to its end, beside workers of other functions that are asleep."""
    bench = Bench()
    for number in range(sleepers):
        other = b"other%d" % (number % functions)
        bench.round(bench.connect(), request(CAN_DO, other), request(PRE_SLEEP))
    client, worker = bench.connect(), bench.connect()
    bench.round(worker, request(CAN_DO, b"f"), request(PRE_SLEEP))
    bench.flush()
    for mode in ("", "calls"):  # once to warm up
        bench.mode = mode
        bench.round(client, request(submission, b"f", b"", b"w"))
        bench.flush()
        bench.round(worker, request(GRAB_JOB_UNIQ))
        handle = bench.flush()[worker][HANDLE]
        bench.round(worker, request(WORK_COMPLETE, handle, b"r"), request(GRAB_JOB_UNIQ))
        bench.round(worker, request(PRE_SLEEP))
        bench.flush()
    return bench.calls


@pytest.mark.parametrize("submission", [SUBMIT_JOB, SUBMIT_JOB_BG], ids=["SUBMIT", "SUBMIT_BG"])
@pytest.mark.parametrize("functions", [1, 1_000])
def test_a_job_costs_the_same_beside_ten_thousand_idle_workers_of_other_functions(
    submission: int, functions: int
) -> None:
    assert calls_of_a_job(10_000, submission, functions) == calls_of_a_job(0, submission)


def test_a_large_job_in_flight_needs_little_more_memory_than_twice_its_workload() -> None:
    bench = Bench()
    client = bench.connect()
    workers = [bench.connect() for _ in range(IN_FLIGHT)]
    for worker in workers:
        bench.round(worker, request(CAN_DO, b"f"))
    submission = request(SUBMIT_JOB, b"f", b"", b"w" * MIB)
    result = b"r" * MIB
    sent: list[bytes] = []

    def send(session, packet: bytes) -> None:
        for at in range(0, len(packet), CHUNK):
            bench.round(session, packet[at : at + CHUNK])

    tracemalloc.start()
    try:
        for worker in workers:
            send(client, submission)
            bench.round(worker, request(GRAB_JOB_UNIQ))
        for session in bench.engine.take_touched():
            sent += session.take()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(map(len, sent)) > IN_FLIGHT * MIB
    assert peak <= 2.2 * IN_FLIGHT * MIB
    handles = [piece[HANDLE] for piece in sent if piece[7] == 31]
    assert len(handles) == IN_FLIGHT

    # Its result is handed through as well, and nothing of the job is left.
    tracemalloc.start()
    try:
        for worker, handle in zip(workers, handles, strict=True):
            send(worker, request(WORK_COMPLETE, handle, result))
            bench.flush()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 6 * MIB
    assert after < MIB


QUEUED = 100_000
AT_ONCE = 16
SMALL = 64


@pytest.mark.parametrize("unique", [False, True], ids=["without a unique", "with one"])
def test_a_queued_job_needs_little_more_memory_than_a_few_times_its_workload(
    unique: bool,
) -> None:
    bench = Bench()
    client = bench.connect()
    uniques = [b"%036d" % number if unique else b"" for number in range(QUEUED)]
    # What was made before is not counted, and what a packet was cut from is gone by then.
    packets = [
        b"".join(
            request(SUBMIT_JOB_BG, b"f", one, b"w" * SMALL) for one in uniques[at : at + AT_ONCE]
        )
        for at in range(0, QUEUED, AT_ONCE)
    ]
    tracemalloc.start()
    try:
        for packet in packets:
            bench.round(client, packet)
            bench.flush()
        traced = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert bench.engine.statistics().jobs == QUEUED
    assert traced / QUEUED <= (560 if unique else 440)
