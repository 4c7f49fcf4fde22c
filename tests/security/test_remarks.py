"""What is remarked about a users file, and that a sound one is passed over in silence."""

from __future__ import annotations

import pytest

from trigear.security.remarks import remarks
from trigear.security.scram import SHA_512, Verifier
from trigear.security.users import Users

NOW = 1_800_000_000.0  # 2027-01-15
SALT = bytes(16)


def scram(*verifiers):
    return f"scram = [{', '.join(repr(verifier.text()) for verifier in verifiers)}]\n"


WORD = Verifier.derive("word", SALT, 4096)
PASSWORD = scram(WORD)


def about(text):
    return remarks(Users.parse("version = 1\n" + text), NOW)


def test_a_sound_file_causes_no_remark():
    assert about("") == []
    assert (
        about(
            f"""
            [users.alice]
            {PASSWORD}
            roles = ["submit", "work"]
            submit = ["mail.*"]
            serves = ["acme"]
            may_act_as = ["bob"]
            not_after = 2030-01-01T00:00:00Z
            [users.bob]
            unix_uids = [7]
            [users.carol]
            certs = ["cn:carol"]
            [users.dave]
            disabled = true
            not_after = 2020-01-01T00:00:00Z
            [users.eve]
            scram = ["{WORD.text()}", "{Verifier.derive("old", SALT, 4096).text()}"]
            old_until = 2030-01-01T00:00:00Z
            """
        )
        == []
    )


@pytest.mark.parametrize(
    ("settings", "remark"),
    [
        (
            "",
            "alice: can log in only by a certificate that names trigear://default/alice; give it "
            "a password, a certificate or a system user",
        ),
        ("submit = ['x']", "alice: has submit globs without the role submit; add the role"),
        ("work = ['x']", "alice: has work globs without the role work; add the role"),
        (
            "roles = ['work']\nwork = ['[a-z]*']",
            "alice: in the glob '[a-z]*' only * and ? are special; is that meant?",
        ),
        ("serves = ['x']", "alice: serves tenants without the role work; add the role"),
        (
            "not_after = 2026-01-01T00:00:00Z",
            "alice: its time is over; remove it or set another not_after",
        ),
        (
            "old_until = 2026-01-01T00:00:00Z",
            "alice: the replaced password is no longer good; remove it and old_until",
        ),
        ("may_act_as = ['eve']", "alice: may act as eve, who does not exist"),
    ],
)
def test_an_oddity_of_a_user_is_remarked(settings, remark):
    assert about(f"[users.alice]\n{PASSWORD if settings else ''}{settings}") == [remark]


def test_a_salt_of_another_length_is_remarked_once():
    odd = Verifier.derive("word", bytes(20), 4096)
    assert about(f"[users.alice]\n{scram(odd)}") == [
        "alice: has a salt of 20 bytes where others have 16; set the password anew"
    ]


def test_names_that_look_alike_are_remarked():
    text = f"[users.Alice]\n{PASSWORD}[users.alice]\n{PASSWORD}[users.bob]\n{PASSWORD}"
    assert about(text) == [
        "Alice and alice: differ in the size of letters only; rename all but one"
    ]


def test_a_hash_that_some_lack_is_remarked():
    long = Verifier.derive("word", SALT, 4096, SHA_512)
    text = f"[users.alice]\n{scram(WORD, long)}[users.bob]\n{PASSWORD}[users.carol]\nunix_uids=[7]"
    assert about(text) == [
        "bob: no SCRAM-SHA-512 verifier, so that it is offered to nobody; set these passwords anew"
    ]


def test_iterations_that_give_a_user_away_are_remarked():
    human = Verifier.derive("word", SALT, 5000)
    text = f"[users.a]\n{PASSWORD}[users.b]\n{PASSWORD}[users.c]\n{scram(human)}"
    assert about(text) == ["c: the only one with 5000 iterations, which can be seen"]
