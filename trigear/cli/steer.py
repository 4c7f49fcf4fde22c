"""Settings of functions: shown with where they come from, set and reset, paused and resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from trigear.cli import answers
from trigear.cli.connecting import Servers, connected, with_server_and_tenant
from trigear.cli.manners import remark, with_manners
from trigear.cli.manual import examples
from trigear.cli.report import Status
from trigear.cli.tables import columns, json_option, show

if TYPE_CHECKING:
    from trigear.cli.tables import Cell
    from trigear.runtime.blocking import BlockingClient
    from trigear.runtime.blocking_admin import BlockingAdmin

SETTING_COLUMNS: Final = columns("function", "setting", "value", "from")


def admin_of(client: BlockingClient) -> BlockingAdmin:
    """What the library has for operators, on this connection."""
    from trigear.runtime.blocking_admin import BlockingAdmin

    return BlockingAdmin(client)


@click.command(
    name="functions",
    short_help="List the functions, or their settings.",
    epilog=examples(
        """
        trigear admin functions
        trigear admin functions resize               # its settings
        trigear admin functions --settings --json | jq -c 'select(.from != "default")'
        """
    ),
)
@click.argument("functions", metavar="[FUNCTION...]", nargs=-1)
@click.option("--settings", is_flag=True, help="The settings of every function.")
@json_option
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def functions_command(
    functions: tuple[str, ...], *, settings: bool, as_json: bool, servers: Servers
) -> int:
    """List the functions: their queued jobs by priority, running jobs, workers, and whether they
    are paused. What a server does not tell is left open.

    With names, or with --settings: what is set for them, one row for each setting, and where it
    comes from: 'command' (set while the server runs, until 'trigear admin reset'), 'file'
    (trigear.toml) or 'default' (the server's options).
    """
    if not functions and not settings:
        with connected(servers, "'functions'") as client:
            loads = answers.loads(client)
            found = answers.functions(client)
        nothing = "no functions: none was ever submitted to or served"
        show(answers.FUNCTION_COLUMNS, found, as_json=as_json, nothing=nothing)
        if loads:
            remark(answers.STILL_LOADING)
        return Status.DONE
    rows: list[tuple[Cell, ...]] = []
    with connected(servers, "'functions'") as client:
        for name in functions or (None,):
            told = admin_of(client).functions(name)
            rows += [(each.function, each.setting, each.value, each.origin) for each in told]
    nothing = "no functions: none was ever submitted to or served, and nothing is set for any"
    show(SETTING_COLUMNS, rows, as_json=as_json, nothing=nothing)
    return Status.DONE


@click.command(
    name="pause",
    short_help="Have no jobs of functions handed out.",
    epilog=examples("trigear admin pause resize"),
)
@click.argument("functions", metavar="FUNCTION...", nargs=-1, required=True)
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def pause_command(functions: tuple[str, ...], *, servers: Servers) -> int:
    """Have no jobs of these functions handed out until they are resumed.

    Submissions are taken, jobs that run go on, workers sleep. A pause outlives the server.
    """
    with connected(servers, "'pause'") as client:
        for function in functions:
            admin_of(client).pause(function)
            remark(f"paused: '{function}' at {client.address}")
    return Status.DONE


@click.command(
    name="resume",
    short_help="Have jobs of paused functions handed out again.",
    epilog=examples("trigear admin resume resize"),
)
@click.argument("functions", metavar="FUNCTION...", nargs=-1, required=True)
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def resume_command(functions: tuple[str, ...], *, servers: Servers) -> int:
    """Have jobs of paused functions handed out again."""
    with connected(servers, "'resume'") as client:
        for function in functions:
            admin_of(client).resume(function)
            remark(f"resumed: '{function}' at {client.address}")
    return Status.DONE


@click.command(
    name="set",
    short_help="Set something of a function.",
    epilog=examples(
        """
        trigear admin set resize attempts 3
        trigear admin set resize backoff 10s
        trigear admin set resize maxqueue 100 1000 5000  # high, normal, low
        """
    ),
)
@click.argument("function")
@click.argument("setting")
@click.argument("values", metavar="VALUE...", nargs=-1, required=True)
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def set_command(function: str, setting: str, values: tuple[str, ...], *, servers: Servers) -> int:
    """Set something of a function while the server runs.

    That wins over the server's configuration, outlives the server, and holds until 'trigear admin
    reset'. 'trigear admin functions FUNCTION' shows what can be set.
    """
    with connected(servers, f"to set '{setting}'") as client:
        admin_of(client).set(function, setting, " ".join(values))
        remark(f"{setting} of '{function}' at {client.address}: {' '.join(values)}")
    return Status.DONE


@click.command(
    name="reset",
    short_help="Take back what was set of a function.",
    epilog=examples(
        """
        trigear admin reset resize attempts
        trigear admin reset resize           # everything that was set, pauses and limits too
        """
    ),
)
@click.argument("function")
@click.argument("setting", required=False)
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def reset_command(function: str, setting: str | None, *, servers: Servers) -> int:
    """Take back what was set of a function by command: one setting, or everything.

    Then the configuration holds again.
    """
    with connected(servers, "'reset'") as client:
        admin_of(client).reset(function, setting)
        what = "everything" if setting is None else setting
        remark(f"{what} of '{function}' at {client.address}: as configured")
    return Status.DONE


COMMANDS: Final = (functions_command, pause_command, resume_command, set_command, reset_command)
