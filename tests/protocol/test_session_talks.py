"""Talks about connections, and with the server itself."""

from __future__ import annotations

import pytest

from tests.protocol.test_talks import hold
from trigear.errors import Refused, RemoteProtocolError
from trigear.protocol import session_talks
from trigear.protocol.session_talks import SessionStatus, TenantQuota, WhoAmI


def test_sessions_are_listed() -> None:
    full = "7\tacme/ann\tacme\tPLAIN\t10.0.0.1\tTLSv1.3\t5\t60\t1\t2\t3\tme"
    bare = "8\t-\t-\t-\t-\t-\t0\t-\t0\t0\t0\t-"
    assert hold(session_talks.sessions(), ("sessions", [full, bare])) == [
        SessionStatus(7, "acme/ann", "acme", "PLAIN", "10.0.0.1", "TLSv1.3", 5, 60, 1, 2, 3, "me"),
        SessionStatus(8, None, None, None, None, None, 0, None, 0, 0, 0, None),
    ]


@pytest.mark.parametrize("line", ["7\tacme", "x" + "\t-" * 11])
def test_lines_that_make_no_sense_are_an_error(line: str) -> None:
    with pytest.raises(RemoteProtocolError):
        hold(session_talks.sessions(), ("sessions", [line]))


def test_quotas_are_listed() -> None:
    lines = ["acme\tmax-queued-jobs\t5\t10\t3", "acme\tmax-job-bytes\t-\t0\t0"]
    assert hold(session_talks.tenants(), ("tenants", lines)) == [
        TenantQuota("acme", "max-queued-jobs", 5, 10, 3),
        TenantQuota("acme", "max-job-bytes", None, 0, 0),
    ]


def test_one_is_ended_or_not_there() -> None:
    assert hold(session_talks.end_session(7), ("session end 7", ["OK"]))
    unknown = Refused("UNKNOWN_SESSION", "No such session")
    assert not hold(session_talks.end_session(7), ("session end 7", unknown))
    with pytest.raises(Refused):
        hold(session_talks.end_session(7), ("session end 7", Refused("PERMISSION_DENIED", "")))


def test_who_one_is() -> None:
    line = "OK acme/ann acme submit,work PLAIN"
    assert hold(session_talks.whoami(), ("whoami", [line])) == (
        WhoAmI("acme/ann", "acme", ("submit", "work"), "PLAIN")
    )
    assert hold(session_talks.whoami(), ("whoami", ["OK - - - -"])) == WhoAmI(None, None, (), None)
    with pytest.raises(RemoteProtocolError):
        hold(session_talks.whoami(), ("whoami", ["OK"]))


def test_what_is_asked_of_the_server() -> None:
    assert hold(session_talks.reload(), ("reload", ["OK"])) is None
    assert hold(session_talks.drain(), ("drain", ["OK"])) is None
    assert hold(session_talks.shutdown(), ("shutdown", ["OK"])) is None
