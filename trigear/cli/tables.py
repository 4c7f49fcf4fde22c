"""Results as rows: a table for people at a terminal, TAB-separated or JSON for programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from trigear.cli.manners import manners_of, remark

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Cell = str | int | float | bool | None | tuple[str, ...]
"""One field; a tuple is a list, None is what the server does not say."""

GAP: Final = "  "


class Column(NamedTuple):
    """A column's key in JSON and its heading in a table."""

    key: str
    title: str


def columns(*keys: str) -> tuple[Column, ...]:
    """Columns headed by their keys."""
    return tuple(Column(key, key.upper().replace("_", " ")) for key in keys)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON, one object on each line."
    )(command)


def write(data: bytes) -> None:
    """Print results, now: whoever reads them shall not wait for the next ones.

    Raises:
        BrokenPipeError: nobody reads them.
    """
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def write_aside(data: bytes) -> None:
    """Print on standard error what came as bytes."""
    sys.stderr.flush()
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


def show(
    heads: Sequence[Column], rows: Sequence[Sequence[Cell]], *, as_json: bool, nothing: str = ""
) -> None:
    """Print rows.

    Args:
        heads: the columns.
        rows: a cell for each column.
        as_json: one object per row, with the columns' keys.
        nothing: what a person is told when there is no row.
    """
    if as_json:
        keys = [head.key for head in heads]
        for row in rows:
            write_json(dict(zip(keys, row, strict=True)))
    elif sys.stdout.isatty():
        if not rows and nothing:
            remark(nothing)
        write(encoded("".join(f"{line}\n" for line in table(heads, rows))))
    else:
        write(encoded("".join("\t".join(map(plain, row)) + "\n" for row in rows)))


def show_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and what belongs to them to a person, one below the other."""
    width = max(len(name) for name, _ in pairs)
    bold = manners_of().color
    for name, text in pairs:
        head = f"{name}:".ljust(width + 1)
        head = click.style(head, bold=True) if bold else head
        write(encoded(f"{head}{GAP}{shown(text)}\n"))


def write_json(document: dict[str, Any]) -> None:
    """Print one object on one line."""
    import json

    write(json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


def table(heads: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> list[str]:
    """The lines of an aligned table; none if there are no rows."""
    if not rows:
        return []
    texts = [[shown(plain(cell)) for cell in row] for row in rows]
    titles = [head.title for head in heads]
    widths = [max(map(len, column)) for column in zip(titles, *texts, strict=True)]
    right = [are_numbers(column) for column in zip(*rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return GAP.join(
            cell.rjust(width) if numbers else cell.ljust(width)
            for cell, width, numbers in zip(cells, widths, right, strict=True)
        ).rstrip()

    head = line(titles)
    bold = click.style(head, bold=True) if manners_of().color else head
    return [bold, *map(line, texts)]


def are_numbers(column: Sequence[Cell]) -> bool:
    """Whether a column holds numbers, as far as it holds anything."""
    known = [cell for cell in column if cell is not None]
    return bool(known) and all(
        isinstance(cell, int | float) and not isinstance(cell, bool) for cell in known
    )


def plain(cell: Cell) -> str:
    """A cell as text."""
    match cell:
        case None:
            return "-"
        case True | False:
            return "yes" if cell else "no"
        case tuple():
            return " ".join(cell)
        case _:
            return str(cell)


def shown(text: str) -> str:
    """Text that does nothing to a terminal but stand there."""
    if text.isprintable():
        return text
    data = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in data
    )


def encoded(text: str) -> bytes:
    """The bytes that the server sent, where ``text`` came from it."""
    return text.encode("utf-8", "surrogateescape")
