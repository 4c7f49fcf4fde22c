"""Memory that large workloads leave is kept for the next ones."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from trigear.runtime.server import _keep_memory

if TYPE_CHECKING:
    from collections.abc import Callable

AGAIN = """
import resource
import sys

from trigear.runtime.server import _keep_memory

if sys.argv[1] == "kept":
    _keep_memory()

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
    _keep_memory()
