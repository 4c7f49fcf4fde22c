"""Groups of commands that know which command was meant."""

from __future__ import annotations

import click


class NearGroup(click.Group):
    """A group that answers a wrong word with the nearest right one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if args[0] not in names:
            import difflib

            near = difflib.get_close_matches(args[0], names, n=1)
            known = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(names)}"
            raise click.UsageError(f"no command '{args[0]}': {known}", ctx)
        return super().resolve_command(ctx, args)
