"""The options that every command has: how much it says, and how."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Manners:
    """What the user asked for; the object of the click context."""

    debug: bool = False
    verbose: int = 0
    quiet: bool = False
    color: bool = True


def keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:  # noqa: ANN401
    manners = ctx.ensure_object(Manners)
    match param.name:
        case "verbose":
            manners.verbose += value
        case "debug" if value:
            manners.debug = True
        case "quiet" if value:
            manners.quiet = True
        case "no_color" if value:
            manners.color = False
            ctx.color = False
        case _:
            pass
    if manners.quiet and manners.verbose:
        raise click.UsageError("--quiet and --verbose contradict each other: leave one out", ctx)


def manners_option(*names: str, **settings: Any) -> Callable[[Any], Any]:  # noqa: ANN401
    # Eager: what stands on the same line and fails is then already reported in the right manner.
    return click.option(*names, expose_value=False, is_eager=True, callback=keep, **settings)


_OPTIONS: Final = (
    manners_option("-v", "--verbose", count=True, help="Say more; repeat it for more still."),
    manners_option("--quiet", is_flag=True, help="Say nothing but errors."),
    manners_option("--no-color", is_flag=True, help="No colours, not even on a terminal."),
    manners_option("--debug", is_flag=True, help="Show the traceback of an error."),
)


def with_manners(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options. On a group and its commands they add up."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def with_help(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option that shows its help, where `-h` does not name a server's host."""
    return click.help_option("-h", "--help")(command)


def manners_of() -> Manners:
    """What the user of the running command asked for."""
    ctx = click.get_current_context(silent=True)
    return (ctx.find_object(Manners) if ctx is not None else None) or Manners()


def remark(text: str) -> None:
    """Say something beside the results, unless nothing is to be said."""
    if not manners_of().quiet:
        ctx = click.get_current_context(silent=True)
        program = ctx.find_root().info_name if ctx is not None else None
        click.echo(f"{program or 'trigear'}: {text}", err=True)


def ask(question: str, *, yes: bool) -> bool:
    """Whether the user wants what cannot be undone.

    Args:
        question: what is about to happen.
        yes: the user said so beforehand.

    Raises:
        click.UsageError: there is no terminal to ask on.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} There is no terminal to ask on: say --yes")
    return click.confirm(question, err=True)
