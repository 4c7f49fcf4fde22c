"""That a certificate or a revocation list of the server ends is told in time, again and again."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import trio

from tests.security.certificates import DAY, Authority
from trigear.runtime import expiry
from trigear.runtime.expiry import mind_the_ends
from trigear.security.tls import ClientCertificates, Listening, ServerTLS

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

HALF = DAY / 2


def listening(folder: Path, certificate: float, crl: float) -> Listening:
    """A server's files that are good for so many days and a half."""
    authority = Authority()
    files = authority.server(expires=certificate * DAY + HALF).write(folder, "server")
    (folder / "ca.pem").write_bytes(authority.pem)
    (folder / "crl.pem").write_bytes(authority.crl(expires=crl * DAY + HALF))
    more = (str(folder / "ca.pem"), str(folder / "crl.pem"))
    return Listening(ServerTLS(*files, ClientCertificates.REQUIRED, *more), time.time())


async def test_what_ends_soon_is_told_every_day_and_what_does_not_is_not(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    began = time.time()
    wall = expiry.now
    # The wall clock goes on with the other one.
    monkeypatch.setattr(
        expiry, "now", lambda: wall()._replace(wall=began + trio.current_time() - start)
    )
    start = trio.current_time()
    tls = {"": listening(tmp_path, 14, 1)}
    with trio.move_on_after(2.7 * expiry.DAY):
        await mind_the_ends(tls)
    crl, server = tmp_path / "crl.pem", tmp_path / "server.pem"
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", f"{crl} ends in 1 day: then no client certificate is accepted"),
        ("WARNING", f"{server} ends in 13 days: then clients refuse this server"),
        ("WARNING", f"{crl} ends in 0 days: then no client certificate is accepted"),
        ("WARNING", f"{server} ends in 12 days: then clients refuse this server"),
        ("ERROR", f"{crl} has ended: no client certificate is accepted"),
    ]


async def test_what_was_renewed_is_told_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    caplog.set_level(logging.INFO)
    old = listening(tmp_path, 3, 10)
    assert len(old.ends) == 2
    tls = {"": old}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mind_the_ends, tls)
        await trio.sleep(1)
        assert len(caplog.records) == 2
        fresh = listening(tmp_path, 25, 25)
        old.reload(time.time(), fresh.settings)
        await trio.sleep(expiry.DAY)
        assert len(caplog.records) == 2
        nursery.cancel_scope.cancel()
