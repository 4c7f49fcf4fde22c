"""The text commands: one line in, one answer out, on the same port as the packets.

:data:`COMMANDS` is read by the server's dispatcher, by the command reference in the documentation
and by the fuzzer. The texts of the answers are those of gearmand to the byte, because monitoring
tools split them by TAB and ``gearadmin`` prints them as they are.

Command words are matched without regard to case; function names and handles are exact bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LINE_LIMIT: Final = 8192
"""Bytes in one command line, its end included."""


@dataclass(frozen=True, slots=True)
class Command:
    """One text command.

    ``words`` are the fixed words; ``args`` names what follows (a name in brackets may be left
    out). ``method`` is the handler's name. With ``exact`` a wrong number of words is an error,
    else words too many are ignored, as gearmand does. With ``login`` the command is there where
    peers have to say who they are, and unknown elsewhere.
    """

    words: tuple[str, ...]
    args: tuple[str, ...]
    method: str
    answer: str
    about: str
    exact: bool = False
    origin: str = "gearmand"
    login: bool = False

    @property
    def name(self) -> str:
        return " ".join(self.words)

    @property
    def is_list(self) -> bool:
        """Whether the answer is any number of lines, closed by a line with a dot."""
        return self.answer.endswith("`.`")


COMMANDS: Final = (
    Command(
        ("status",),
        (),
        "status",
        "`function TAB total TAB running TAB workers` lines, `.`",
        "Every function with its queued and running jobs and its workers.",
    ),
    Command(
        ("prioritystatus",),
        (),
        "priority_status",
        "`function TAB high TAB normal TAB low TAB workers` lines, `.`",
        "The queued jobs of every function by priority.",
    ),
    Command(
        ("workers",),
        (),
        "workers",
        "`fd address id : function …` lines, `.`",
        "Every connection, with the functions it can do.",
    ),
    Command(
        ("show", "jobs"),
        (),
        "show_jobs",
        "`handle TAB retries TAB ignored TAB background` lines, `.`",
        "Every job.",
        exact=True,
    ),
    Command(
        ("show", "unique", "jobs"),
        (),
        "show_unique_jobs",
        "unique lines, `.`",
        "The unique of every job.",
        exact=True,
    ),
    Command(
        ("create", "function"),
        ("function",),
        "create_function",
        "`OK`",
        "Make a function known before anybody can do it.",
        exact=True,
    ),
    Command(
        ("drop", "function"),
        ("function",),
        "drop_function",
        "`OK` or `ERR …`",
        "Forget a function that nobody does; its queued jobs are dropped.",
        exact=True,
    ),
    Command(
        ("cancel", "job"),
        ("handle",),
        "cancel_job",
        "`OK` or `ERR UNKNOWN_JOB`",
        "End a job; its clients get WORK_FAIL.",
        exact=True,
    ),
    Command(
        ("maxqueue",),
        ("function", "[high or all]", "[normal]", "[low]"),
        "max_queue",
        "`OK`",
        "Limit the jobs of a function, for all priorities or one by one; 0 or nothing: unlimited.",
        exact=True,
    ),
    Command(
        ("loading",),
        (),
        "loading",
        "`OK no`, or `OK yes`",
        "Whether jobs are still on their way from the store into memory, as after the start with a"
        " large queue: until then lists and `status` do not show all of them.",
        exact=True,
        origin="trigear",
    ),
    Command(("getpid",), (), "getpid", "`OK number`", "The server's process id."),
    Command(("verbose",), (), "verbose", "`OK LEVEL`", "The server's log level."),
    Command(("version",), (), "version", "`OK version`", "The server's version."),
    Command(
        ("jobs",),
        (),
        "jobs",
        "`handle TAB unique TAB worker TAB listeners` lines, `.`",
        "Every job with the address of its worker (`-`: none).",
        origin="Perl Gearman::Server",
    ),
    Command(
        ("clients",),
        (),
        "clients",
        "an address line per connection, its jobs indented below, `.`",
        "Every connection with the jobs it waits for.",
        origin="Perl Gearman::Server",
    ),
    Command(
        ("show", "job"),
        ("handle",),
        "show_job",
        "`ERR UNKNOWN_JOB`, or `name TAB value` lines and `.`",
        "All that is known of one job. `attempts` counts those that began, `losses` those that came"
        " to nothing; `age` is in seconds since the job could first have begun, `left` in seconds"
        " until its worker's deadline, `due` in seconds since 1970, `size` in bytes. Each `waiter`"
        " line is a submission that waits for the job.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("show", "functions"),
        (),
        "show_functions",
        "`function TAB total TAB running TAB workers TAB completed TAB failed TAB dropped TAB age"
        " TAB paused` lines, `.`",
        "Every function with the jobs that are there, those that have ended since the server"
        " started, for how many seconds the first in line has waited (`-`: there is none), and"
        " whether it is paused (`yes` or `no`).",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("result",),
        ("handle",),
        "result",
        "`ERR UNKNOWN_JOB`, or `name TAB value` lines and `.`",
        "What became of a job. The `state` is `delayed`, `queued` or `running`; once it is over,"
        " `done`, `failed`, `exception`, `dead`, `timeout`, `cancelled`, `abandoned` or `dropped`."
        " `attempts` are those that began; `ended` is in seconds since 1970; `size` is in bytes,"
        " and there only if a result is kept.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("drop", "result"),
        ("handle",),
        "drop_result",
        "`OK`, `ERR UNKNOWN_JOB` or `ERR RESULT_UNAVAILABLE …`",
        "Drop the result that is kept of a job: no new submission is answered from it any more.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("schedule", "add"),
        ("function", "when …", "[option=value …]"),
        "schedule_add",
        "`OK handle`, or `ERR …`",
        "Have a background job submitted again and again; the handle is that of the schedule. One"
        " with the same function and unique is changed. `when` is five words of cron, or one of"
        " `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`, or `@every` and a duration such as"
        " `5m`. Options: `unique` and `workload` (percent-encoded), `timezone` (`UTC`), `missed`"
        " (`once` or `skip`), `priority` (`high`, `normal` or `low`).",
        origin="trigear",
    ),
    Command(
        ("schedule", "list"),
        (),
        "schedule_list",
        "`handle TAB function TAB unique TAB when TAB timezone TAB state TAB next TAB ran TAB runs`"
        " lines, `.`",
        "Every schedule: whether it is `active` or `paused`, when it is due next and when it ran"
        " last (in seconds since 1970, `-` for never), and how often it has run.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("schedule", "show"),
        ("schedule",),
        "schedule_show",
        "`ERR …`, or `name TAB value` lines and `.`",
        "All that is known of one schedule, named by its handle or its unique. `run` is the handle"
        " of the last job, `size` the length of the workload in bytes; each `next` line is a time"
        " at which it is due.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("schedule", "pause"),
        ("schedule",),
        "schedule_pause",
        "`OK`, or `ERR …`",
        "Have a schedule make no runs until it is resumed.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("schedule", "resume"),
        ("schedule",),
        "schedule_resume",
        "`OK`, or `ERR …`",
        "Have a paused schedule go on; what was due meanwhile is left out.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("schedule", "run"),
        ("schedule",),
        "schedule_run",
        "`OK handle`, or `ERR …`",
        "Make a run at once, beside those that are due; the handle is that of its job.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("schedule", "remove"),
        ("schedule",),
        "schedule_remove",
        "`OK`, or `ERR …`",
        "Have no such schedule any more; jobs that it has made stay.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("requeue",),
        ("handle",),
        "requeue",
        "`OK` or `ERR UNKNOWN_JOB`",
        "Put a job at the end of its queue, without counting an attempt: one that runs is taken"
        " from its worker, one that waits for its time waits no longer.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("priority",),
        ("handle", "priority"),
        "priority",
        "`OK` or `ERR …`",
        "Give a job another priority: `high`, `normal` or `low`.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("functions",),
        ("[function]",),
        "functions",
        "`function TAB setting TAB value TAB origin` lines, `.`",
        "The settings of every function, or of one, and where each value comes from: `command`,"
        " `file` or `default`.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("tenants",),
        (),
        "tenants",
        "`tenant TAB quota TAB used TAB limit TAB exceeded` lines, `.`",
        "What each tenant may have and what it has, in numbers, bytes and seconds; an operator sees"
        " all of them. A `limit` of 0 is any number; `used` is `-` where nothing is used up, or not"
        " counted; `exceeded` is how often something was refused since the server started.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("pause",),
        ("function",),
        "pause",
        "`OK` or `ERR …`",
        "Hand out no jobs of a function until it is resumed; submissions are taken.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("resume",),
        ("function",),
        "resume",
        "`OK` or `ERR …`",
        "Hand out jobs of a paused function again.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("set",),
        ("function", "setting", "value …"),
        "set",
        "`OK` or `ERR …`",
        "Set anything of a function; that wins over the configuration until it is reset, and"
        " survives a restart. `ERR NOT_STORED` says that it holds, and will be stored when the"
        " store works again.",
        origin="trigear",
    ),
    Command(
        ("reset",),
        ("function", "[setting]"),
        "reset",
        "`OK` or `ERR …`",
        "Take back what was set of a function by command, one setting or all; pauses and limits"
        " among them.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("dead", "list"),
        ("[function]",),
        "dead_list",
        "`handle TAB function TAB reason TAB attempts TAB died TAB size TAB unique` lines, `.`",
        "The dead letters: background jobs that were given up. The `reason` is `attempts` (they are"
        " used up), `timeout`, `expired`, `failed` or `exception`; `died` is in seconds since 1970,"
        " `size` the length of the workload in bytes.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("dead", "show"),
        ("handle",),
        "dead_show",
        "`ERR UNKNOWN_JOB`, or `name TAB value` lines and `.`",
        "All of one dead letter. `worker` is the address of the last one that had it, `text` what a"
        " worker said last; the `workload` lines together are the workload, each in base64.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("dead", "retry"),
        ("handle or all", "[function]"),
        "dead_retry",
        "`OK`; for all of them `OK done left`; or `ERR …`",
        "Make a dead letter a job again, under its handle and with all its attempts; or all of"
        " them, of one function if one is named. One command changes a thousand or so: repeat it"
        " while some are left.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("dead", "delete"),
        ("handle or all", "[function]"),
        "dead_delete",
        "`OK`; for all of them `OK done left`; or `ERR …`",
        "Forget a dead letter, or all of them, as `dead retry` does.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("sessions",),
        (),
        "sessions",
        "`session TAB identity TAB tenant TAB method TAB address TAB tls TAB age TAB left TAB"
        " functions TAB running TAB waiting TAB id` lines, `.`",
        "Every connection and whose it is: how its peer became known (`none`: nobody asked), the"
        " version of TLS, its age and the time left until it must log in again in seconds, how many"
        " functions it can do, jobs it has, and jobs it waits for. `-` stands for what is not"
        " there.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("session", "end"),
        ("session",),
        "session_end",
        "`OK` or `ERR UNKNOWN_SESSION`",
        "End a connection; the jobs it has go to others.",
        exact=True,
        origin="trigear",
    ),
    Command(
        ("whoami",),
        (),
        "whoami",
        "`OK identity tenant roles method`",
        "Who this connection belongs to; `-` for each of them before a login.",
        origin="trigear",
        login=True,
    ),
    Command(
        ("auth",),
        ("[mechanism]", "[message]"),
        "auth",
        "`OK mechanisms`, `+ message`, `OK identity tenant roles [message]`, or `ERR …`",
        "Log in, or without words: the mechanisms that are offered here. Messages are in base64, an"
        " empty first one is `=`. After `+` the next line is a message, or `*` to give up.",
        origin="trigear",
        login=True,
    ),
    Command(
        ("tenant",),
        ("[tenant]",),
        "tenant",
        "`OK` or `ERR …`",
        "Have this connection of an operator act for a tenant, with the rights of its `admin`; for"
        " none any more. Packets do the same by the option `tenant=TENANT`. Not once it has"
        " submitted a job or can do a function.",
        exact=True,
        origin="trigear",
        login=True,
    ),
    Command(
        ("shutdown",),
        ("[graceful]",),
        "shutdown",
        "`OK`",
        "Stop the server at once, or once what runs is done.",
        exact=True,
        login=True,
    ),
    Command(
        ("drain",),
        (),
        "drain",
        "`OK`",
        "Stop the server once what runs is done; nothing new begins.",
        exact=True,
        origin="trigear",
        login=True,
    ),
    Command(
        ("reload",),
        (),
        "reload",
        "`OK`",
        "Have the server read its configuration, certificates and users anew, as at SIGHUP. Its log"
        " says what came of it.",
        exact=True,
        origin="trigear",
        login=True,
    ),
)

_PLAIN: Final = bytes(range(33, 127)) + bytes(range(128, 256))

OK: Final = b"OK\r\n"
END: Final = b".\n"


def ok(value: bytes) -> bytes:
    """The answer that carries one value."""
    return b"OK " + value + b"\n"


def err(code: str, text: str = "") -> bytes:
    """An error answer. Blanks in ``text`` go out as plus signs, as in gearmand."""
    tail = " " + text.replace(" ", "+") if text else ""
    return f"ERR {code}{tail}\r\n".encode("utf-8", "surrogateescape")


def unknown_command(word: bytes) -> bytes:
    """The answer to a command that is none; gearmand puts no separator before the word."""
    return b"ERR UNKNOWN_COMMAND Unknown+server+command" + word + b"\r\n"


def invalid_arguments(word: bytes) -> bytes:
    """The answer to a command with words too few or too many."""
    return (
        b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+"
        + word
        + b"\r\n"
    )


def table(rows: Iterable[Sequence[bytes | int]]) -> bytes:
    """Rows of TAB-separated fields, closed by a line with a dot."""
    lines = [
        b"\t".join(field if isinstance(field, bytes) else b"%d" % field for field in row) + b"\n"
        for row in rows
    ]
    lines.append(END)
    return b"".join(lines)


def shown(name: bytes, *, blanks: bool = False) -> bytes:
    r"""A name as it goes into a table: control characters as ``\xNN``, so that no name breaks a
    line. Blanks are kept where columns are separated by TAB (``blanks``)."""
    if not name.translate(None, _PLAIN) or (blanks and not name.translate(None, _PLAIN + b" ")):
        return name
    keep = _PLAIN + b" " if blanks else _PLAIN
    return b"".join(b"%c" % byte if byte in keep else b"\\x%02x" % byte for byte in name)


def words_of(line: bytes) -> list[bytes]:
    """Split a command line at its blanks; a blank in front yields an empty first word.

    Runs of blanks count as one, and trailing blanks are dropped. Only blanks separate: Perl's
    client puts a TAB between a prefix and the function's name.
    """
    words = [word for word in line.split(b" ") if word]
    if line[:1] == b" " or not words:
        words.insert(0, b"")
    return words


def find(words: Sequence[bytes]) -> Command | None:
    """The command that these words name, or None. The longest match wins."""
    best = None
    for command in COMMANDS:
        fixed = command.words
        if len(words) >= len(fixed) and all(
            word.lower() == name.encode() for word, name in zip(words, fixed, strict=False)
        ):
            best = command if best is None or len(fixed) > len(best.words) else best
    return best
