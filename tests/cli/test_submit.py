"""`trigear submit`: what goes in, what comes out, and what is said when it does not work."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import PATIENCE, TRIGEAR
from tests.plain import Held, plain_worker, scripted_server, server_in_thread
from trigear import connect_blocking
from trigear.cli import submitting
from trigear.cli.report import Status
from trigear.wire import packets
from trigear.wire.codec import response

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Said
    from tests.cli.talking import Terminal
    from tests.conftest import ForeignServer, PeerTools


def upper(job: Held) -> None:
    job.complete(job.workload.upper())


def jobs_at(address: str) -> list[str]:
    with connect_blocking(address, timeout=PATIENCE) as client:
        return client.admin("jobs")


def queued(address: str, function: str) -> list[str]:
    """high, normal and low jobs of a function."""
    with connect_blocking(address, timeout=PATIENCE) as client:
        for line in client.admin("prioritystatus"):
            name, *numbers = line.split("\t")
            if name == function:
                return numbers[:3]
    return []


# What goes in, what comes out


def test_each_workload_is_a_job_and_results_are_printed_as_they_are(
    server: str, trigear: Callable[..., Said]
) -> None:
    with plain_worker(server, upper=upper):
        said = trigear("submit", "upper", "one", "two\n")
    assert (said.status, said.out, said.err) == (0, "ONETWO\n", "")


def test_standard_input_is_the_workload_if_there_is_no_other(
    server: str, trigear: Callable[..., Said], type_in: Callable[[bytes], None]
) -> None:
    type_in(b"a\nb\n")
    with plain_worker(server, upper=upper):
        assert trigear("submit", "upper").out == "A\nB\n"


def test_bytes_that_are_no_text_go_through(server: str, tmp_path: Path) -> None:
    """As a process: what pytest captures is text."""
    data = bytes(range(256)) * 1000
    (tmp_path / "in").write_bytes(data)
    with (
        plain_worker(server, reverse=lambda job: job.complete(job.workload[::-1])),
        (tmp_path / "in").open("rb") as source,
    ):
        done = subprocess.run(
            [*TRIGEAR, "submit", "reverse"], stdin=source, capture_output=True, check=True
        )
    assert done.stdout == data[::-1]


def test_empty_workload_needs_no_input(server: str, trigear: Callable[..., Said]) -> None:
    with plain_worker(server, size=lambda job: job.complete(b"%d" % len(job.workload))):
        assert trigear("submit", "-s", "size").out == "0"


@pytest.mark.parametrize(("letter", "workloads"), [("-n", ["a\n", "b"]), ("-N", ["a", "b"])])
def test_each_line_is_a_job(
    letter: str,
    workloads: list[str],
    server: str,
    trigear: Callable[..., Said],
    type_in: Callable[[bytes], None],
) -> None:
    type_in(b"a\nb")
    got: list[str] = []

    def note(job: Held) -> None:
        got.append(job.workload.decode())
        job.complete(b"ok\n")

    with plain_worker(server, note=note):
        assert trigear("submit", letter, "note").out == "ok\nok\n"
    assert got == workloads


def test_function_may_be_named_as_gearman_does_and_more_than_once(
    server: str, trigear: Callable[..., Said]
) -> None:
    with plain_worker(server, upper=upper, size=lambda job: job.complete(b"1")):
        assert trigear("submit", "-f", "upper", "-f", "size", "a", "b").out == "A1B1"


def test_prefix_stands_before_each_line(server: str, trigear: Callable[..., Said]) -> None:
    def speak(job: Held) -> None:
        job.data(b"one\ntw")
        job.data(b"o\n")
        job.complete(b"three")

    with plain_worker(server, speak=speak):
        out = trigear("submit", "-P", "speak", "", "").out
    assert out == "speak: one\nspeak: two\nspeak: three\n" * 2


def test_warnings_go_to_standard_error(server: str, trigear: Callable[..., Said]) -> None:
    def warn(job: Held) -> None:
        job.warning(b"hot")
        job.complete(b"done")

    with plain_worker(server, warn=warn):
        said = trigear("submit", "warn", "")
    assert (said.status, said.out, said.err) == (0, "done", "hot\n")


def test_verbose_names_the_job(server: str, trigear: Callable[..., Said]) -> None:
    with plain_worker(server, upper=upper):
        said = trigear("submit", "-v", "upper", "a")
    assert said.out == "A"
    assert re.fullmatch(r"trigear: job created: 'upper' \(H:.+\)", said.line)


def test_data_come_out_before_the_job_is_over(server: str) -> None:
    seen = threading.Event()

    def speak(job: Held) -> None:
        job.data(b"early\n")
        assert seen.wait(PATIENCE)
        job.complete(b"late\n")

    with (
        plain_worker(server, speak=speak),
        subprocess.Popen(
            [*TRIGEAR, "submit", "speak", ""], stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "early\n"
        seen.set()
        assert process.stdout.read() == "late\n"


def test_jobs_run_side_by_side_and_results_keep_their_order(
    server: str, trigear: Callable[..., Said]
) -> None:
    """The first job ends when the last one has begun."""
    last = threading.Event()

    def wait(job: Held) -> None:
        if job.workload == b"c":
            last.set()
        elif job.workload == b"a":
            assert last.wait(PATIENCE)
        job.complete(job.workload)

    with plain_worker(server, wait=wait), plain_worker(server, wait=wait):
        assert trigear("submit", "--parallel", "2", "wait", "a", "b", "c").out == "abc"


def test_json_has_one_object_for_each_job(
    server: str, trigear: Callable[..., Said], type_in: Callable[[bytes], None]
) -> None:
    def judge(job: Held) -> None:
        match job.workload:
            case b"fail":
                job.fail()
            case b"raise":
                job.exception(b"no paper")
            case b"bytes":
                job.complete(b"\xff")
            case _:
                job.warning(b"hm")
                job.data(b"a")
                job.complete(b"b")

    type_in(b"well\nfail\nraise\nbytes\n")
    with plain_worker(server, judge=judge):
        said = trigear("submit", "--json", "-N", "judge")
    assert said.status == Status.NO
    found = [json.loads(line) for line in said.out.splitlines()]
    assert all(one.pop("handle").startswith("H:") for one in found)
    common = {"function": "judge", "unique": None, "warnings": []}
    assert found == [
        {**common, "outcome": "completed", "data": "ab", "encoding": "utf-8", "warnings": ["hm"]},
        {**common, "outcome": "failed", "data": "", "encoding": "utf-8"},
        {**common, "outcome": "raised", "data": "no paper", "encoding": "utf-8"},
        {**common, "outcome": "completed", "data": "/w==", "encoding": "base64"},
    ]


# In the background


def test_background_job_is_left_there_and_its_handle_printed(
    server: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("submit", "-b", "mail", "a", "b")
    assert said.status == 0
    assert [line.split("\t")[0] for line in jobs_at(server)] == said.out.split()


@pytest.mark.parametrize(
    ("letters", "numbers"), [(["-I"], "100"), ([], "010"), (["-L"], "001")], ids="INL"
)
def test_priority_is_the_one_asked_for(
    letters: list[str], numbers: str, server: str, trigear: Callable[..., Said]
) -> None:
    trigear("submit", "-b", *letters, "mail", "")
    assert queued(server, "mail") == list(numbers)


def test_same_unique_is_the_same_job(server: str, trigear: Callable[..., Said]) -> None:
    first = trigear("submit", "-b", "-u", "order-17", "mail", "a")
    second = trigear("submit", "-b", "--unique", "order-17", "--json", "mail", "b")
    found = json.loads(second.out)
    assert found["handle"] == first.out.strip()
    assert (found["unique"], found["outcome"]) == ("order-17", "queued")


@pytest.mark.parametrize("word", ["-", "#"])
def test_unique_may_be_the_workload(word: str, server: str, trigear: Callable[..., Said]) -> None:
    said = trigear("submit", "-b", "-u", word, "mail", "a", "b", "c" * 100, "a", "c" * 100)
    one, two, three, four, five = said.out.split()
    assert (four, five) == (one, three)
    assert len({one, two, three}) == 3


@pytest.mark.parametrize(
    "when", [["--delay", "1h"], ["--at", "2100-01-01T00:00:00Z"], ["--at", "2100-01-01T00:00+01"]]
)
def test_job_with_a_time_waits_in_the_background(
    when: list[str], server: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("submit", *when, "mail", "")
    assert said.status == 0
    with plain_worker(server, mail=Held.complete):
        assert trigear("submit", "mail", "").status == 0
        assert [line.split("\t")[0] for line in jobs_at(server)] == [said.out.strip()]


def test_time_that_is_over_is_remarked(server: str, trigear: Callable[..., Said]) -> None:
    said = trigear("submit", "--at", "2020-01-01T00:00:00Z", "mail", "")
    assert said.status == 0
    assert said.line == ("trigear: 2020-01-01T00:00:00+00:00 is over: the job may begin at once")


# Jobs that do not end well


def test_job_that_fails_is_status_1_and_the_others_are_done(
    server: str, trigear: Callable[..., Said]
) -> None:
    def judge(job: Held) -> None:
        job.fail() if job.workload == b"bad" else job.complete(b"good ")

    with plain_worker(server, judge=judge):
        said = trigear("submit", "judge", "1", "bad", "2")
    assert (said.status, said.out) == (1, "good good ")
    assert re.fullmatch(r"trigear: error: 'judge' \(H:.+\) failed", said.line)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"ValueError: no paper", "ValueError: no paper"),
        (b"Traceback\n  deep\n\nValueError: no\n", "Traceback · deep · ValueError: no"),
        (b"", "without a word"),
        (b"\x05\xff", "2 bytes that are no text"),
        (b"\x1b[2J", r"\x1b[2J"),
        (b"x" * 400, "x" * 300 + " … (--verbose shows all)"),
    ],
)
def test_job_that_raises_says_what_its_worker_said(
    data: bytes, says: str, server: str, trigear: Callable[..., Said]
) -> None:
    with plain_worker(server, bad=lambda job: job.exception(data)):
        said = trigear("submit", "bad", "")
    assert (said.status, said.out) == (1, "")
    assert said.line.endswith(f") raised an exception: {says}")


def test_job_that_is_refused_says_why(server: str, trigear: Callable[..., Said]) -> None:
    for _ in range(2):
        said = trigear("submit", "-b", "mail", "")
        with connect_blocking(server) as client:
            client.admin("maxqueue mail 1")
    assert said.status == 1
    assert said.line == (
        f"trigear: error: {server} refused 'mail': Job queue is full (QUEUE_ERROR)"
    )
    assert trigear("submit", "mail", "").line == said.line


def test_job_that_is_not_allowed_is_status_4(trigear: Callable[..., Said]) -> None:
    def refuse(link: socket.socket) -> None:
        link.recv(10_000)
        error = response(packets.ERROR, b"PERMISSION_DENIED", b"Permission denied")
        link.sendall(error * 3)
        link.recv(1)

    with scripted_server(refuse) as address:
        said = trigear("submit", "--server", address, "mail", "")
    assert said.status == Status.NOT_ALLOWED
    assert said.line.endswith(" refused 'mail': Permission denied (PERMISSION_DENIED)")


def test_name_that_cannot_be_sent_is_a_mistake(server: str, trigear: Callable[..., Said]) -> None:
    said = trigear("submit", "-u", "x" * 65, "mail", "")
    assert said.status == Status.USAGE
    assert said.line.endswith("unique of 65 bytes: servers take 64 at most; hash it")
    assert trigear("submit", "-b", "-u", "x" * 65, "mail", "").line == said.line
    said = trigear("submit", "", "workload")
    assert said.status == Status.USAGE
    assert said.line == "trigear: error: function: '' is no name"


# Waiting


@pytest.fixture
def remarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[queue.Queue[str]]:
    """What commands in this process remark; they look around after a short silence."""
    said: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(submitting, "SILENCE", 0.02)
    monkeypatch.setattr(submitting, "remark", said.put)
    yield said
    assert said.empty()


@pytest.mark.parametrize(
    ("served", "more"), [("resize", ""), ("reszie", "; did you mean 'reszie'?")]
)
def test_function_that_nobody_serves_is_remarked_once(
    served: str,
    more: str,
    server: str,
    trigear: Callable[..., Said],
    remarks: queue.Queue[str],
) -> None:
    said: list[Said] = []
    thread = threading.Thread(target=lambda: said.append(trigear("submit", "resize", "cat")))
    workers = contextlib.ExitStack()
    if more:
        workers.enter_context(plain_worker(server, **{served: upper}))
    with workers:
        thread.start()
        assert remarks.get(timeout=PATIENCE) == (
            f"no worker serves 'resize' at {server}: waiting for one (Ctrl-C gives up; -b would"
            f" leave the job there){more}"
        )
        with plain_worker(server, resize=upper):
            thread.join(PATIENCE)
    assert (said[0].status, said[0].out, said[0].err) == (0, "CAT", "")


def test_job_that_nobody_took_before_the_deadline_is_dropped(
    server: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("submit", "--deadline", "1s", "nobody", "")
    assert said.status == Status.TOO_LATE
    assert re.fullmatch(
        r"trigear: error: the deadline of 1 s has passed: 'nobody' \(H:.+\) had not begun, and"
        r" is dropped unless others wait",
        said.line,
    )
    assert jobs_at(server) == []


def test_busy_worker_is_not_remarked(
    server: str, trigear: Callable[..., Said], remarks: queue.Queue[str]
) -> None:
    release = threading.Event()

    def hold(job: Held) -> None:
        assert release.wait(PATIENCE)
        job.complete()

    with plain_worker(server, hold=hold):
        # The first job runs, the second waits behind it.
        said = trigear("submit", "--deadline", "1s", "--parallel", "2", "hold", "a", "b")
        release.set()
    assert said.status == Status.TOO_LATE
    assert said.line.endswith(") may go on, but its result is lost; 1 more was under way")


def test_deadline_in_milliseconds_as_gearman_has_it(
    server: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("submit", "-t", "50", "nobody", "")
    assert said.status == Status.TOO_LATE
    assert "the deadline of 0.05 s has passed" in said.line


def test_deadline_holds_also_while_updates_come(server: str, trigear: Callable[..., Said]) -> None:
    enough = threading.Event()

    def flood(job: Held) -> None:
        while not enough.is_set():
            job.status(1, 2)
        job.complete()

    with plain_worker(server, flood=flood):
        said = trigear("submit", "--deadline", "200ms", "flood", "")
        enough.set()
    assert said.status == Status.TOO_LATE


def test_deadline_that_passes_before_anything_was_submitted(
    server: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("submit", "--deadline", "0", "mail", "")
    assert said.status == Status.TOO_LATE
    assert said.line == ("trigear: error: the deadline of 0 s has passed: nothing was submitted")


@pytest.mark.parametrize("letters", [[], ["-b"]])
def test_deadline_holds_for_a_server_that_says_nothing(
    letters: list[str], trigear: Callable[..., Said]
) -> None:
    with scripted_server(silent) as address:
        said = trigear("submit", *letters, "--deadline", "50ms", "--server", address, "mail", "")
    assert said.status == Status.TOO_LATE


def silent(link: socket.socket) -> None:
    while link.recv(10_000):
        pass


@pytest.mark.parametrize("letters", [[], ["-b"]])
def test_server_that_says_nothing_is_doubted(
    letters: list[str], trigear: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "ACCEPTANCE", 0.05)
    with scripted_server(silent) as address:
        said = trigear("submit", *letters, "--server", address, "mail", "")
    assert said.status == Status.NO_SERVER
    assert said.line.endswith(
        " took the connection, but does not answer: is it a Gearman server, and is it alive?"
    )


def test_interrupt_says_what_becomes_of_the_job(
    server: str, terminal: Callable[..., Terminal]
) -> None:
    begun = threading.Event()

    def hold(job: Held) -> None:
        job.status(1, 2)
        assert begun.wait(PATIENCE)

    shell = terminal("submit", "hold", "x")
    with plain_worker(server, hold=hold):
        shell.read_until("50%")
        shell.send(signal.SIGINT)
        assert shell.wait() == Status.INTERRUPTED
        begun.set()
    assert shell.seen.endswith(") may go on, but its result is lost\n")


# On a terminal


def test_progress_is_drawn_and_taken_away_again(
    server: str, terminal: Callable[..., Terminal]
) -> None:
    seen = threading.Event()

    def count(job: Held) -> None:
        job.status(3, 4)
        assert seen.wait(PATIENCE)
        job.complete(b"result")

    shell = terminal("submit", "count", "x")
    with plain_worker(server, count=count):
        shell.read_until("3/4")
        seen.set()
        assert shell.wait() == 0
    assert "count [##################......]  75% 3/4\r\x1b[Kresult\n" in shell.seen


def test_progress_is_for_terminals_only(server: str, trigear: Callable[..., Said]) -> None:
    def count(job: Held) -> None:
        job.status(3, 4)
        job.complete()

    with plain_worker(server, count=count):
        assert trigear("submit", "count", "x").err == ""


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_progress_can_be_done_without(
    option: str, server: str, terminal: Callable[..., Terminal]
) -> None:
    def count(job: Held) -> None:
        job.status(3, 4)
        job.complete()

    shell = terminal("submit", option, "count", "x")
    with plain_worker(server, count=count):
        assert shell.wait() == 0
    assert "75%" not in shell.seen


@pytest.mark.parametrize(
    ("letters", "typed", "says"),
    [
        ([], "a\n\x04", "reading the workload from the terminal; Ctrl-D ends it, -s sends none"),
        (["-n"], "a\n\x04", "reading a workload from each line of the terminal; Ctrl-D ends"),
    ],
)
def test_person_who_is_read_from_is_told(
    letters: list[str],
    typed: str,
    says: str,
    server: str,
    terminal: Callable[..., Terminal],
) -> None:
    with plain_worker(server, upper=upper):
        shell = terminal("submit", *letters, "upper")
        shell.read_until(says)
        shell.type(typed)
        assert shell.wait() == 0
    assert shell.seen.endswith("A\n")


# Servers


def test_no_server_says_how_to_get_one(trigear: Callable[..., Said]) -> None:
    said = trigear("submit", "-p", "1", "upper", "x")
    assert said.status == Status.NO_SERVER
    assert said.line == (
        "trigear: error: no server at localhost:1 (Connection refused): start one with"
        " `trigear server`, or name one with --server"
    )


def test_no_server_where_the_environment_says_so(
    nowhere: str, trigear: Callable[..., Said]
) -> None:
    assert trigear("submit", "upper", "x").line == (
        f"trigear: error: no server at {nowhere} (Connection refused), named by GEARMAN_SERVERS:"
        " start one with `trigear server`, or name another with --server"
    )


def test_no_server_elsewhere_cannot_be_started_from_here(trigear: Callable[..., Said]) -> None:
    said = trigear("submit", "--server", "nowhere.invalid", "upper", "x")
    assert said.status == Status.NO_SERVER
    assert said.line.startswith("trigear: error: no server at nowhere.invalid:4730 (")
    assert said.line.endswith(
        "): see that one runs there and can be reached from here, or name another with --server"
    )


def test_next_server_is_taken_and_that_is_said(server: str, trigear: Callable[..., Said]) -> None:
    with plain_worker(server, upper=upper):
        said = trigear("submit", "--server", "localhost:1", "--server", server, "upper", "x")
    assert (said.status, said.out) == (0, "X")
    assert said.line == (f"trigear: no server at localhost:1 (Connection refused): taking {server}")


def test_server_that_goes_away_while_a_job_runs(trigear: Callable[..., Said]) -> None:
    begun, over = threading.Event(), threading.Event()

    def hold(job: Held) -> None:
        begun.set()
        over.wait(PATIENCE)

    said: list[Said] = []
    with server_in_thread() as (address,):
        command = ("submit", "--server", address, "hold", "x")
        thread = threading.Thread(target=lambda: said.append(trigear(*command)))
        with plain_worker(address, hold=hold):
            thread.start()
            assert begun.wait(PATIENCE)
            over.set()
    thread.join(PATIENCE)
    assert said[0].status == Status.NO_SERVER
    assert re.fullmatch(
        r"trigear: error: .+ (closed the connection|broke: .+) while 'hold' \(H:.+\) was under way:"
        r" whether it ran is unknown; if it may run twice, submit it again",
        said[0].line,
    )


def test_server_that_is_none_is_doubted(trigear: Callable[..., Said]) -> None:
    def speak_http(link: socket.socket) -> None:
        link.recv(10_000)
        link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with scripted_server(speak_http) as address:
        said = trigear("submit", "--server", address, "upper", "x")
    assert said.status == Status.NO_SERVER
    assert "HTTP/1.1 400" in said.line
    assert said.line.endswith("; is it a Gearman server?")


# Mistakes


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "name a function, and workloads if any"),
        (["-s"], "name a function, and workloads if any"),
        (["-I", "-L", "f", "x"], "-I and -L name two priorities: leave one out"),
        (["--at", "2100-01-01T00:00Z", "--delay", "1", "f", "x"], "both say when: leave one out"),
        (["--delay", "1", "-I", "f", "x"], "go with normal priority only: leave one out"),
        (["-n", "f", "x"], "but the command has some: leave one out"),
        (["-s", "f", "x"], "but the command has some: leave one out"),
        (["-t", "5", "--deadline", "1s", "f", "x"], "both say how long: leave one out"),
        (["-u", "k", "f", "x", "y"], "-u k would make one job of several workloads: -u - gives"),
        (["--at", "noon", "f", "x"], "'noon' is not a time: write 2026-11-23T08:00:00+01:00"),
        (["--at", "2100-01-01T00:00", "f", "x"], "has no time zone: write 2026-11-23T08:00"),
        (["--deadline", "soon", "f", "x"], "'soon' is not a duration: write 500ms, 30s"),
        (["--parallel", "0", "f", "x"], "'0' is not a whole number, at least 1"),
        (["--server", "a:b", "f", "x"], "--server: 'a:b' has no usable port"),
        (["-h", "a b", "f", "x"], "-h: 'a b' has no usable host"),
        (["-p", "99999", "f", "x"], "99999 is not a port"),
        (["--server", "a", "-p", "1", "f", "x"], "--server and -h or -p both name a server"),
        (["--context", "c", "-p", "1", "f", "x"], "all name servers: leave one out"),
        (["--context", "nope", "f", "x"], "there is no 'nope'; make it with `trigear context add"),
    ],
)
def test_mistake_is_one_line_that_says_what_to_do(
    args: list[str], says: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("submit", *args)
    assert said.status == Status.USAGE
    assert says in said.line


def test_bad_address_in_the_environment_is_named_with_its_variable(
    trigear: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIGEAR_SERVERS", "good:1, bad:port")
    said = trigear("submit", "f", "x")
    assert said.status == Status.USAGE
    assert said.line.startswith("trigear: error: TRIGEAR_SERVERS: 'bad:port' has no usable port")


def test_reader_who_has_seen_enough_is_not_complained_of(server: str) -> None:
    read, write = os.pipe()
    os.close(read)
    with plain_worker(server, upper=upper), os.fdopen(write, "wb") as out:
        done = subprocess.run(
            [*TRIGEAR, "submit", "upper", "x", "y"],
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"")


# With others


@pytest.mark.peers
def test_gearmands_and_gearmans_get_on_with_it(
    gearmand_c: ForeignServer, peer_tools: PeerTools, trigear: Callable[..., Said]
) -> None:
    server = ["-h", gearmand_c.host, "-p", str(gearmand_c.port)]
    with subprocess.Popen(
        [str(peer_tools.gearman), *server, "-w", "-f", "upper", "--", "tr", "a-z", "A-Z"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as worker:
        try:
            said = trigear("submit", *server, "upper", "a", "b")
            assert (said.status, said.out, said.err) == (0, "AB", "")
            said = trigear("submit", *server, "-b", "-I", "-u", "-", "later", "x")
            assert re.fullmatch(r"H:.+:\d+\n", said.out)
        finally:
            worker.terminate()
