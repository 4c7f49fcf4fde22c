"""Does what a page of the documentation says, block by block: `python -m tests.docs_code PAGE`.

Run it where port 4730 of localhost is free; `tests/test_docs_code.py` gives it a network namespace.

=========================================  ========================================================
block                                      is
=========================================  ========================================================
python, first line `# NAME.py`             saved under that name
python with `trio.run(`                    run as a program
any other python                           run beside a server and a connected ``client``; what
                                           one block defines, the later ones know
console                                    lines with `$` are typed, the others are what must come;
                                           a line `...` stands for any lines
console after                              started, and left running until the end of the page, once
`<!-- in a terminal of its own -->`        it has said its first lines
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
    r"|(?P<own><!-- in a terminal of its own -->\n)?"
    r"^```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    kind: str
    code: str
    line: int


def blocks_of(text: str) -> list[Block]:
    """Everything on a page that can be run, in order."""
    found = []
    for match in BLOCK.finditer(text):
        part = "setup" if match["setup"] is not None else "code"
        line = text.count("\n", 0, match.start(part)) + 1
        kind = "setup" if part == "setup" else kind_of(match["language"], match["code"])
        if match["own"]:
            kind = "terminal"
        if kind:
            found.append(Block(kind, match[part], line))
    return found


def kind_of(language: str, code: str) -> str:
    if language == "console":
        return "console"
    if language != "python":
        return ""
    if re.match(r"# \w+\.py\n", code):
        return "file"
    return "program" if "trio.run(" in code else "snippet"


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
    """Whether these lines are the expected ones; `...` stands for any number of any."""
    pattern = "".join(
        r"(?:.*\n)*" if line == "..." else re.escape(line) + r"\n" for line in expected
    )
    return re.fullmatch(pattern, "".join(line + "\n" for line in said)) is not None


class Page:
    """One run through a page."""

    def __init__(self, path: Path, directory: Path) -> None:
        self.path = path
        self.directory = directory
        self.names: dict[str, Any] = {"trio": trio, "trigear": trigear}
        self.environment = {
            **os.environ,
            "STATE_DIRECTORY": str(directory / "state"),
            "XDG_CONFIG_HOME": str(directory / "config"),
            # In a namespace of our own, everybody is root.
            "TRIGEAR_WORKER_ALLOW_ROOT": "1",
        }
        commands = directory / "bin"
        commands.mkdir()
        for name, arguments in (("python", ""), ("trigear", "-m trigear")):
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
                name = block.code.partition("\n")[0].removeprefix("# ")
                (self.directory / name).write_text(block.code, encoding="utf-8")
            case "program":
                (self.directory / "program.py").write_text(block.code, encoding="utf-8")
                await self.command("python program.py", ["..."])
            case "console":
                for command, expected in commands_in(block.code):
                    await self.command(command, expected)
            case "terminal":
                for command, expected in commands_in(block.code):
                    await nursery.start(self.terminal, command, expected)

    async def snippet(self, block: Block) -> None:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        padded = "\n" * (block.line - 1) + block.code
        code = compile(padded, str(self.path), "exec", flags=flags, dont_inherit=True)
        result = eval(code, self.names)
        if inspect.isawaitable(result):
            await result

    async def command(self, command: str, expected: Sequence[str]) -> None:
        done = await trio.run_process(
            ["bash", "-c", command],
            cwd=self.directory,
            env=self.environment,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
        said = done.stdout.decode()
        if done.returncode != 0 or not matches(said.splitlines(), expected):
            raise AssertionError(f"$ {command}\n{said}(exit status {done.returncode})")

    async def terminal(
        self, command: str, expected: Sequence[str], *, task_status: trio.TaskStatus[None]
    ) -> None:
        process = await trio.lowlevel.open_process(
            ["bash", "-c", f"exec {command}"],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        said = ""
        started = False
        try:
            while True:
                due = not expected or (said and matches(said.splitlines(), expected))
                if due and not started:
                    started = True
                    task_status.started()
                chunk = await process.stdout.receive_some()
                if not chunk:
                    raise AssertionError(f"$ {command}\n{said}(it ended)")
                said += chunk.decode()
        finally:
            process.terminate()
            with trio.CancelScope(shield=True):
                await process.wait()


def main() -> None:
    (page,) = sys.argv[1:]
    path = Path(page).resolve()
    with contextlib.suppress(PermissionError):
        bring_loopback_up()  # in a namespace of our own; else it is up already
    with tempfile.TemporaryDirectory() as directory:
        trio.run(Page(path, Path(directory)).play)


if __name__ == "__main__":
    main()
