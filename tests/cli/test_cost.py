"""What one-shot commands load: as little as they need, since that is most of what they cost."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.plain import plain_worker

if TYPE_CHECKING:
    from tests.plain import Held

HEAVY = {
    *("trio", "rich", "ssl", "cryptography", "tomlkit", "asyncio", "concurrent", "multiprocessing"),
    *("email", "http", "logging", "subprocess", "unittest"),
}

SERVER_ROOMS = ("trigear.broker", "trigear.engine", "trigear.stores", "trigear.runtime.hub")

CODE = """
import sys
from trigear.cli import main
sys.argv = ["trigear", *{args!r}]
try:
    status = main()
except SystemExit as end:
    status = end.code
print("STATUS", status or 0, *sys.modules, file=sys.__stdout__)
"""


def loaded_by(*args: str) -> set[str]:
    """Modules that `trigear` has loaded when it has done this."""
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(args=args)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    status, *modules = done.stdout.rpartition("STATUS")[2].split()
    assert status == "0", done.stderr
    return set(modules)


def heavy(modules: set[str]) -> set[str]:
    found = {name for name in modules if name.partition(".")[0] in HEAVY}
    return found | {name for name in modules if name.startswith(SERVER_ROOMS)}


@pytest.mark.parametrize("args", [["--version"], ["--help"]], ids=" ".join)
def test_front_door_loads_the_parser_and_no_more(args: list[str]) -> None:
    modules = loaded_by(*args)
    assert heavy(modules) == set()
    ours = {name for name in modules if name.startswith("trigear.")}
    assert ours == {
        "trigear.cli",
        *(f"trigear.cli.{name}" for name in ("groups", "manners", "report", "root")),
        *("trigear.errors", "trigear.model"),
    }
    assert "socket" not in modules


@pytest.mark.parametrize(
    "args",
    [
        ["submit", "upper", "x"],
        ["submit", "-b", "mail", "x"],
        ["submit", "--at", "2100-01-01T00:00Z", "mail", "x"],
        ["submit", "--json", "upper", "x"],
        ["job", "list"],
        ["admin", "status"],
        ["admin", "functions", "--json"],
        ["admin", "create-function", "x"],
    ],
    ids=" ".join,
)
def test_one_shot_command_loads_neither_trio_nor_the_server(args: list[str], server: str) -> None:
    def upper(job: Held) -> None:
        job.complete(job.workload.upper())

    with plain_worker(server, upper=upper):
        assert heavy(loaded_by(*args)) == set()


@pytest.mark.parametrize("args", [["context", "list"], ["completion", "zsh"]], ids=" ".join)
def test_local_command_loads_little(args: list[str]) -> None:
    assert heavy(loaded_by(*args)) == set()
