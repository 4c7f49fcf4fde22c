"""Results in memcached, by a package of somebody else's that is found by its entry point."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.crash.process import DurableServer
from tests.elsewhere.promises import PROMISES, result
from tests.elsewhere.trigear_memcached import LARGEST, results
from tests.plain import Held, plain_worker
from trigear import connect_blocking
from trigear.errors import ConfigError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.elsewhere.conftest import Memcached
    from tests.elsewhere.trigear_memcached import MemcachedResults

PATIENCE = 30.0


@pytest.fixture
def store(memcached: Memcached) -> Iterator[MemcachedResults]:
    store = results(memcached.url)
    store.open()
    yield store
    store.close()


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_it_keeps_its_promises(
    store: MemcachedResults, promise: Callable[[MemcachedResults], None]
) -> None:
    promise(store)


def test_of_what_is_too_large_for_it_the_outcome_is_kept(store: MemcachedResults) -> None:
    store.put([result(data=b"x" * LARGEST)])
    (found,) = store.get([("default", b"H:1")])
    assert (found.state, found.data) == ("done", None)


def test_it_says_when_it_is_away_and_works_again_afterwards(
    store: MemcachedResults, memcached: Memcached
) -> None:
    memcached.stop()
    calls = (
        lambda: store.put([result()]),
        lambda: store.get([("default", b"H:1")]),
        lambda: store.find([("default", b"f", b"u")]),
        lambda: store.delete([("default", b"H:1")]),
    )
    for call in calls:
        with pytest.raises(StoreUnavailable, match="memcached unix:"):
            call()
    memcached.start()
    store.put([result()])
    assert len(store.get([("default", b"H:1")])) == 1


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("memcached://cache.example", "memcached cache.example:11211"),
        ("memcached://127.0.0.1:4711", "memcached 127.0.0.1:4711"),
        ("memcached:///run/m.sock", "memcached unix:/run/m.sock"),
    ],
)
def test_a_url_says_where_it_is(url: str, name: str) -> None:
    assert results(url).name == name


def test_a_url_without_a_place_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no memcached"):
        results("memcached:")


# With a server


class Keeping(DurableServer):
    """A server whose results go to memcached; function `f` keeps them, and reuses them."""

    def __init__(self, folder: Path, installed: Path, url: str) -> None:
        config = folder / "trigear.toml"
        config.write_text('[function.f]\nkeep-results = "1h"\nreuse-results = true\n')
        super().__init__(folder, options=["--config", str(config), "--results", url])
        self.url = f"unix:{self.path}"
        self._installed = installed

    def start(self) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(self._installed))
            return super().start()


def reverse(job: Held) -> None:
    job.complete(job.workload[::-1])


def test_a_result_goes_there_and_is_found_after_a_crash(
    tmp_path: Path, installed: Path, memcached: Memcached
) -> None:
    server = Keeping(tmp_path, installed, memcached.url)
    with server, connect_blocking(server.url, timeout=PATIENCE) as client:
        assert f"; results: memcached unix:{memcached.path}; pid " in server.lines[-1]
        handle = client.submit_background("f", b"abc", unique="u")
        with plain_worker(server.url, f=reverse):
            assert client.result(handle, wait=True).data == b"cba"
        wait_until_forgotten(client, memcached.url, handle)
        server.kill()
    with server, connect_blocking(server.url, timeout=PATIENCE) as client:
        assert client.admin("status") == ["later\t2\t0\t0"], "the job is not there any more"
        found = client.result(handle)
        assert (found.state, found.data) == ("done", b"cba")
        # No worker is there to do it again.
        assert client.submit("f", b"whatever", unique="u") == b"cba"
        assert client.submit_background("f", b"whatever", unique="u") == handle
        assert client.admin(f"drop result {handle.decode()}") == ["OK"]
        assert client.result(handle).known is False


def wait_until_forgotten(client, url: str, handle: bytes) -> None:
    """What waits for the store is told from memory; so look there, then have something written."""
    store = results(url)
    while not store.get([("default", handle)]):
        time.sleep(0.01)
    store.close()
    for _ in range(2):
        client.submit_background("later", b"", delay=3600)


def test_while_it_is_away_results_wait_and_jobs_are_not_forgotten(
    tmp_path: Path, installed: Path, memcached: Memcached
) -> None:
    server = Keeping(tmp_path, installed, memcached.url)
    memcached.stop()
    with server, connect_blocking(server.url, timeout=PATIENCE) as client:
        handle = client.submit_background("f", b"abc")
        with plain_worker(server.url, f=reverse):
            assert client.result(handle, wait=True).data == b"cba"
        server.kill()
    # It was not there yet: so the job is still there, and is done again.
    memcached.start()
    with server, connect_blocking(server.url, timeout=PATIENCE) as client:
        assert client.result(handle).state == "queued"
        with plain_worker(server.url, f=reverse):
            assert client.result(handle, wait=True).data == b"cba"
        wait_until_forgotten(client, memcached.url, handle)


def test_a_graceful_stop_waits_for_what_is_on_its_way(
    tmp_path: Path, installed: Path, memcached: Memcached
) -> None:
    server = Keeping(tmp_path, installed, memcached.url)
    with server, connect_blocking(server.url, timeout=PATIENCE) as client:
        handle = client.submit_background("f", b"abc")
        with plain_worker(server.url, f=reverse):
            client.result(handle, wait=True)
        server.stop()
    with server, connect_blocking(server.url, timeout=PATIENCE) as client:
        assert client.admin("status") == []
        assert client.result(handle).data == b"cba"


# What is said when it cannot be


def run(installed: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trigear", "server", "--check", *args],
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_check_names_the_place(installed: Path) -> None:
    done = run(installed, "--results", "memcached://cache.example")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("; results: memcached cache.example:11211\n")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "redis://cache.example",
            "results: no package here keeps results at 'redis:' URLs; there is memcached; install"
            " one that has an entry point 'redis' in the group trigear.results",
        ),
        ("memcached:", "results: 'memcached:' names no memcached; write memcached://HOST:PORT"),
    ],
)
def test_a_place_that_cannot_be_is_one_line(installed: Path, url: str, words: str) -> None:
    done = run(installed, "--results", url)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"trigear: error: {words}\n"
