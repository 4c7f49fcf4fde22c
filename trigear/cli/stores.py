"""`trigear store`: look after the file or database that holds the durable jobs."""

from __future__ import annotations

import os
import sys
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from trigear import __version__
from trigear.cli.groups import NearGroup
from trigear.cli.manners import Manners, ask, manners_of, remark, with_help, with_manners
from trigear.cli.manual import examples
from trigear.cli.progress import Progress
from trigear.cli.report import Failure, Status
from trigear.cli.store import POSTGRESQL_URLS, READABLE, place_at, store_plan
from trigear.cli.tables import write, write_json
from trigear.model import counted, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from trigear.cli.store import StorePlan
    from trigear.stores.base import Keep, Owner, Record, Store
    from trigear.stores.gearmand_queue import QueuedJob
    from trigear.stores.postgresql_place import Place
    from trigear.stores.snapshot import Findings, Snapshot
    from trigear.stores.transfer import Importer

SQLITE_MAGIC: Final = b"SQLite format 3\0"

TOLD: Final = 20
"""Rows that are named one by one; the others are only counted."""


@click.group(
    cls=NearGroup,
    name="store",
    epilog=examples(
        """
        trigear store check
        trigear store backup /backup/jobs-monday.sqlite3
        trigear store export | gzip > jobs.jsonl.gz
        trigear store import /var/lib/gearman/gearmand.db
        """
    ),
)
@with_manners
@with_help
def store_group() -> None:
    """Look after the durable jobs: check, back up, move and renew their store.

    The store is the one that 'trigear server' would use with the same options, environment and
    configuration file.
    """


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--state-dir", metavar="DIR", help="Where the server keeps its files, as for it."
        ),
        click.option("--store", metavar="STORE", help="The store, as for 'trigear server'."),
        click.option(
            "--config",
            metavar="FILE",
            envvar="TRIGEAR_CONFIG",
            help="Configuration file. Default: the one the server would read.",
        ),
    ):
        command = option(command)
    return command


def plan_for(given: dict[str, Any]) -> StorePlan:
    """The store that the server would use.

    Raises:
        Failure: it keeps its jobs in memory.
    """
    from trigear.cli.server import server_command

    words = [
        word
        for name in ("config", "store", "state_dir")
        if given[name] is not None
        for word in (f"--{name.replace('_', '-')}", given[name])
    ]
    params = server_command.make_context("trigear server", words, obj=Manners()).params
    plan = store_plan(params["store"], params["state_dir"], os.getcwd())
    if plan.path is None and plan.place is None:
        raise Failure(
            "the store is memory: what is in there is seen with 'trigear admin jobs', and nobody"
            " keeps it; name another one with --store"
        )
    return plan


def snapshot_of(plan: StorePlan) -> Snapshot:
    """The store as it is now.

    Raises:
        StoreUnusable: it cannot be read.
    """
    if plan.place is not None:
        from trigear.stores.postgresql_tools import PostgresqlSnapshot

        return PostgresqlSnapshot(plan.place)
    from trigear.stores.sqlite_tools import SqliteSnapshot

    assert plan.path is not None
    return SqliteSnapshot(plan.path)


def ourselves() -> Owner:
    from trigear.stores.base import KEY_BYTES, Owner

    command = click.get_current_context().command_path
    return Owner(os.getpid(), f"'{command}'", __version__, os.urandom(KEY_BYTES))


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A line that shows how far something is."""
    line = Progress(wanted=not manners_of().quiet)
    try:
        yield partial(line.show, label)
    finally:
        line.clear()


@store_group.command(
    name="check",
    epilog=examples(
        """
        trigear store check
        trigear store check --store sqlite:////backup/jobs-monday.sqlite3 --json
        """
    ),
)
@store_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@with_manners
@with_help
def check_command(*, as_json: bool, **given: Any) -> int:  # noqa: ANN401
    """Read all of it, say what is in it and what is wrong with it.

    A server may use the store meanwhile. The exit status is 1 if anything is wrong.
    """
    from trigear.stores.snapshot import examine

    with closing(snapshot_of(plan_for(given))) as snapshot:
        with progress("rows") as report:
            found = examine(snapshot, report)
        if as_json:
            write_json(document_of(snapshot, found))
        else:
            write("".join(f"{line}\n" for line in lines_of(snapshot, found)).encode())
    return Status.NO if found.faulty else Status.DONE


def document_of(snapshot: Snapshot, found: Findings) -> dict[str, Any]:
    return {
        "store": snapshot.name,
        "tables": snapshot.schema,
        "writer": snapshot.writer,
        "owner": snapshot.owner,
        "jobs": sum(found.jobs.values()),
        "functions": [
            {"tenant": tenant, "function": printable(function), "jobs": jobs}
            for (tenant, function), jobs in sorted(found.jobs.items())
        ],
        "records": found.records,
        "faults": found.faulty,
        "first_faults": found.faults,
    }


def lines_of(snapshot: Snapshot, found: Findings) -> Iterator[str]:
    yield f"{snapshot.name}: tables of version {snapshot.schema}, trigear {snapshot.writer}"
    owner = snapshot.owner
    yield f"in use by {owner}" if owner else "no server uses it"
    yield counted(sum(found.jobs.values()), "job")
    for (tenant, function), jobs in sorted(found.jobs.items()):
        yield f"  {counted(jobs, 'job')} of {printable(function)} (tenant {tenant})"
    for kind, count in sorted(found.records.items()):
        yield counted(count, f"record of kind {kind}", f"records of kind {kind}")
    yield from (f"FAULT {text}" for text in found.faults)
    if found.faulty > len(found.faults):
        yield f"and {counted(found.faulty - len(found.faults), 'fault')} more"
    if found.faulty:
        yield (
            f"{counted(found.faulty, 'fault')}: a server passes over such rows and leaves them in"
            " place; damage of the file itself needs a backup"
        )
    else:
        yield "nothing is wrong"


@store_group.command(
    name="backup",
    epilog=examples(
        """
        trigear store backup /backup/jobs-monday.sqlite3
        # the way back, with the server stopped:
        cp /backup/jobs-monday.sqlite3 /var/lib/trigear/jobs.sqlite3
        """
    ),
)
@click.argument("file")
@click.option("--force", is_flag=True, help="Replace a file of this name.")
@store_options
@with_manners
@with_help
def backup_command(file: str, *, force: bool, **given: Any) -> int:  # noqa: ANN401
    """Copy the store to FILE, also while a server uses it.

    The copy is what was committed at one moment. A server that starts from it runs again what has
    ended since then, and gives no handle that was given in between.
    """
    from trigear.stores.sqlite_tools import backup

    plan = plan_for(given)
    if plan.path is None:
        raise Failure(f"{plan}: a database is copied by its own tools, pg_dump for one")
    with progress("pages") as report:
        backup(plan.path, file, report, replace=force)
    remark(f"{file}: {os.path.getsize(file):,} bytes")
    return Status.DONE


@store_group.command(
    name="migrate",
    epilog=examples(
        """
        trigear store migrate
        trigear store migrate --store sqlite:////srv/queue/jobs.sqlite3
        """
    ),
)
@store_options
@with_manners
@with_help
def migrate_command(**given: Any) -> int:  # noqa: ANN401
    """Bring tables that an earlier trigear wrote to the version of this one.

    The server has to be stopped. A backup is made first, beside the store.
    """
    from trigear.stores.sqlite_file import SCHEMA
    from trigear.stores.sqlite_tools import upgrade

    plan = plan_for(given)
    if plan.path is None:
        with closing(snapshot_of(plan)) as snapshot:
            remark(f"the tables are of version {snapshot.schema} already")
        return Status.DONE
    with progress("pages") as report:
        schema, saved = upgrade(plan.path, ourselves(), report)
    if saved:
        remark(f"tables of version {schema} are of version {SCHEMA} now; as it was: {saved}")
    else:
        remark(f"the tables are of version {schema} already")
    return Status.DONE


@store_group.command(
    name="export",
    epilog=examples(
        """
        trigear store export > jobs.jsonl
        trigear store export jobs.jsonl --state-dir /var/lib/trigear
        # the way back to gearmand:
        trigear store export --gearmand gearmand.db
        """
    ),
)
@click.argument("file", default="-")
@click.option("--gearmand", is_flag=True, help="Write gearmand's queue instead of text.")
@click.option(
    "--table",
    help="With --gearmand: its table. Default: gearman_queue in SQLite, queue in PostgreSQL.",
)
@click.option("--force", is_flag=True, help="Replace a file of this name.")
@store_options
@with_manners
@with_help
def export_command(
    file: str,
    *,
    gearmand: bool,
    table: str | None,
    force: bool,
    **given: Any,  # noqa: ANN401
) -> int:
    """Write everything in the store to FILE, as lines of JSON; - is standard output.

    A server may use the store meanwhile. With --gearmand FILE is the SQLite database of
    gearmand -q libsqlite3, or the URL of the one of gearmand -q Postgres, and jobs are written as
    it takes them up: it knows neither handles, attempts nor reducers, and nothing besides jobs.
    """
    if gearmand and file == "-":
        raise click.UsageError("--gearmand writes a database: name its file")
    if file != "-" and os.path.exists(file) and not force and not gearmand:
        raise Failure(f"{file}: is there already; name another file, or say --force")
    with closing(snapshot_of(plan_for(given))) as snapshot, told("left out") as spoilt:
        if gearmand:
            return export_to_gearmand(snapshot, file, table, spoilt)
        with progress("rows") as report:
            count = write_export(snapshot, file, spoilt, report)
    remark(f"{counted(count, 'job or record', 'jobs and records')} written")
    return Status.DONE


def write_export(
    snapshot: Snapshot,
    file: str,
    spoilt: Callable[[str], None],
    report: Callable[[int, int], None],
) -> int:
    from trigear.stores.snapshot import PAGE
    from trigear.stores.transfer import export_lines

    total = snapshot.total()
    count = -1
    # Workloads may be secrets: the file is for its owner only.
    opener = partial(os.open, mode=0o600)
    with (
        open(sys.stdout.fileno(), "w", encoding="utf-8", newline="\n", closefd=False)
        if file == "-"
        else open(file, "w", encoding="utf-8", newline="\n", opener=opener)
    ) as out:
        for count, line in enumerate(export_lines(snapshot, __version__, spoilt)):
            out.write(line + "\n")
            if count % PAGE == 0:
                report(count, total)
        out.flush()
        if file != "-":
            os.fsync(out.fileno())
    return count


def export_to_gearmand(
    snapshot: Snapshot, file: str, table: str | None, spoilt: Callable[[str], None]
) -> int:
    from trigear.stores.base import Keep
    from trigear.stores.gearmand_queue import SQLITE_TABLE, write_sqlite
    from trigear.stores.snapshot import jobs_of

    def jobs() -> Iterator[Keep]:
        for row in jobs_of(snapshot):
            if isinstance(row, Keep):
                yield row
            else:
                spoilt(row.why)

    if file.startswith(POSTGRESQL_URLS):
        from trigear.stores.gearmand_postgresql import write_postgresql

        place, table = gearmands_place(file, table)
        written, reducers = write_postgresql(place, table, jobs())
        remark("gearmand takes jobs from PostgreSQL for urgent ones that are due, all of them")
    else:
        table = table or SQLITE_TABLE
        written, reducers = write_sqlite(file, table, jobs())
    remark(f"{counted(written, 'job')} written to table '{table}'")
    if reducers:
        remark(f"{counted(reducers, 'job')} lost the reducer, which gearmand does not keep")
    kinds = snapshot.kinds()
    if kinds:
        remark(f"left out, because gearmand has no place for them: {', '.join(kinds)}")
    return Status.DONE


def gearmands_place(url: str, table: str | None) -> tuple[Place, str]:
    """The database that a word of the command line names, and gearmand's table in it.

    Raises:
        Failure: one of them cannot be used.
    """
    try:
        place = place_at(url)
        from trigear.stores.postgresql_place import GEARMANDS_TABLE, name_of_table

        if place.secret:
            raise ValueError(READABLE)
        return place, name_of_table(table or GEARMANDS_TABLE)
    except ValueError as error:
        raise Failure(str(error), Status.USAGE) from error


@store_group.command(
    name="import",
    epilog=examples(
        """
        zcat jobs.jsonl.gz | trigear store import -
        trigear store import /var/lib/gearman/gearmand.db --dry-run
        trigear store import /var/lib/gearman/gearmand.db --table gearman_queue
        trigear store import postgresql://gearman@db.example/gearman
        """
    ),
)
@click.argument("source", metavar="SOURCE")
@click.option("--table", help="Of a database of gearmand's: the table with its queue.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_options
@with_manners
@with_help
def import_command(
    source: str,
    *,
    table: str | None,
    dry_run: bool,
    yes: bool,
    **given: Any,  # noqa: ANN401
) -> int:
    """Take jobs from SOURCE into the store: an export, or the queue of a gearmand.

    SOURCE is a file that 'trigear store export' wrote (- is standard input), the SQLite database
    of gearmand -q libsqlite3, or the URL of the database of gearmand -q Postgres, whose table is
    'queue' unless --table says otherwise. Both servers have to be stopped. Jobs come behind those
    that are there, in their order. Doing it again with an export adds only what is missing;
    a gearmand's jobs get new handles each time.
    """
    plan = plan_for(given)
    with told("passed over") as spoilt:
        lines = lines_from(source, table, spoilt)
        if dry_run:
            return would_import(lines)
        if source != "-" and not ask(f"Import {source} into {plan}?", yes=yes):
            return Status.NO
        with closing(store_for(plan)) as store:
            return take_in(store, lines)


def lines_from(
    source: str, table: str | None, spoilt: Callable[[str], None]
) -> Iterable[Keep | Record | QueuedJob]:
    from trigear.stores.gearmand_queue import read_sqlite
    from trigear.stores.transfer import read_lines

    if source == "-":
        return read_lines(sys.stdin)
    if source.startswith(POSTGRESQL_URLS):
        place, table = gearmands_place(source, table)
        from trigear.stores.gearmand_postgresql import read_postgresql

        return read_postgresql(place, table, spoilt)
    with open(source, "rb") as file:
        start = file.read(len(SQLITE_MAGIC))
    if start == SQLITE_MAGIC:
        return read_sqlite(source, table, spoilt)
    return read_lines(text_of(source))


def text_of(file: str) -> Iterator[str]:
    with open(file, encoding="utf-8", newline="\n") as lines:
        yield from lines


def store_for(plan: StorePlan) -> Store:
    """The store, not yet opened."""
    plan.prepare(None)
    store = plan.build()
    assert store is not None
    return store


def would_import(lines: Iterable[Keep | Record | QueuedJob]) -> int:
    from trigear.stores.base import Record

    jobs = records = 0
    with failures_named():
        for line in lines:
            if isinstance(line, Record):
                records += 1
            else:
                jobs += 1
    write(f"{counted(jobs, 'job')} and {counted(records, 'record')} would be imported\n".encode())
    return Status.DONE


def take_in(store: Store, lines: Iterable[Keep | Record | QueuedJob]) -> int:
    import socket

    from trigear.engine.handles import HandleMint
    from trigear.model import DEFAULT_TENANT, TERM_SHIFT
    from trigear.stores.base import Keep, Record
    from trigear.stores.transfer import Importer

    tenure = store.open(ourselves())
    first = tenure.term << TERM_SHIFT
    prefix = f"H:{socket.gethostname()}".encode()[:42]
    mint = HandleMint(prefix, tenure.key, first)
    importer = Importer(store, first, handles_in(store))
    with failures_named(importer), progress("jobs") as report:
        for line in lines:
            if not isinstance(line, Keep | Record):
                line = Keep(
                    partition=0,
                    sequence=0,
                    tenant=DEFAULT_TENANT,
                    function=line.function,
                    unique=line.unique,
                    handle=mint(DEFAULT_TENANT, line.function, line.unique),
                    priority=line.priority,
                    due=line.due,
                    submitted=0.0,
                    losses=0,
                    reducer=b"",
                    workload=line.workload,
                )
            importer.add(line)
            done = importer.jobs + importer.records
            if done % TOLD == 0:
                report(done, done)
        importer.flush()
    remark(
        f"imported {counted(importer.jobs, 'job')} and {counted(importer.records, 'record')}"
        + (f"; {counted(importer.known, 'job')} were there already" if importer.known else "")
    )
    return Status.DONE


def handles_in(store: Store) -> set[tuple[str, bytes]]:
    """The handles of the jobs that are there."""
    from trigear.stores.base import Keep
    from trigear.stores.snapshot import PAGE

    handles: set[tuple[str, bytes]] = set()
    after = None
    while True:
        page = store.scan(after, PAGE)
        handles.update((row.tenant, row.handle) for row in page if isinstance(row, Keep))
        if len(page) < PAGE:
            return handles
        after = page[-1].partition, page[-1].sequence


@contextmanager
def told(what: str) -> Iterator[Callable[[str], None]]:
    """Say of the first rows that make no sense why, and at the end how many there were."""
    reasons: list[str] = []

    def spoilt(why: str) -> None:
        reasons.append(why)
        if len(reasons) <= TOLD:
            remark(f"a row is {what}: {why}")

    yield spoilt
    if len(reasons) > TOLD:
        remark(f"{len(reasons)} rows were {what}")


@contextmanager
def failures_named(importer: Importer | None = None) -> Iterator[None]:
    """What is no export is said in one line; what came before it is imported."""
    from trigear.stores.transfer import Unreadable

    try:
        yield
    except (Unreadable, UnicodeDecodeError) as error:
        before = ""
        if importer is not None:
            importer.flush()
            before = f"; {counted(importer.jobs, 'job')} before that were imported"
        raise Failure(f"the source is no whole export: {error}{before}") from error
