"""Every transcript in this folder, played on the engine, on the server over socket pairs and on
Debian's gearmand."""

from __future__ import annotations

import itertools
import queue
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.conftest import free_port
from trigear.engine.config import ServerConfig
from trigear.runtime.server import Server, serve
from trigear.testing.backends import (
    EngineBackend,
    SocketBackend,
    engine_config,
    gearmand_options,
)
from trigear.testing.transcript import Transcript, play, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.conftest import PeerTools

FOLDER = Path(__file__).parent
TRANSCRIPTS = [
    read(path.read_text(encoding="utf-8"), path.name) for path in sorted(FOLDER.glob("*.txt"))
]


def for_side(side: str) -> pytest.MarkDecorator:
    """Parametrize with the transcripts that are played there."""
    played = [
        transcript
        for transcript in TRANSCRIPTS
        if side == "engine"
        or (transcript.only != "engine" and (side == "trigear" or not transcript.only))
    ]
    return pytest.mark.parametrize(
        "transcript", played, ids=[Path(transcript.path).stem for transcript in played]
    )


def test_there_are_transcripts_and_their_titles_differ() -> None:
    assert len({transcript.title for transcript in TRANSCRIPTS}) == len(TRANSCRIPTS) >= 40


@for_side("engine")
@pytest.mark.parametrize("step", [0, 1, 13], ids=["whole", "byte by byte", "in thirteens"])
def test_on_the_engine(transcript: Transcript, step: int) -> None:
    play(transcript, EngineBackend(transcript.settings, step=0 if transcript.whole else step))


# The server, with its hub, over socket pairs


@contextmanager
def server_in_a_thread(settings: Mapping[str, str]) -> Iterator[Callable[[], socket.socket]]:
    """A server without listeners; yields what makes connections to it."""
    started: queue.Queue[tuple[Server, trio.lowlevel.TrioToken]] = queue.Queue()

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            config = ServerConfig(engine=engine_config(settings))
            server: Server = await nursery.start(serve, config, [])
            started.put((server, trio.lowlevel.current_trio_token()))

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    server, token = started.get(timeout=20)

    def dial() -> socket.socket:
        near, far = socket.socketpair()
        trio.from_thread.run_sync(server._hub.add, far, "127.0.0.1", trio_token=token)
        return near

    try:
        yield dial
    finally:
        trio.from_thread.run_sync(server.stop, trio_token=token)
        thread.join(20)
        assert not thread.is_alive()


@for_side("trigear")
def test_on_the_server_over_socket_pairs(transcript: Transcript) -> None:
    with server_in_a_thread(transcript.settings) as dial:
        backend = SocketBackend("trigear", dial)
        try:
            play(transcript, backend)
        finally:
            backend.close()


# Debian's gearmand


@contextmanager
def gearmand_running(
    program: Path, options: list[str], folder: Path
) -> Iterator[Callable[[], socket.socket]]:
    """A gearmand 1.1; yields what makes connections to it."""
    port = free_port()
    process = subprocess.Popen(
        [
            program,
            f"--port={port}",
            "--listen=127.0.0.1",
            "--threads=1",
            f"--log-file={folder}/log",
            f"--pid-file={folder}/pid",
            *options,
        ],
        stdin=subprocess.DEVNULL,
    )

    def dial() -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), timeout=20)

    try:
        for attempt in itertools.count():
            try:
                dial().close()
                break
            except ConnectionRefusedError:
                assert attempt < 1000
                assert process.poll() is None
                time.sleep(0.02)
        yield dial
    finally:
        process.kill()
        process.wait()


@pytest.mark.peers
@for_side("1.1")
def test_on_gearmand(transcript: Transcript, peer_tools: PeerTools, tmp_path: Path) -> None:
    options = gearmand_options(transcript.settings)
    assert options is not None, "gearmand has no such settings: mark the transcript `only: trigear`"
    with gearmand_running(peer_tools.gearmand, options, tmp_path) as dial:
        backend = SocketBackend("1.1", dial)
        try:
            play(transcript, backend)
        finally:
            backend.close()
