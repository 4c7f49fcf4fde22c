from __future__ import annotations

import os
import subprocess
import sys

from benchmarks import procfs
from benchmarks.procfs import Memory, ProcessTimes

STAT = (
    "4711 (gear man) d (x)) S 17 4711 4711 0 -1 4194560 2413 99 0 0 250 130 11 4 20 0 6 0 "
    "123456 250000000 2600 18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 1 0 0 0 0 0\n"
)


def times(pid: int, parent: int) -> ProcessTimes:
    return ProcessTimes(pid=pid, parent=parent, own=0, ended_children=0)


def test_a_program_name_with_spaces_and_brackets_does_not_shift_the_fields_of_stat() -> None:
    assert procfs.parse_stat(STAT) == ProcessTimes(
        pid=4711, parent=17, own=250 + 130, ended_children=11 + 4
    )


def test_memory_is_read_in_bytes() -> None:
    status = "Name:\tgearmand\nVmPeak:\t  9999 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n"
    assert procfs.parse_status(status) == Memory(now=1024 * 1024, peak=2048 * 1024)


def test_a_process_that_has_ended_has_no_memory() -> None:
    assert procfs.parse_status("Name:\tgearmand\nState:\tZ (zombie)\n") == Memory(now=0, peak=0)


def test_stolen_time_counts_as_busy_and_waiting_for_disks_does_not() -> None:
    found = procfs.parse_machine("cpu  10 1 5 100 30 2 3 4 0 0\ncpu0 5 0 2 50 15 1 1 2 0 0\n")
    assert (found.busy, found.total) == (10 + 1 + 5 + 2 + 3 + 4, 155)


def test_a_processor_is_named_as_the_kernel_names_it() -> None:
    assert procfs.parse_cpu_model("processor\t: 0\nmodel name\t: Fast 9000\n") == "Fast 9000"
    assert procfs.parse_cpu_model("processor\t: 0\n") == ""


def test_grandchildren_belong_to_the_family_and_strangers_do_not() -> None:
    processes = {
        p.pid: p for p in (times(9, 5), times(5, 1), times(7, 9), times(1, 0), times(6, 1))
    }
    assert procfs.descendants(5, processes) == [5, 9, 7]
    assert procfs.descendants(404, processes) == []


def test_processor_time_of_a_child_is_counted_while_it_lives_and_after() -> None:
    before = procfs.cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", "sum(range(5_000_000))"], check=True)
    assert procfs.cpu_seconds(os.getpid()) > before


def test_this_machine_can_be_described() -> None:
    facts = procfs.machine_facts()
    assert facts["cpu"]
    assert facts["python"]
    assert procfs.memory(os.getpid()).peak >= procfs.memory(os.getpid()).now > 0
    assert procfs.machine_times().total >= procfs.machine_times().busy > 0
