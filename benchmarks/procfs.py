"""What Linux says about processes and the machine: processor time, memory, facts for the report."""

from __future__ import annotations

import contextlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessTimes:
    """One line of /proc/PID/stat, as far as it is needed. Times are in clock ticks."""

    pid: int
    parent: int
    own: int
    ended_children: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in bytes: now, and the most there ever was."""

    now: int
    peak: int


@dataclass(frozen=True, slots=True)
class MachineTimes:
    """Processor time of the whole machine since it started, in ticks."""

    busy: int
    total: int


def parse_stat(text: str) -> ProcessTimes:
    """Reads /proc/PID/stat; the second field is the program's name and may contain anything."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    user, system, children_user, children_system = (int(field) for field in fields[11:15])
    return ProcessTimes(
        pid=int(head.split(maxsplit=1)[0]),
        parent=int(fields[1]),
        own=user + system,
        ended_children=children_user + children_system,
    )


def parse_status(text: str) -> Memory:
    """Reads VmRSS and VmHWM out of /proc/PID/status; a process that has ended has neither."""
    kibibytes = {"VmRSS": 0, "VmHWM": 0}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name in kibibytes:
            kibibytes[name] = int(value.split()[0])
    return Memory(now=kibibytes["VmRSS"] * 1024, peak=kibibytes["VmHWM"] * 1024)


def parse_machine(text: str) -> MachineTimes:
    """Reads the first line of /proc/stat. Time stolen by other virtual machines counts as busy."""
    user, nice, system, idle, iowait, irq, softirq, steal = (
        int(field) for field in text.split("\n", 1)[0].split()[1:9]
    )
    busy = user + nice + system + irq + softirq + steal
    return MachineTimes(busy=busy, total=busy + idle + iowait)


def parse_cpu_model(text: str) -> str:
    """The processor's name from /proc/cpuinfo, or an empty string where it has none."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"model name", "Model", "Hardware"}:
            return value.strip()
    return ""


def descendants(root: int, processes: dict[int, ProcessTimes]) -> list[int]:
    """`root` and everything it started that is still there, children after their parents."""
    family = [root] if root in processes else []
    for pid in family:
        family.extend(child.pid for child in processes.values() if child.parent == pid)
    return family


def read_processes() -> dict[int, ProcessTimes]:
    """Every process of the machine by its id. Those that end while being read are left out."""
    found: dict[int, ProcessTimes] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                times = parse_stat((entry / "stat").read_text(errors="replace"))
                found[times.pid] = times
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of `pid` and of its children, living and ended."""
    processes = read_processes()
    ticks = sum(
        processes[member].own + processes[member].ended_children
        for member in descendants(pid, processes)
    )
    return ticks / TICKS_PER_SECOND


def memory(pid: int) -> Memory:
    """Memory of `pid` and its living children, added up; the peaks need not have coincided."""
    now = peak = 0
    for member in descendants(pid, read_processes()):
        with contextlib.suppress(OSError):
            one = parse_status((PROC / str(member) / "status").read_text(errors="replace"))
            now, peak = now + one.now, peak + one.peak
    return Memory(now=now, peak=peak)


def machine_times() -> MachineTimes:
    """Processor time of the whole machine until now."""
    return parse_machine((PROC / "stat").read_text())


def machine_facts() -> dict[str, object]:
    """What a reader must know of the machine to judge figures measured on it."""
    return {
        "cpu": parse_cpu_model((PROC / "cpuinfo").read_text()) or platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load_at_start": round(os.getloadavg()[0], 2),
    }
