"""Groups of commands that know which command was meant.

Options of a group, except for those of every command, belong to the commands in it: where one
stands in front of the command's name, it counts as if it stood right behind it. So there is one
grammar, and what contradicts behind the name contradicts in front of it, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trigear.cli.report import Status

if TYPE_CHECKING:
    from collections.abc import Mapping


class NearGroup(click.Group):
    """A group that answers a wrong word with the nearest right one, and no word with its help."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        if not args:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(Status.USAGE)
        given, rest, _ = self.make_parser(ctx).parse_args(list(args))
        moved = self.behind_the_name(given)
        own = args[: len(args) - len(rest)]
        left = super().parse_args(ctx, [*own, *rest[:1], *moved, *rest[1:]])
        if not rest:
            from trigear.cli.hints import for_missing_word

            raise click.UsageError(for_missing_word(ctx, self, given), ctx)
        return left

    def behind_the_name(self, given: Mapping[str, object]) -> list[str]:
        """The options that belong to the command, as they are written behind its name."""
        moved: list[str] = []
        for option in self.params:
            if option.is_eager or not isinstance(option, click.Option):
                continue  # the group's own
            value = given.get(str(option.name))
            if option.is_flag:
                moved += [option.opts[0]] if value is True else []
            else:
                values = value if isinstance(value, list) else [value]
                for one in values:
                    moved += [option.opts[0], one] if isinstance(one, str) else []
        return moved

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.list_commands(ctx):
            from trigear.cli.hints import for_unknown_word

            raise click.UsageError(for_unknown_word(ctx, self, args), ctx)
        return super().resolve_command(ctx, args)
