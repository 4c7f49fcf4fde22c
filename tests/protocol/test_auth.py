"""The states of a login: every state with everything that may come in it."""

from __future__ import annotations

import pytest

from trigear.protocol import auth
from trigear.protocol.auth import ATTEMPTS, Login, Stage


def login(stage: Stage) -> Login:
    """One that has come to this state."""
    made = Login()
    made.asked = True
    if stage in (Stage.AUTH, Stage.REAUTH, Stage.EXPIRED):
        made.known()
    if stage is Stage.EXPIRED:
        made.expire()
    if stage in (Stage.EXCHANGE, Stage.REAUTH):
        assert made.start() is None
    if stage is Stage.CLOSING:
        made.close(auth.REQUIRED)
    assert made.stage is stage
    return made


CODES = {
    "request": {
        Stage.UNAUTH: "AUTHENTICATION_REQUIRED",
        Stage.EXCHANGE: "SASL_PROTOCOL_ERROR",
        Stage.EXPIRED: "AUTHENTICATION_EXPIRED",
        Stage.CLOSING: "AUTHENTICATION_REQUIRED",
    },
    "start": {
        Stage.EXCHANGE: "SASL_PROTOCOL_ERROR",
        Stage.REAUTH: "SASL_PROTOCOL_ERROR",
        Stage.CLOSING: "AUTHENTICATION_REQUIRED",
    },
    "respond": {
        Stage.UNAUTH: "SASL_PROTOCOL_ERROR",
        Stage.AUTH: "SASL_PROTOCOL_ERROR",
        Stage.EXPIRED: "SASL_PROTOCOL_ERROR",
        Stage.CLOSING: "SASL_PROTOCOL_ERROR",
    },
    "abort": {
        Stage.UNAUTH: "SASL_PROTOCOL_ERROR",
        Stage.EXCHANGE: "SASL_ABORTED",
        Stage.AUTH: "SASL_PROTOCOL_ERROR",
        Stage.REAUTH: "SASL_ABORTED",
        Stage.EXPIRED: "SASL_PROTOCOL_ERROR",
        Stage.CLOSING: "SASL_PROTOCOL_ERROR",
    },
}


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("what", CODES)
def test_t4_every_state_has_an_answer_to_everything(what: str, stage: Stage) -> None:
    made = login(stage)
    refusal = getattr(made, what)()
    assert (None if refusal is None else refusal.code) == CODES[what].get(stage)
    if refusal is not None and refusal.code != "SASL_ABORTED":
        assert refusal.closes
        assert made.stage is Stage.CLOSING


@pytest.mark.parametrize("stage", Stage)
def test_what_needs_no_login_is_refused_in_the_middle_of_one_and_after_the_end(
    stage: Stage,
) -> None:
    refused = login(stage).request(needs_login=False) is not None
    assert refused == (stage in (Stage.EXCHANGE, Stage.CLOSING))


def test_a_login_needs_a_peer_that_asked_for_it() -> None:
    made = Login()
    refusal = made.start()
    assert refusal is not None
    assert refusal.code == "SASL_PROTOCOL_ERROR"
    assert refusal.closes


def test_success_makes_somebody_known() -> None:
    made = login(Stage.EXCHANGE)
    assert made.succeeded(same=True) is None
    assert made.stage is Stage.AUTH
    assert not made.in_exchange


@pytest.mark.parametrize("before", [Stage.UNAUTH, Stage.AUTH, Stage.EXPIRED])
def test_a_failure_leaves_who_one_was_and_the_third_is_the_end(before: Stage) -> None:
    made = login(before)
    for number in range(1, ATTEMPTS + 1):
        assert made.start() is None
        refusal = made.failed(auth.FAILED)
        assert refusal.closes == (number == ATTEMPTS)
        assert made.stage is (Stage.CLOSING if refusal.closes else before)


def test_what_is_no_fault_of_the_peer_does_not_count() -> None:
    made = login(Stage.UNAUTH)
    for _ in range(2 * ATTEMPTS):
        assert made.start() is None
        assert not made.failed(auth.FAILED, counts=False).closes


def test_a_connection_does_not_become_somebody_elses() -> None:
    made = login(Stage.REAUTH)
    refusal = made.succeeded(same=False)
    assert refusal is not None
    assert (refusal.code, refusal.closes) == ("AUTHENTICATION_FAILED", True)
    assert made.stage is Stage.CLOSING


def test_time_may_run_out_during_another_login() -> None:
    made = login(Stage.REAUTH)
    made.expire()
    assert made.expired
    assert made.stage is Stage.REAUTH
    again = made.request()
    assert again is not None
    assert again.code == "AUTHENTICATION_EXPIRED"
    other = login(Stage.REAUTH)
    other.expire()
    assert other.succeeded(same=True) is None
    assert not other.expired
