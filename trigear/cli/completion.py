"""`trigear completion`: what a shell needs to complete our words."""

from __future__ import annotations

import click

from trigear.cli.manners import with_help, with_manners
from trigear.cli.manual import examples
from trigear.cli.report import Status

SHELLS = ("bash", "zsh", "fish")


@click.command(
    name="completion",
    epilog=examples(
        """
        eval "$(trigear completion bash)"       # in ~/.bashrc
        eval "$(trigear completion zsh)"        # in ~/.zshrc
        trigear completion fish > ~/.config/fish/completions/trigear.fish
        """
    ),
)
@click.argument("shell", type=click.Choice(SHELLS))
@with_manners
@with_help
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> int:
    """Print the script that makes a shell complete trigear's commands and options."""
    from click.shell_completion import get_completion_class

    program = ctx.find_root().info_name or "trigear"
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these shells"
    variable = f"_{program}_COMPLETE".replace("-", "_").upper()
    # Filled in without asking the shell, which need not be installed where the script is made.
    made = kind(ctx.find_root().command, {}, program, variable)
    click.echo(made.source_template % made.source_vars())
    return Status.DONE
