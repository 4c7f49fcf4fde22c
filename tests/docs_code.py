"""Does what a page of the documentation says, block by block: `python -m tests.docs_code PAGE`.

Run it where port 4730 of localhost is free; `tests/test_docs_code.py` gives it a network namespace.

=========================================  ========================================================
block                                      is
=========================================  ========================================================
first line `# NAME.py`, or another name    saved under that name; also behind `<?php //`
python with `trio.run(`                    run as a program
any other python                           run beside a server and a connected ``client``; what
                                           one block defines, the later ones know
console                                    lines with `$` are typed, the others are what must come;
                                           a line `...` stands for any lines, `…` for anything in
                                           a line
console after `<!-- ends with 3 -->`       the same, and each command ends with this status
console after                              started, and left running until the end of the page, once
`<!-- in a terminal of its own -->`        it has said its first lines; `own: NAME -->` names it
`<!-- stop NAME -->`                       ends what runs in this terminal, as its owner would
text after `<!-- NAME says -->`            what comes in this terminal, after what came before
a comment `<!-- setup ... -->`             python that readers do not see; a ``worker`` it defines
                                           works beside the page
any other language                         not run
=========================================  ========================================================
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

import trigear
from tests.interop.namespace import bring_loopback_up
from trigear.engine.config import ServerConfig
from trigear.runtime.server import open_server

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 30.0
"""Seconds that no block of a page takes."""

BLOCK = re.compile(
    r"<!-- setup\n(?P<setup>.*?)^-->$"
    r"|^<!-- stop (?P<stop>\w+) -->$"
    r"|(?:^<!-- (?P<mark>[^\n]*) -->\n)?"
    r"^```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)

FILE = re.compile(r"(?:#!.*\n)?(?:#|<\?php //|//) (?P<path>[\w./-]+\.\w+)\n")
"""How a block begins that is a file."""

ROOT_REFUSED = "<!-- root is refused here -->"
"""On a page about users, whose commands say themselves who they want to be."""

MARK = re.compile(
    r"in a terminal of its own(?:: (?P<terminal>\w+))?"
    r"|ends with (?P<status>\d+)"
    r"|(?P<says>\w+) says"
)


@dataclass(frozen=True)
class Block:
    """Something on a page that is done; ``name`` is a file's or a terminal's, ``status`` how
    its commands end."""

    kind: str
    code: str
    line: int
    name: str = ""
    status: int = 0


def blocks_of(text: str) -> list[Block]:
    """Everything on a page that can be run, in order.

    Raises:
        ValueError: nobody knows what to do with it.
    """
    found = []
    for match in BLOCK.finditer(text):
        part = next(name for name in ("setup", "stop", "code") if match[name] is not None)
        line = text.count("\n", 0, match.start(part)) + 1
        code = match[part]
        mark = MARK.fullmatch(match["mark"] or "")
        if part != "code":
            block = Block(part, code, line, name=code if part == "stop" else "")
        elif mark is None:
            kind, name = kind_of(match["language"], code)
            block = Block(kind, code, line, name=name)
        elif mark["says"]:
            block = Block("says", code, line, name=mark["says"])
        elif match["language"] != "console":
            raise ValueError(f"line {line}: only a console can be {match['mark']!r}")
        elif mark["status"]:
            block = Block("console", code, line, status=int(mark["status"]))
        else:
            block = Block("terminal", code, line, name=mark["terminal"] or "")
        if block.kind:
            found.append(block)
    return found


def kind_of(language: str, code: str) -> tuple[str, str]:
    """What is done with a block that has no mark, and the name of the file that it is."""
    if language == "console":
        return "console", ""
    if named := FILE.match(code):
        return "file", named["path"]
    if language != "python":
        return "", ""
    return ("program" if "trio.run(" in code else "snippet"), ""


def commands_in(code: str) -> list[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines that must come."""
    commands: list[tuple[str, list[str]]] = []
    for line in code.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        else:
            commands[-1][1].append(line)
    return commands


def matches(said: Sequence[str], expected: Sequence[str]) -> bool:
    """Whether these lines are the expected ones; `...` stands for any number of any, `…` for
    anything in a line."""
    pattern = "".join(
        r"(?:.*\n)*" if line == "..." else re.escape(line).replace("…", ".*") + r"\n"
        for line in expected
    )
    return re.fullmatch(pattern, "".join(line + "\n" for line in said)) is not None


class Terminal:
    """A command that runs beside the page."""

    def __init__(self, command: str, process: trio.Process) -> None:
        self.command = command
        self.process = process
        self.text = ""
        self.read = 0
        """Up to where the page has shown it."""
        self.wanted = True
        self._grown = trio.lowlevel.ParkingLot()

    async def listen(self) -> None:
        """Take in what it says, until it is ended.

        Raises:
            AssertionError: it has ended by itself.
        """
        assert self.process.stdout is not None
        try:
            while chunk := await self.process.stdout.receive_some():
                self.text += chunk.decode()
                self._grown.unpark_all()
            if self.wanted:
                raise AssertionError(f"$ {self.command}\n{self.text}(it ended)")
        finally:
            await self.stop()

    async def stop(self) -> None:
        self.wanted = False
        self.process.terminate()
        with trio.CancelScope(shield=True):
            await self.process.wait()

    async def until(self, expected: Sequence[str]) -> None:
        """Wait until it has said this.

        Raises:
            AssertionError: it does not.
        """
        with trio.move_on_after(PATIENCE / 2) as scope:
            while not (rest := self.text[self.read :]) or not matches(rest.splitlines(), expected):
                await self._grown.park()
        if scope.cancelled_caught:
            raise AssertionError(f"$ {self.command}\n{self.text}(and no more)")


class Page:
    """One run through a page."""

    def __init__(self, path: Path, directory: Path) -> None:
        self.path = path
        self.directory = directory
        self.names: dict[str, Any] = {"trio": trio, "trigear": trigear}
        self.terminals: dict[str, Terminal] = {}
        self.environment = {
            **os.environ,
            "STATE_DIRECTORY": str(directory / "state"),
            "XDG_CONFIG_HOME": str(directory / "config"),
            # To a terminal, Python writes line by line.
            "PYTHONUNBUFFERED": "1",
            # A module that changes twice in a second looks the same to the cache of compiled code.
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        if ROOT_REFUSED not in path.read_text(encoding="utf-8"):
            # In a namespace of our own, everybody is root.
            self.environment["TRIGEAR_WORKER_ALLOW_ROOT"] = "1"
        directory.chmod(0o755)  # for those whom a page lets work
        commands = directory / "bin"
        commands.mkdir()
        gearmand = (
            '-c "import sys; from trigear.cli import gearmand_main; sys.exit(gearmand_main())"'
        )
        for name, arguments in (
            ("python", ""),
            ("trigear", "-m trigear"),
            ("gearmand", gearmand),
        ):
            (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
            (commands / name).chmod(0o755)
        self.environment["PATH"] = f"{commands}:{os.environ['PATH']}"

    async def play(self) -> None:
        blocks = blocks_of(self.path.read_text(encoding="utf-8"))
        if not blocks:
            raise AssertionError(f"{self.path}: nothing to run")
        async with contextlib.AsyncExitStack() as stack:
            if any(block.kind in {"snippet", "program", "setup"} for block in blocks):
                config = ServerConfig(listen=("localhost",))
                await stack.enter_async_context(open_server(config))
                client = trigear.connect("localhost:4730")
                self.names["client"] = await stack.enter_async_context(client)
            nursery = await stack.enter_async_context(trio.open_nursery())
            for block in blocks:
                try:
                    with trio.fail_after(PATIENCE):
                        await self.run(block, nursery)
                except Exception as error:
                    error.add_note(f"{self.path}, line {block.line}:\n{block.code}")
                    raise
            nursery.cancel_scope.cancel()

    async def run(self, block: Block, nursery: trio.Nursery) -> None:
        match block.kind:
            case "setup" | "snippet":
                await self.snippet(block)
                if block.kind == "setup" and "worker" in self.names:
                    await nursery.start(self.names["worker"].run, "localhost:4730")
            case "file":
                file = self.directory / block.name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.code, encoding="utf-8")
            case "program":
                (self.directory / "program.py").write_text(block.code, encoding="utf-8")
                await self.command("python program.py", ["..."])
            case "console":
                for command, expected in commands_in(block.code):
                    await self.command(command, expected, block.status)
            case "terminal":
                for command, expected in commands_in(block.code):
                    terminal = await self.start(command)
                    self.terminals[block.name] = terminal
                    nursery.start_soon(terminal.listen)
                    if expected:
                        await terminal.until(expected)
            case "says":
                terminal = self.terminals[block.name]
                await terminal.until(["...", *block.code.splitlines(), "..."])
                terminal.read = len(terminal.text)
            case "stop":
                await self.terminals.pop(block.name).stop()

    async def snippet(self, block: Block) -> None:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        padded = "\n" * (block.line - 1) + block.code
        code = compile(padded, str(self.path), "exec", flags=flags, dont_inherit=True)
        result = eval(code, self.names)
        if inspect.isawaitable(result):
            await result

    async def command(self, command: str, expected: Sequence[str], status: int = 0) -> None:
        done = await trio.run_process(
            ["bash", "-c", command],
            cwd=self.directory,
            env=self.environment,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
        said = done.stdout.decode()
        if done.returncode != status or not matches(said.splitlines(), expected):
            raise AssertionError(f"$ {command}\n{said}(exit status {done.returncode})")

    async def start(self, command: str) -> Terminal:
        process = await trio.lowlevel.open_process(
            ["bash", "-c", f"exec {command}"],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return Terminal(command, process)


def main() -> None:
    (page,) = sys.argv[1:]
    path = Path(page).resolve()
    with contextlib.suppress(PermissionError):
        bring_loopback_up()  # in a namespace of our own; else it is up already
    with tempfile.TemporaryDirectory() as directory:
        try:
            trio.run(Page(path, Path(directory)).play)
        except Exception as error:
            error.add_note(str(path))
            raise


if __name__ == "__main__":
    main()
