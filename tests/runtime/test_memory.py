"""What a server does about memory: what large workloads leave is kept, garbage is looked for."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from trigear.runtime.memory import keep_memory

if TYPE_CHECKING:
    from collections.abc import Callable

AGAIN = """
import resource
import sys

from trigear.runtime.memory import keep_memory

if sys.argv[1] == "kept":
    keep_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def workloads():
    return [b"w" * (1 << 20) for _ in range(8)]

workloads()
before = faults()
for _ in range(50):
    workloads()
print(faults() - before)
"""


def faults(how: str) -> int:
    """Pages that a process gets anew when it makes and forgets 400 workloads of a mebibyte."""
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, how], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc")
def test_the_system_does_not_give_the_same_memory_again_and_again() -> None:
    assert faults("kept") * 10 < faults("not kept")


def nothing_loaded(name: str | None) -> object:
    return object()


def nothing_to_load(name: str | None) -> object:
    raise OSError


@pytest.mark.parametrize("library", [nothing_loaded, nothing_to_load])
def test_a_server_does_without_where_the_library_is_another_one(
    library: Callable[[str | None], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", library)
    keep_memory()


SELDOM = """
import gc

from trigear.runtime.memory import GARBAGE, GARBAGE_LIMIT, GARBAGE_SHARE, collector

time = 1000.0
looks = []

def look(phase, info):
    global time
    if phase == "stop":
        looks.append(time)
        time += 0.001

collect = collector(lambda: time)
gc.callbacks.append(look)
alive = []

def idle(new):
    alive.append([[] for _ in range(new + 10)])
    collect()

idle(GARBAGE)
assert looks == [1000.0]
assert gc.get_count()[0] < 100, "set aside"
between = 0.001 / GARBAGE_SHARE
time += between - 0.0001
idle(GARBAGE)
assert len(looks) == 1, "too soon"
assert gc.get_count()[0] > GARBAGE, "and is looked at later"
time += 0.0002
collect()
assert len(looks) == 2
idle(GARBAGE)
idle(GARBAGE_LIMIT - GARBAGE)
assert len(looks) == 2
assert gc.get_count()[0] < 100, "too many to look at"
"""


def test_garbage_is_looked_for_a_small_part_of_the_time() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SELDOM], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
