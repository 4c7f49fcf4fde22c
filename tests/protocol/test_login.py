"""The client's side of a login, step by step, against servers of every kind."""

from __future__ import annotations

import pytest

from trigear.errors import LocalProtocolError, LoginFailed, LoginRefused
from trigear.protocol.asking import FENCE, AskingConnection
from trigear.protocol.client import ClientConnection
from trigear.protocol.events import (
    Broken,
    Challenged,
    Denied,
    Dismissed,
    Echoed,
    Expiring,
    LoggedIn,
    Offered,
    OptionSet,
    Refused,
)
from trigear.protocol.login import MOST_STEPS, ClientLogin, Entry, is_of_login
from trigear.protocol.worker import WorkerConnection
from trigear.wire.codec import request, response
from trigear.wire.packets import (
    CAN_DO,
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    NO_JOB,
    NOOP,
    OPTION_REQ,
    OPTION_RES,
    SASL_CHALLENGE,
    SASL_EXPIRING,
    SASL_MECHANISMS,
    SASL_OK,
    SASL_RESPONSE,
    SASL_START,
)

BOTH = pytest.mark.parametrize("column", [ClientConnection, WorkerConnection])

OFFER = (
    response(OPTION_RES, b"sasl")
    + response(SASL_MECHANISMS, b"ONE TWO", b"tls-server-end-point", b"1", b"")
    + response(ECHO_RES, FENCE)
)
WELCOME = response(SASL_OK, b"acme/alice", b"acme", b"submit,work", b"90000", b"proof")


class Mechanism:
    """A mechanism of three messages; the end is proved by the data `proof`."""

    mechanism = None

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.complete = False

    def choose_mechanism(self, offered) -> None:
        self.heard.append(tuple(offered))
        self.mechanism = "TWO"

    def process(self, challenge: bytes | None = None) -> bytes:
        self.heard.append(challenge)
        return b"first" if challenge is None else b"answer to " + challenge

    def finish(self, data: bytes) -> None:
        self.complete = data == b"proof"
        if not self.complete:
            raise LoginFailed("no proof")


class Talk:
    """A login, and what the server says to it."""

    def __init__(self, column: type[AskingConnection] = ClientConnection, tenant: str = "") -> None:
        self.machine = column()
        self.mechanism = Mechanism()
        self.login = ClientLogin(self.machine, self.mechanism, "jobs:4730", tenant)

    def hears(self, data: bytes) -> list[bytes]:
        """Take in bytes of the server; what is sent."""
        self.machine.receive(data)
        for event in self.machine.events():
            self.login.hear(event)
        if self.login.work is not None:
            self.login.worked(self.login.work())
        return self.machine.take()


@BOTH
def test_a_login_comes_before_anything_else_and_ends_with_the_proof(column) -> None:
    talk = Talk(column)
    assert talk.machine.take() == [request(OPTION_REQ, b"sasl"), request(ECHO_REQ, FENCE)]
    assert talk.hears(OFFER) == [request(SASL_START, b"TWO\0first")]
    assert talk.machine.extended
    assert talk.mechanism.heard == [("ONE", "TWO"), None]
    assert talk.hears(response(SASL_CHALLENGE, b"a\0b")) == [
        request(SASL_RESPONSE, b"answer to a\0b")
    ]
    assert talk.login.done is None
    assert talk.hears(WELCOME) == []
    assert talk.login.done == Entry("acme/alice", "acme", ("submit", "work"), 90.0)
    assert talk.machine.outstanding == 0


@BOTH
def test_an_operator_says_for_which_tenant_before_anything_else(column) -> None:
    talk = Talk(column, "labs")
    talk.hears(OFFER)
    talk.machine.take()
    assert talk.hears(WELCOME) == [request(OPTION_REQ, b"tenant=labs")]
    assert talk.login.done is None
    assert talk.hears(response(OPTION_RES, b"tenant=labs")) == []
    assert talk.login.done == Entry("acme/alice", "labs", ("submit", "work"), 90.0)
    refused = Talk(column, "labs")
    refused.hears(OFFER)
    refused.hears(WELCOME)
    with pytest.raises(LoginRefused, match="No such tenant"):
        refused.hears(response(ERROR, b"UNKNOWN_TENANT", b"No such tenant"))
    assert refused.login.done is None


def test_a_login_without_end_has_no_lifetime() -> None:
    talk = Talk()
    talk.hears(OFFER)
    talk.hears(response(SASL_OK, b"default/a\n", b"default", b"", b"0", b"proof"))
    assert talk.login.done == Entry("default/a\\x0a", "default", (), None)


@BOTH
@pytest.mark.parametrize(
    "said",
    [
        response(ERROR, b"UNKNOWN_OPTION", b"Server does not recognize given option"),
        response(ERROR, b"unknown_option", b""),
        b"",  # passes over what it does not know
        response(OPTION_RES, b"sasl"),  # says yes to everything
    ],
    ids=["gearmand", "Perl", "silent", "polite"],
)
def test_t7_a_server_without_logins_is_told_nothing(column, said: bytes) -> None:
    talk = Talk(column)
    talk.machine.take()
    with pytest.raises(LoginFailed, match=r"^jobs:4730 knows no logins: .*; name another server"):
        talk.hears(said + response(ECHO_RES, FENCE))
    assert talk.machine.take() == []
    assert talk.mechanism.heard == []


@pytest.mark.parametrize(
    ("code", "temporary", "words"),
    [
        (b"AUTHENTICATION_FAILED", False, "check name and password, the server's log says"),
        (b"AUTHENTICATION_TEMPORARY_FAILURE", True, "there were many failures"),
        (b"SASL_MECHANISM_UNAVAILABLE", False, r"\(SASL_MECHANISM_UNAVAILABLE\)$"),
    ],
)
@pytest.mark.parametrize("challenges", [0, 1])
def test_a_refusal_says_what_the_server_said(challenges, code, temporary, words) -> None:
    talk = Talk()
    talk.hears(OFFER)
    for _ in range(challenges):
        talk.hears(response(SASL_CHALLENGE, b"c"))
    with pytest.raises(
        LoginRefused, match=f"^jobs:4730 refuses the login: No! .*{words}"
    ) as raised:
        talk.hears(response(ERROR, code, b"No!"))
    assert (raised.value.code, raised.value.text) == (code.decode(), "No!")
    assert raised.value.temporary is temporary
    assert talk.login.done is None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (b"AUTHENTICATION_REQUIRED", "jobs:4730 serves nobody without a login: No"),
        (b"TLS_REQUIRED", "write gearmans://HOST:PORT"),
        (b"AUTHENTICATION_TIMEOUT", r"No \(AUTHENTICATION_TIMEOUT\)"),
    ],
)
def test_a_server_that_ends_it_before_it_began_is_not_taken_for_one_without_logins(
    code, words
) -> None:
    with pytest.raises(LoginRefused, match=words):
        Talk().hears(response(ERROR, code, b"No"))
    late = Talk()
    late.hears(OFFER)
    late.hears(WELCOME)
    with pytest.raises(LoginRefused, match=words):
        late.hears(response(ERROR, code, b"No"))


def test_t8_success_without_proof_is_none() -> None:
    talk = Talk()
    talk.hears(OFFER)
    with pytest.raises(LoginFailed, match="no proof"):
        talk.hears(response(SASL_OK, b"acme/alice", b"acme", b"", b"0", b""))
    assert talk.login.done is None


def test_a_server_that_asks_without_end_is_left() -> None:
    talk = Talk()
    talk.hears(OFFER)
    for _ in range(MOST_STEPS):
        assert talk.hears(response(SASL_CHALLENGE, b"more")) != []
    with pytest.raises(LoginFailed, match="asks on, although everything is said"):
        talk.hears(response(SASL_CHALLENGE, b"more"))
    talk = Talk()
    talk.hears(OFFER)
    talk.mechanism.complete = True  # as PLAIN is, which would say the password once more
    with pytest.raises(LoginFailed, match="asks on"):
        talk.hears(response(SASL_CHALLENGE, b"more"))


@pytest.mark.parametrize("number", [SASL_CHALLENGE, SASL_OK, SASL_MECHANISMS, SASL_EXPIRING])
def test_packets_of_logins_are_none_where_nobody_asked_for_them(number: int) -> None:
    machine = ClientConnection()
    machine.echo(b"")
    machine.receive(response(number, b"1", b"", b"", b"0", b""))
    (event,) = machine.events()
    assert isinstance(event, Broken)
    with pytest.raises(LocalProtocolError, match="SASL_START is no request of a client"):
        ClientConnection().start_login(b"PLAIN", b"secret")


@BOTH
def test_another_login_goes_on_beside_everything_else(column) -> None:
    talk = Talk(column)
    talk.hears(OFFER)
    talk.hears(WELCOME)
    talk.machine.receive(response(SASL_EXPIRING, b"18000"))
    assert talk.machine.events() == [Expiring(18.0)]
    echo = talk.machine.echo(b"x")
    again = ClientLogin(talk.machine, talk.mechanism, "jobs:4730")
    talk.machine.receive(response(ECHO_RES, b"x") + OFFER)
    mine, *others = talk.machine.events()
    assert mine == Echoed(echo, b"x")
    assert not is_of_login(mine)
    assert all(map(is_of_login, others))
    for event in others:
        again.hear(event)
    again.hear(mine)  # somebody else's
    talk.machine.receive(WELCOME)
    (event,) = talk.machine.events()
    again.hear(event)
    assert again.done is not None
    assert is_of_login(event)


def test_secrets_do_not_show() -> None:
    talk = Talk()
    token = talk.machine.echo(b"")
    assert "s3cret" not in repr(Challenged(token, b"s3cret"))
    assert "s3cret" not in repr(LoggedIn(token, "a", "b", (), None, b"s3cret"))


@pytest.mark.parametrize("abandoned", [False, True])
def test_a_last_word_that_answers_nothing_is_told(abandoned: bool) -> None:
    machine = ClientConnection()
    if abandoned:
        machine.abandon(machine.option(b"exceptions"))
    machine.receive(response(ERROR, b"AUTHENTICATION_EXPIRED", b"Session expired"))
    assert machine.events() == [Dismissed("AUTHENTICATION_EXPIRED", "Session expired")]
    if abandoned:
        # Any other is about what was asked, and nobody waits for that.
        machine.receive(response(ERROR, b"UNKNOWN_OPTION", b""))
        assert machine.events() == []
    else:
        machine.receive(response(ERROR, b"QUEUE_ERROR", b""))
        (event,) = machine.events()
        assert isinstance(event, Broken)


def test_a_last_word_in_answer_to_a_request_answers_it() -> None:
    machine = ClientConnection()
    token = machine.submit(b"f", b"")
    machine.receive(response(ERROR, b"AUTHENTICATION_REQUIRED", b"no"))
    assert machine.events() == [Refused(token, "AUTHENTICATION_REQUIRED", "no")]


def test_a_worker_that_may_not_offer_a_function_hears_so_and_stays_in_step() -> None:
    machine = WorkerConnection()
    machine.can_do(b"f")
    machine.grab()
    assert machine.take()[0] == request(CAN_DO, b"f")
    machine.receive(response(ERROR, b"PERMISSION_DENIED", b"Permission denied"))
    machine.receive(response(NO_JOB) + response(NOOP))
    assert machine.events()[0] == Denied("PERMISSION_DENIED", "Permission denied")
    assert machine.closing is None
    assert machine.outstanding == 0


def test_events_of_the_option_and_the_offer_are_of_logins() -> None:
    machine = ClientConnection()
    option, fence = machine.ask_for_logins()
    machine.receive(OFFER)
    assert machine.events() == [
        OptionSet(option, b"sasl"),
        Offered(("ONE", "TWO"), ("tls-server-end-point",), ""),
        Echoed(fence, FENCE),
    ]
