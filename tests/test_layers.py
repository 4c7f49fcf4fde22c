"""The floors of the house: who may import whom, read from the source of every module.

The checker sees what a reader sees: import statements anywhere in a file, also those for type
checkers only and those inside functions, and `import_module` or `__import__` with a literal name.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import trigear

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(trigear.__file__).parent

# Room -> floor. A room is the first name below `trigear`; the two modules of floor 0 share one.
FLOORS = {
    "errors": 0,
    "model": 0,
    "wire": 1,
    "protocol": 2,
    "security": 2,
    "broker": 3,
    "stores": 3,
    "engine": 4,
    "runtime": 5,
    "cli": 6,
    "web": 6,
    "testing": 6,
}
SAME_ROOM = {"errors": "vocabulary", "model": "vocabulary"}
TRIO_FLOOR = 5

# What would bring time, chance, sockets or threads into a core that gets them as arguments.
WORLD = frozenset(
    {
        "asyncio",
        "concurrent",
        "multiprocessing",
        "random",
        "secrets",
        "select",
        "selectors",
        "signal",
        "socket",
        "socketserver",
        "ssl",
        "subprocess",
        "threading",
        "time",
        "uuid",
    }
)
WORLDLESS_ROOMS = frozenset({"errors", "model", "wire", "protocol", "security", "broker", "engine"})
WORLD_EXCEPTIONS = {("trigear.security.tls", "ssl"), ("trigear.security.layer", "ssl")}

# One face may hand another to the server as a child task, when somebody asks for it.
LAZY_SIDEWAYS = {("cli", "web")}


@dataclass(frozen=True)
class Import:
    """One imported name: `target` is as full as the source says it."""

    target: str
    line: int
    lazy: bool  # inside a function: it runs when called, not on import


def imports_of(module: str, source: str, *, is_package: bool) -> list[Import]:
    """Everything that `source` imports, with relative names made absolute."""
    found: list[Import] = []
    for node, lazy in walk(ast.parse(source), lazy=False):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, lazy) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                up = node.level - is_package
                kept = parents[: len(parents) - up] if up else parents
                base = ".".join([*kept, base] if base else kept)
            found += [Import(f"{base}.{alias.name}", node.lineno, lazy) for alias in node.names]
        elif isinstance(node, ast.Call) and node.args:
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            first = node.args[0]
            if (
                name in {"import_module", "__import__"}
                and isinstance(first, ast.Constant)
                and isinstance(first.value, str)
            ):
                found.append(Import(first.value, node.lineno, lazy))
    return found


def walk(node: ast.AST, *, lazy: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        yield child, lazy
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from walk(child, lazy=lazy or inside)


def room_of(module: str) -> str | None:
    """The room a module of ours belongs to; None for the front door."""
    parts = module.split(".")
    if len(parts) == 1:
        return None
    return "cli" if parts[1] == "__main__" else parts[1]


def faults_in(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """One line for each rule that this module breaks."""
    room = room_of(module)
    if room is not None and room not in FLOORS:
        return [f"{module}: stands on no floor; give its room a place in FLOORS"]
    faults = []
    for found in imports_of(module, source, is_package=is_package):
        why = fault_of(module, room, found)
        if why is not None:
            faults.append(f"{module}:{found.line}: {found.target}: {why}")
    return faults


def fault_of(module: str, room: str | None, found: Import) -> str | None:
    top = found.target.split(".")[0]
    floor = FLOORS[room] if room is not None else None
    if top == "trigear":
        return fault_inside(room, found) if room is not None else None
    if top in {"trio", "trio_asyncio"}:
        if floor is None or floor < TRIO_FLOOR:
            return f"Trio belongs to floor {TRIO_FLOOR} and above"
        if room == "cli" and not found.lazy:
            return "the command line imports Trio inside functions only"
    if room in WORLDLESS_ROOMS and top in WORLD and (module, top) not in WORLD_EXCEPTIONS:
        return "time, chance, sockets and threads are given to this room, not imported"
    return None


def fault_inside(room: str, found: Import) -> str | None:
    if found.target == "trigear.__version__":
        return None
    other = room_of(found.target)
    if other is None:
        return "nobody inside comes in by the front door"
    if other not in FLOORS:
        return "stands on no floor"
    if SAME_ROOM.get(other, other) == SAME_ROOM.get(room, room):
        return None
    if (room, other) in LAZY_SIDEWAYS and found.lazy:
        return None
    if FLOORS[other] > FLOORS[room]:
        return f"upwards, from floor {FLOORS[room]} to floor {FLOORS[other]}"
    if FLOORS[other] == FLOORS[room]:
        return f"sideways, into another room of floor {FLOORS[room]}"
    return None


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["trigear", *path.relative_to(PACKAGE).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        found.append((".".join(parts), path))
    return found


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_module_imports_only_from_below_and_from_its_own_room(module: str, path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert faults_in(module, source, is_package=path.name == "__init__.py") == []


def test_every_room_that_holds_python_is_a_package() -> None:
    # Without an __init__.py a room would import here and be missing from the wheel.
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


# The checker itself: a check that cannot fail proves nothing.


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("trigear.wire.codec", "import trigear.engine.engine", "upwards"),
        ("trigear.wire.codec", "from trigear.protocol import events", "upwards"),
        ("trigear.wire.codec", "from trigear import broker", "upwards"),
        ("trigear.wire.codec", "from ..broker import jobs", "upwards"),
        ("trigear.wire.codec", "from .. import broker", "upwards"),
        ("trigear.errors", "from trigear.wire import packets", "upwards"),
        ("trigear.model", "def f():\n    import trigear.runtime", "upwards"),
        ("trigear.broker.jobs", "from trigear.stores import base", "sideways"),
        ("trigear.protocol.server", "import trigear.security.policy", "sideways"),
        ("trigear.cli.demo", "from trigear.testing import server", "sideways"),
        ("trigear.cli.server", "from trigear.web import pages", "sideways"),
        ("trigear.testing.server", "def f():\n    from trigear.web import pages", "sideways"),
        ("trigear.wire.codec", "import importlib\nimportlib.import_module('trigear.cli')", "upwar"),
        ("trigear.wire.codec", "__import__('trigear.cli')", "upwards"),
        ("trigear.engine.engine", "from trigear import Worker", "stands on no floor"),
        ("trigear.runtime.hub", "import trigear", "front door"),
        ("trigear.runtime.hub", "from trigear.nowhere import x", "stands on no floor"),
        ("trigear.nowhere", "", "stands on no floor"),
        ("trigear.nowhere.module", "import os", "stands on no floor"),
        ("trigear.engine.engine", "import trio", "floor 5"),
        ("trigear.stores.memory", "from trio import lowlevel", "floor 5"),
        ("trigear.engine.engine", "def f():\n    import trio", "floor 5"),
        ("trigear.engine.engine", "if TYPE_CHECKING:\n    import trio", "floor 5"),
        ("trigear", "import trio", "floor 5"),
        ("trigear.cli.server", "import trio", "inside functions"),
        ("trigear.cli", "from trio import run", "inside functions"),
        ("trigear.__main__", "import trio", "inside functions"),
        ("trigear.wire.codec", "import time", "given"),
        ("trigear.protocol.client", "from random import choice", "given"),
        ("trigear.broker.broker", "import socket, os", "given"),
        ("trigear.engine.engine", "import threading", "given"),
        ("trigear.engine.engine", "import ssl", "given"),
        ("trigear.engine.engine", "import secrets", "given"),
        ("trigear.engine.engine", "import concurrent.futures", "given"),
        ("trigear.security.tls", "import socket", "given"),
        ("trigear.security.scram", "import ssl", "given"),
    ],
)
def test_checker_reports(module: str, source: str, complaint: str) -> None:
    faults = faults_in(module, source)
    assert len(faults) == 1
    assert complaint in faults[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("trigear.wire.codec", "from trigear.wire import packets"),
        ("trigear.wire.codec", "from . import packets\nfrom .packets import PACKETS"),
        ("trigear.wire.codec", "from trigear import errors\nfrom ..errors import TrigearError"),
        ("trigear.wire.codec", "import os, struct, timeit"),
        ("trigear.model", "from trigear.errors import TrigearError"),
        ("trigear.engine.engine", "from trigear.broker import broker\nimport trigear.stores.base"),
        ("trigear.engine.engine", "from trigear import __version__"),
        ("trigear.security.tls", "import ssl"),
        ("trigear.security.layer", "import ssl"),
        ("trigear.runtime.hub", "import trio, time, socket\nfrom trigear.engine import engine"),
        ("trigear.cli.server", "def f():\n    import trio"),
        ("trigear.cli.server", "def f():\n    from trigear.web import pages"),
        ("trigear.__main__", "from trigear.cli import main"),
        ("trigear.testing.server", "import trio"),
        ("trigear", "from trigear.runtime.server import serve"),
    ],
)
def test_checker_accepts(module: str, source: str) -> None:
    assert faults_in(module, source) == []


def test_relative_imports_of_a_package_start_at_the_package_itself() -> None:
    source = "from . import codec\nfrom .. import errors\nfrom ..broker import jobs"
    targets = [found.target for found in imports_of("trigear.wire", source, is_package=True)]
    assert targets == ["trigear.wire.codec", "trigear.errors", "trigear.broker.jobs"]


# What the floors are for: commands that need no event loop do not load one.


def loaded_after(code: str) -> set[str]:
    """Modules that a fresh interpreter has loaded after running `code`."""
    report = "\nimport sys\nprint(*sorted(sys.modules), sep='\\n', file=sys.__stdout__)"
    done = subprocess.run(
        [sys.executable, "-c", code + report],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import trigear, trigear.cli",
        "import trigear; dir(trigear); trigear.TrigearError",
        "from trigear.cli import main\nimport sys\nsys.argv = ['trigear', '--version']\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code",
        "from trigear.cli import main\nimport sys\nsys.argv = ['trigear', '--help']\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code",
        "from trigear.cli import gearmand_main\nimport sys\nsys.argv = ['gearmand', '--version']\n"
        "try: gearmand_main()\nexcept SystemExit as end: assert not end.code, end.code",
    ],
    ids=["import", "front door", "trigear --version", "trigear --help", "gearmand --version"],
)
def test_trio_is_not_loaded_by(code: str) -> None:
    loaded = loaded_after(code)
    assert "trigear" in loaded
    assert "trio" not in loaded


def test_front_door_lists_each_public_name_once_and_can_open_it() -> None:
    assert set(trigear._HOME) | {"__version__"} == set(trigear.__all__)
    assert [name for name in trigear.__all__ if getattr(trigear, name, None) is None] == []
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    for_type_checkers = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trigear")
        for alias in node.names
    }
    assert for_type_checkers == trigear._HOME


def test_public_things_show_the_name_by_which_programs_import_them() -> None:
    things = {name: getattr(trigear, name) for name in trigear._HOME}
    assert {name: thing.__module__ for name, thing in things.items()} == dict.fromkeys(
        trigear._HOME, "trigear"
    ), "decorate them with trigear.model.public"


def test_front_door_refuses_unknown_names_as_any_module_does() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        getattr(trigear, "nonsense")  # noqa: B009  a constant attribute would not type-check
