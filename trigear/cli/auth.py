"""`trigear auth`: what the users of a file may do, and why."""

from __future__ import annotations

import click

from trigear.cli.groups import NearGroup
from trigear.cli.manners import with_help, with_manners
from trigear.cli.manual import examples
from trigear.cli.report import Status
from trigear.cli.user import one, users_option
from trigear.security.policy import explain


@click.group(
    cls=NearGroup, name="auth", epilog=examples("trigear auth explain alice submit mail.send")
)
@with_manners
@with_help
def auth_group() -> None:
    """Ask what a user may do."""


@auth_group.command(
    name="explain",
    epilog=examples(
        """
        trigear auth explain alice submit mail.send
        trigear auth explain alice 'cancel job'
        """
    ),
)
@click.argument("name", metavar="USER")
@click.argument("action")
@click.argument("function", required=False)
@click.option("--reducer", metavar="FUNCTION", help="The reducer, where the action has one.")
@users_option
@with_manners
@with_help
def explain_command(
    name: str, action: str, function: str | None, *, reducer: str | None, users: str | None
) -> int:
    """Say whether a user may do something, and which line of the table of rights says so.

    ACTION is a packet, a text command, or one of submit and work. The exit status is 1 for no.
    """
    identity = one(users, name).identity("")
    said = explain(
        identity,
        action,
        None if function is None else function.encode(),
        None if reducer is None else reducer.encode(),
    )
    click.echo(str(said))
    return Status.DONE if said.allowed else Status.NO
