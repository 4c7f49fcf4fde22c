"""What can be told by the clock, measured: names that nobody has, passwords that keep a server
busy, connections that say nothing. Run as ``python -m tests.security.timing``: half a minute.

The ordinary tests compare the calls that are made, with clocks of their own; times depend on the
machine and on what else it does. Exit status 1: a figure is out of its bound.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from tests.runtime.calling import Caller, beside
from tests.security.chance import dice
from tests.security.logins import NOW, PENCIL, SALT, UNBOUND, authenticator
from trigear.engine.config import ServerConfig
from trigear.engine.doors import Way
from trigear.engine.logins import Logins
from trigear.runtime.address import parse_address
from trigear.runtime.link import open_stream
from trigear.runtime.server import open_server
from trigear.security.mechs import Authenticator, Challenge, LoginSettings
from trigear.security.scram import SHA_256, ScramClient, Verifier
from trigear.security.throttle import Throttle
from trigear.security.users import Users

if TYPE_CHECKING:
    from collections.abc import Callable

TRIES: Final = 5_000
STRETCHES: Final = 200
PARALLEL: Final = 500
SILENT: Final = 300
LATE: Final = 0.1
"""Seconds by which 99 of 100 echoes may be late while passwords are checked."""

_failed: list[str] = []


def report(threat: str, what: str, figure: str, *, good: bool) -> None:
    """Print a figure."""
    print(f"{threat}: {what}: {figure}{'' if good else '  OUT OF BOUNDS'}", flush=True)
    if not good:
        _failed.append(threat)


def medians(tries: int, *actions: Callable[[], object]) -> list[float]:
    """How long each takes, in seconds, tried in turns so that what else goes on hits all alike."""
    times: list[list[float]] = [[] for _ in actions]
    order = list(range(len(actions)))
    gc.disable()
    for _ in range(tries):
        random.shuffle(order)
        for which in order:
            start = time.perf_counter()
            actions[which]()
            times[which].append(time.perf_counter() - start)
    gc.enable()
    return [statistics.median(each) for each in times]


def scram_login(name: str) -> Callable[[], object]:
    """The server's part of a login with a wrong password."""
    server = authenticator()
    cache: dict[tuple[str, bytes, int], bytes] = {}
    client = ScramClient(SHA_256, name, b"wrong", b"clientnonce", cache=cache)
    first = client.first()

    def login() -> object:
        server.throttle = Throttle(())
        exchange = server.begin("SCRAM-SHA-256", UNBOUND, NOW)
        challenge = exchange.step(first, NOW)
        assert isinstance(challenge, Challenge)
        # A proof of the right form: it is wrong, whoever the user is.
        nonce = challenge.data.split(b",")[0]
        proof = b"c=biws," + nonce + b",p=" + b"A" * 43 + b"="
        return exchange.step(proof, NOW)

    return login


def plain_login(name: str) -> Callable[[], object]:
    """The same by PLAIN, stretching included."""
    server = authenticator()

    def login() -> object:
        server.throttle = Throttle(())
        exchange = server.begin("PLAIN", UNBOUND, NOW)
        outcome = exchange.step(f"\0{name}\0wrong".encode(), NOW)
        return exchange.verified(outcome.work(), NOW)  # type: ignore[union-attr]

    return login


def names() -> None:
    """T14: whether a name is somebody's."""
    known, unknown = medians(TRIES, scram_login("alice"), scram_login("nobody"))
    apart = abs(known - unknown) * 1e6
    report(
        "T14",
        f"SCRAM with a wrong password, medians of {TRIES}",
        f"known {known * 1e6:.1f} µs, unknown {unknown * 1e6:.1f} µs, apart {apart:.2f} µs",
        good=apart < 5,
    )
    known, unknown = medians(STRETCHES, plain_login("alice"), plain_login("nobody"))
    apart = abs(known / unknown - 1) * 100
    report(
        "T14",
        f"PLAIN with a wrong password, medians of {STRETCHES}",
        f"known {known * 1e3:.2f} ms, unknown {unknown * 1e3:.2f} ms, apart {apart:.1f} %",
        good=apart < 5,
    )


def logins(iterations: int) -> Logins:
    """A server's users: alice, whose password takes so many iterations, and bob."""
    slow = Verifier(SHA_256, iterations, SALT, PENCIL.stored_key, PENCIL.server_key)
    users = Users.parse(
        f"""
version = 1
[users.alice]
scram = ["{slow.text()}"]
[users.bob]
roles = ["submit"]
scram = ["{PENCIL.text()}"]
unix_uids = [{os.getuid()}]
"""
    )
    settings = Authenticator(users, LoginSettings(), Throttle(), bytes(32), dice())
    return Logins(settings, [Way.SASL])


async def passwords(folder: Path) -> None:
    """T17: 500 who send passwords at once, 600,000 iterations each."""
    late: list[float] = []
    answers: list[bytes] = []

    async def ask(address: str) -> None:
        async with await open_stream(parse_address(address)) as stream:
            caller = Caller(stream)
            await caller.ask("OPTION_REQ", b"sasl")
            await caller.hears()
            said = await caller.ask("SASL_START", b"PLAIN\0\0alice\0guess")
            answers.append(said[1])

    async def tick(caller: Caller) -> None:
        while True:
            start = trio.current_time()
            await caller.ask("ECHO_REQ", b"?")
            late.append(trio.current_time() - start)
            await trio.sleep(0.01)

    config = beside(folder)
    async with open_server(config, logins=logins(600_000)) as server:
        address = server.addresses[0]
        async with await open_stream(parse_address(address)) as stream:
            caller = Caller(stream)
            await caller.ask("OPTION_REQ", b"sasl")
            await caller.hears()
            assert (await caller.ask("SASL_START", b"EXTERNAL\0"))[0] == "SASL_OK"
            with trio.move_on_after(8):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(tick, caller)
                    await trio.sleep(1)
                    quiet = sorted(late)
                    late.clear()
                    for _ in range(PARALLEL):
                        nursery.start_soon(ask, address)
    refused = answers.count(b"AUTHENTICATION_TEMPORARY_FAILURE")
    late.sort()
    worst = late[len(late) * 99 // 100]
    report(
        "T17",
        f"echoes while {PARALLEL} passwords at 600,000 iterations are offered",
        f"median {statistics.median(late) * 1e3:.1f} ms, p99 {worst * 1e3:.1f}"
        f" ms, latest {late[-1] * 1e3:.1f} ms (before: latest {quiet[-1] * 1e3:.1f} ms);"
        f" {refused} sent away",
        good=worst < LATE and refused > PARALLEL // 3,
    )


async def silence() -> None:
    """T21: 300 connections of one address that say nothing."""
    where = "127.0.0.1:0"
    config = ServerConfig(listen=(where,), limit_exempt=())
    ended: list[float] = []

    async def be_silent(address: tuple[str, int]) -> None:
        with trio.socket.socket() as sock:
            await sock.bind(("127.0.0.2", 0))
            await sock.connect(address)
            start = trio.current_time()
            with trio.move_on_after(30):
                try:
                    while await sock.recv(4096):
                        pass
                except OSError:
                    pass
            ended.append(trio.current_time() - start)

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_server(config, logins=logins(4096)))
        address = parse_address(server.addresses[0])
        async with trio.open_nursery() as nursery:
            for _ in range(SILENT):
                nursery.start_soon(partial(be_silent, (address.host, address.port)))
            await trio.sleep(0.5)
            start = trio.current_time()
            async with await open_stream(address) as stream:
                assert (await Caller(stream).ask("ECHO_REQ", b"?"))[0] == "ECHO_RES"
            served = trio.current_time() - start
    report(
        "T21",
        f"{SILENT} silent connections of one address",
        f"all gone after {max(ended):.1f} s, {sum(each < 5 for each in ended)} of them at once;"
        f" another address is answered meanwhile in {served * 1e3:.0f} ms",
        good=max(ended) < 16 and served < 1,
    )


def main() -> int:
    """Measure all of it."""
    logging.disable(logging.CRITICAL)
    names()
    with tempfile.TemporaryDirectory() as folder:
        trio.run(passwords, Path(folder))
    trio.run(silence)
    return bool(_failed)


if __name__ == "__main__":
    sys.exit(main())
