"""What may have been meant by a word or an option that does not exist. Loaded for mistakes only."""

from __future__ import annotations

import difflib
import shlex
from typing import TYPE_CHECKING, Final

import click

from trigear.cli.groups import NearGroup

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

WORDS: Final = {
    **dict.fromkeys(("start", "serve", "run", "daemon", "gearmand"), "server"),
    **dict.fromkeys(("client", "call", "do", "enqueue", "push", "gearman"), "submit"),
    **dict.fromkeys(("work", "consume"), "worker"),
    **dict.fromkeys(("queue", "queues", "gearadmin"), "admin status"),
    **dict.fromkeys(("monitor", "watch", "ps"), "top"),
    **dict.fromkeys(("abort", "delete", "rm"), "job cancel"),
    "ls": "job list",
    "help": "--help",
    "version": "--version",
}
"""What other programs call it."""

SIGNALS: Final = {
    **dict.fromkeys(("shutdown", "stop", "halt", "quit", "kill"), "TERM"),
    "drain": "USR1",
    **dict.fromkeys(("reload", "reopen", "rotate"), "HUP"),
}
"""What a server is told by a signal."""

OPTIONS: Final = {
    "--host": "--server HOST:PORT, or -h HOST",
    "--port": "--server HOST:PORT, or -p PORT",
    "--servers": "--server ADDRESS, once for each",
    "--function": "-f FUNCTION",
    "--priority": "-I for high and -L for low",
    "--high": "-I",
    "--low": "-L",
    "--count": "-c N",
    "--timeout": "--deadline DURATION",
    "--wait": "nothing: it waits, unless -b says otherwise",
    "--concurrency": "--jobs N in each process, --processes N of them",
    "--workers": "--processes N",
    "--format": "--json",
    "--output": "--json",
    "--force": "--yes",
    "--user": "--run-as USER",
    "--log": "--log-file FILE",
    "--verbosity": "-v",
    "--help-all": "--help",
}
"""What other programs call an option, where a command does not."""

SHOWN: Final = 60
"""Characters of arguments that are repeated in a hint."""


def for_unknown_word(ctx: click.Context, group: NearGroup, args: Sequence[str]) -> str:
    """What is said of a word that is no command of this group."""
    word, rest = args[0], args[1:]
    said = f"no command '{word}'"
    root = ctx.find_root()
    program = root.info_name or "trigear"
    here = ctx.command_path
    if word.startswith("H:"):
        return f"{said}: did you mean `{program} job show {shlex.join(args)}`?"
    everywhere = list(commands_of(root, program))
    paths = [path for path in everywhere if path.rpartition(" ")[2] == word]
    if not paths and word in SIGNALS:
        return (
            f"{said}: tell the server by a signal, on its machine: `kill -{SIGNALS[word]} PID`;"
            f" `{program} admin getpid` says its PID"
        )
    if not paths and (known := WORDS.get(word.lower())) is not None:
        paths = [f"{program} {known}"]
    if not paths:
        # Those of this group first: of two that are alike the nearer one is meant.
        ranked = sorted(everywhere, key=lambda path: path.rpartition(" ")[0] != here)
        names = list(dict.fromkeys(path.rpartition(" ")[2] for path in ranked))
        near = difflib.get_close_matches(word, names, n=1)
        paths = [path for path in ranked if near and path.rpartition(" ")[2] == near[0]]
        if paths and paths[0].rpartition(" ")[0] == here:
            return f"{said}: did you mean '{near[0]}'?"
    if not paths:
        return f"{said}: there are {', '.join(group.list_commands(ctx))}"
    if len(paths) == 1 and rest and len(shlex.join(rest)) <= SHOWN:
        paths = [f"{paths[0]} {shlex.join(rest)}"]
    return f"{said}: did you mean {' or '.join(f'`{path}`' for path in paths)}?"


def for_missing_word(ctx: click.Context, group: NearGroup, given: Mapping[str, object]) -> str:
    """What is said of a group without a command behind it."""
    names = group.list_commands(ctx)
    host = given.get("host")
    if host in names:
        return f"-h names a server's host here, and took '{host}' for it; name a command, too"
    return f"name a command: {', '.join(names)}"


def commands_of(root: click.Context, program: str) -> Iterator[str]:
    """Every command, with the words in front of it."""
    top = root.command
    assert isinstance(top, click.Group)
    for name in top.list_commands(root):
        command = top.get_command(root, name)
        if isinstance(command, click.Group):
            for below in command.list_commands(root):
                yield f"{program} {name} {below}"
        yield f"{program} {name}"


def for_option(error: click.UsageError) -> str | None:
    """What is said of an option that does not exist or has no value, where there is more to say
    than that."""
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        option, path = error.option_name, error.ctx.command_path
        if (known := OPTIONS.get(option)) is not None and known_by(error.ctx, known):
            return f"no option '{option}': write {known}; see '{path} --help'"
        if isinstance(error.ctx.command, NearGroup) and not error.possibilities:
            return (
                f"'{option}' stands behind the command, if it knows it:"
                f" {path} COMMAND {option} ...; see '{path} COMMAND --help'"
            )
    if isinstance(error, click.BadOptionUsage) and error.option_name == "-h":
        path = "trigear COMMAND" if error.ctx is None else error.ctx.command_path
        return f"-h names the server's host, as gearman has it; for help write '{path} --help'"
    return None


def known_by(ctx: click.Context, words: str) -> bool:
    """Whether the first option in these words is one of the command's, if there is one."""
    first = words.split()[0]
    options = [name for param in ctx.command.get_params(ctx) for name in param.opts]
    return not first.startswith("-") or first in options
