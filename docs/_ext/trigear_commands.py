"""Writes the reference of the command line from the commands' own help.

A page holds a line `<!-- help: NAME -->`, with the name of a command or `all`; while the page is
read, the line is replaced by a section for the command and each command below it. Nothing generated
is kept in the tree, so it cannot grow stale.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import click

from trigear.cli.root import trigear_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

PLACEHOLDER: Final = re.compile(r"^<!-- help: (.*?) -->$", re.MULTILINE)

WIDTH: Final = 98


def contexts_of(
    name: str, command: click.Command, parent: click.Context
) -> Iterator[click.Context]:
    """A command and every command below it, each in its context."""
    ctx = click.Context(
        command,
        parent=parent,
        info_name=name,
        terminal_width=WIDTH,
        # What the commands themselves say, which a context made by hand does not know.
        **command.context_settings,
    )
    yield ctx
    if isinstance(command, click.Group):
        for word in command.list_commands(ctx):
            below = command.get_command(ctx, word)
            assert below is not None, "listed, so it is there"
            yield from contexts_of(word, below, ctx)


def sections(name: str) -> str:
    """The sections for a command. Raises KeyError for a name that is none."""
    root = click.Context(trigear_command, info_name="trigear")
    names = trigear_command.list_commands(root) if name == "all" else [name]
    found = []
    for one in names:
        command = trigear_command.get_command(root, one)
        if command is None:
            raise KeyError(name)
        found += [section(ctx) for ctx in contexts_of(one, command, root)]
    return "\n\n".join(found)


def section(ctx: click.Context) -> str:
    depth = "#" * (1 + ctx.command_path.count(" "))
    return f"{depth} {ctx.command_path}\n\n```text\n{ctx.get_help().rstrip()}\n```"


def fill(text: str) -> str:
    """The page with every placeholder replaced."""
    return PLACEHOLDER.sub(lambda found: sections(found[1]), text)


def fill_page(_app: Sphinx, _page: str, source: list[str]) -> None:
    source[0] = fill(source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", fill_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
