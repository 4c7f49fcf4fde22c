"""The command `trigear` and the table of its commands, each loaded when it is called for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from trigear import __version__
from trigear.cli.groups import NearGroup
from trigear.cli.manners import Manners, with_help, with_manners
from trigear.cli.report import Status, only_one, report
from trigear.model import COMPILED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from click.shell_completion import CompletionItem


class Entry(NamedTuple):
    """Where a command lives, and its line in the list of commands."""

    module: str
    name: str
    help: str


COMMANDS: Final = {
    "admin": Entry("trigear.cli.admin", "admin_group", "Look into a server and steer it."),
    "auth": Entry("trigear.cli.auth", "auth_group", "Ask what a user may do."),
    "bench": Entry("trigear.cli.bench", "bench_command", "Measure what a server of yours can do."),
    "certs": Entry("trigear.cli.certs", "certs_group", "Make certificates for TLS."),
    "completion": Entry("trigear.cli.completion", "completion_command", "Let your shell complete."),
    "config": Entry("trigear.cli.config", "config_group", "Check and show the configuration."),
    "context": Entry("trigear.cli.context", "context_group", "Name the servers you work with."),
    "dead": Entry("trigear.cli.dead", "dead_group", "Look after jobs that were given up."),
    "demo": Entry("trigear.cli.demo", "demo_command", "Watch a server and workers do real jobs."),
    "job": Entry("trigear.cli.job", "job_group", "Ask about jobs and cancel them."),
    "schedule": Entry(
        "trigear.cli.schedule", "schedule_group", "Have jobs submitted by the calendar."
    ),
    "server": Entry("trigear.cli.server", "server_command", "Run the job server."),
    "store": Entry("trigear.cli.stores", "store_group", "Look after the durable jobs."),
    "submit": Entry("trigear.cli.submit", "submit_command", "Submit jobs and print results."),
    "tenant": Entry("trigear.cli.tenant", "tenant_group", "Say what tenants may have."),
    "top": Entry("trigear.cli.top", "top_command", "Watch the functions of a server."),
    "user": Entry("trigear.cli.user", "user_group", "Say who may log in to a server."),
    "worker": Entry("trigear.cli.worker", "worker_command", "Do jobs, in Python or by a program."),
}


class LazyGroup(NearGroup):
    """A group whose commands are imported when they are called, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(importlib.import_module(entry.module), entry.name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # From the table: importing every command for its help would be felt at each key.
        from click.shell_completion import CompletionItem

        found = super(click.Group, self).shell_complete(ctx, incomplete)
        return found + [
            CompletionItem(name, help=COMMANDS[name].help)
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in self.list_commands(ctx)])


_HOW: Final = " (compiled)" if COMPILED else ""


@click.group(
    cls=LazyGroup,
    name="trigear",
    context_settings={"max_content_width": 100},
)
@click.version_option(__version__, message=f"trigear %(version)s{_HOW}")
@with_manners
@with_help
def trigear_command() -> None:
    """A Gearman job server, client and worker."""


def run(command: click.Command, program: str, args: Sequence[str]) -> int:
    """Run a command as the program of this process; every end becomes an exit status."""
    manners = Manners()
    try:
        # Not standalone: click would print errors over several lines and exit by itself.
        end = command.main(list(args), prog_name=program, standalone_mode=False, obj=manners)
    except SystemExit:
        raise
    except BaseException as error:
        return report(program, only_one(error), manners)
    return end if isinstance(end, int) else Status.DONE


def run_trigear(args: Sequence[str]) -> int:
    return run(trigear_command, "trigear", args)


def run_gearmand(args: Sequence[str]) -> int:
    from trigear.cli.gearmand import gearmand_command

    return run(gearmand_command, "gearmand", args)
