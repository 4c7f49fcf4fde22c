"""The options that every command has: how much it says, and how."""

from __future__ import annotations

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
