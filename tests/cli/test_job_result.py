"""`trigear job result`: what became of a job, and its result."""

from __future__ import annotations

import datetime
import json
import threading
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import PATIENCE, TRIGEAR
from tests.plain import Held, plain_worker, scripted_server, server_in_thread
from trigear import connect_blocking
from trigear.cli.report import Status
from trigear.cli.root import run_trigear
from trigear.engine.config import EngineConfig, FunctionSettings, ServerConfig
from trigear.testing import open_server_in_thread
from trigear.wire import packets
from trigear.wire.codec import response

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Running, Said
    from trigear import BlockingClient

FORGOTTEN = "it never was, or was over so long ago that it is forgotten"


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that keeps the results of function `mail`, named by the environment."""
    engine = EngineConfig(functions={b"mail": FunctionSettings(keep_results=3600.0)})
    with open_server_in_thread(ServerConfig(engine, listen=("127.0.0.1",), port=0)) as server:
        monkeypatch.setenv("TRIGEAR_SERVERS", server.addresses[0])
        yield server.addresses[0]


@pytest.fixture
def client(keeping: str) -> Iterator[BlockingClient]:
    with connect_blocking(keeping, timeout=PATIENCE) as client:
        yield client


def ended(client: BlockingClient, work: Callable[[Held], None], function: str = "mail") -> str:
    """A background job that a worker has dealt with; its handle."""
    handle = client.submit_background(function, b"work").decode()
    with plain_worker(str(client.address), **{function: work}):
        client.result(handle, wait=True)
    return handle


def test_a_kept_result_comes_out_as_it_is(
    client: BlockingClient, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    handle = ended(client, lambda job: job.complete(b"\x00\xffraw"))
    assert run_trigear(("job", "result", handle)) == 0
    assert capfdbinary.readouterr() == (b"\x00\xffraw", b"")


def test_as_json_with_everything_that_is_known(
    client: BlockingClient, trigear: Callable[..., Said]
) -> None:
    handle = ended(client, lambda job: job.complete(b"done"))
    said = trigear("job", "result", "--json", handle)
    document = json.loads(said.out)
    moment = datetime.datetime.fromisoformat(document.pop("ended"))
    assert abs((datetime.datetime.now(datetime.UTC) - moment).total_seconds()) < 3600
    assert (said.status, document) == (
        0,
        {
            "handle": handle,
            "state": "done",
            "attempts": 1,
            "data": "done",
            "encoding": "utf-8",
            "server": str(client.address),
        },
    )


@pytest.mark.parametrize(
    ("work", "why"),
    [
        (Held.fail, "ended without success: failed"),
        (lambda job: job.exception(b"bang"), "raised an exception: bang"),
        (lambda job: job.exception(b""), "raised an exception: what it said is not kept"),
    ],
)
def test_a_job_that_did_not_succeed_is_status_1(
    client: BlockingClient,
    trigear: Callable[..., Said],
    work: Callable[[Held], None],
    why: str,
) -> None:
    handle = ended(client, work)
    said = trigear("job", "result", handle)
    assert (said.status, said.out) == (Status.NO, "")
    assert said.line == f"trigear: error: job {handle} {why}"
    assert trigear("job", "result", "--json", handle).status == Status.NO


def test_a_result_that_was_not_kept_is_told_with_what_to_do(
    client: BlockingClient, trigear: Callable[..., Said]
) -> None:
    handle = ended(client, lambda job: job.complete(b"done"), "other")
    said = trigear("job", "result", handle)
    assert said.status == Status.NO
    assert said.line == (
        f"trigear: error: job {handle} is done, and its result was not kept:"
        " set keep-results for its function"
    )
    said = trigear("job", "result", "--json", handle)
    assert json.loads(said.out)["data"] is None


def test_a_job_that_is_not_over_is_not_waited_for_unless_asked(
    client: BlockingClient, trigear: Callable[..., Said]
) -> None:
    handle = client.submit_background("mail", b"").decode()
    said = trigear("job", "result", handle)
    assert said.status == Status.NO
    assert said.line == f"trigear: error: job {handle} is queued: --wait waits until it is over"
    timer = threading.Event()

    def late(job: Held) -> None:
        assert timer.wait(PATIENCE)
        job.complete(b"late")

    with plain_worker(str(client.address), mail=late):
        release = threading.Timer(0.2, timer.set)
        release.start()
        said = trigear("job", "result", "--wait", handle)
        release.join()
    assert (said.status, said.out) == (0, "late")


def test_a_deadline_ends_the_waiting(client: BlockingClient, trigear: Callable[..., Said]) -> None:
    handle = client.submit_background("mail", b"").decode()
    said = trigear("job", "result", "--deadline", "200ms", handle)
    assert said.status == Status.TOO_LATE
    assert said.line == f"trigear: error: job {handle} is not over after 0.2 s; it goes on"
    assert client.status(handle).known


def test_a_job_that_nobody_knows_is_status_1(server: str, trigear: Callable[..., Said]) -> None:
    said = trigear("job", "result", "--wait", "H:nobody:1")
    assert (said.status, said.out) == (Status.NO, "")
    assert said.line == f"trigear: error: no job H:nobody:1: {FORGOTTEN}"
    said = trigear("job", "result", "--json", "H:nobody:1")
    assert json.loads(said.out) == {
        "handle": "H:nobody:1",
        "state": "unknown",
        **dict.fromkeys(("attempts", "ended", "data", "encoding", "server")),
    }


def test_a_schedule_is_no_job(client: BlockingClient, trigear: Callable[..., Said]) -> None:
    (answer,) = client.admin("schedule add f @hourly")
    handle = answer.removeprefix("OK ")
    said = trigear("job", "result", "--wait", handle)
    assert said.status == Status.NO
    assert said.line == (
        f"trigear: error: {handle} is a schedule: its runs are jobs with handles of their own"
    )


def test_every_server_is_asked(client: BlockingClient, trigear: Callable[..., Said]) -> None:
    handle = ended(client, lambda job: job.complete(b"done"))
    with server_in_thread() as (other,):
        servers = ["--server", "127.0.0.1:1", "--server", other, "--server", str(client.address)]
        assert trigear("job", "result", *servers, handle).out == "done"
        assert trigear("job", "result", *servers, "H:nobody:1").status == Status.NO


def test_no_server_is_status_3(nowhere: str, trigear: Callable[..., Said]) -> None:
    assert trigear("job", "result", "H:x:1").status == Status.NO_SERVER


def other_server(link: socket.socket) -> None:
    """As a server that is not trigear greets."""
    stream = link.makefile("rb")
    for reply in (
        response(packets.OPTION_RES, b"exceptions"),
        response(packets.ERROR, b"UNKNOWN_OPTION", b"what?"),
        response(packets.ECHO_RES, b""),
    ):
        head = stream.read(12)
        stream.read(int.from_bytes(head[8:]))
        link.sendall(reply)
    stream.close()


def test_a_server_that_is_not_trigear_is_named(trigear: Callable[..., Said]) -> None:
    with scripted_server(other_server) as address:
        said = trigear("job", "result", "--server", address, "H:x:1")
    assert said.status == Status.NO
    assert said.line == (
        f"trigear: error: {address} knows nothing of jobs that are over:"
        " it does not speak trigear's extended mode"
    )


def test_beside_others_it_is_passed_over(server: str, trigear: Callable[..., Said]) -> None:
    with scripted_server(other_server) as address:
        said = trigear("job", "result", "--server", address, "--server", server, "H:x:1")
    assert said.status == Status.NO
    assert said.err.splitlines() == [
        f"trigear: not asked: {address} knows nothing of jobs that are over:"
        " it does not speak trigear's extended mode",
        f"trigear: error: no job H:x:1: {FORGOTTEN}",
    ]


def test_a_result_is_there_after_a_restart(
    start: Callable[..., Running], trigear: Callable[..., Said], tmp_path: Path
) -> None:
    config = tmp_path / "trigear.toml"
    config.write_text('[function.mail]\nkeep-results = "1h"\n')
    options = ["--config", str(config), "--state-dir", str(tmp_path / "state"), "--port", "0"]
    command = [*TRIGEAR, "server", "--listen", "127.0.0.1", *options]
    server = start(*command)
    with connect_blocking(server.address, timeout=PATIENCE) as client:
        handle = ended(client, lambda job: job.complete(b"kept"))
        # What is submitted later is written later: then the result is on the disk as well.
        client.submit_background("later", b"")
    server.kill()
    server = start(*command)
    said = trigear("job", "result", "--server", server.address, handle)
    assert (said.status, said.out) == (0, "kept")


def test_a_result_that_is_dropped_is_gone(
    client: BlockingClient, trigear: Callable[..., Said]
) -> None:
    handle = ended(client, lambda job: job.complete(b"small"))
    said = trigear("job", "drop-result", handle)
    assert (said.status, said.line) == (Status.DONE, f"trigear: dropped: {handle}")
    said = trigear("job", "drop-result", handle, "H:never:1")
    assert said.status == Status.NO
    assert said.err.splitlines() == [
        f"trigear: no result is kept of {handle}",
        "trigear: no result is kept of H:never:1",
    ]
