"""What `users.toml` may say, and what it means."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trigear.errors import ConfigError
from trigear.security.policy import EVERY, Identity, Matcher, Role
from trigear.security.scram import SHA_256, SHA_512, Verifier, matching
from trigear.security.users import PLAIN, Users

SALT = bytes(range(16))
NEW = Verifier.derive("new", SALT, 4096)
OLD = Verifier.derive("old", SALT, 4096)
LONG = Verifier.derive("new", SALT, 4096, SHA_512)
SECRET = bytes(range(32))
NOW = 1_800_000_000.0  # 2027-01-15
SCRAM = SHA_256.mechanism

ALICE = f"""
version = 1
[users.alice]
tenant = "acme"
roles = ["submit", "work"]
submit = ["resize", "mail.*"]
work = ["resize"]
serves = ["acme", "beta"]
scram = ["{NEW.text()}", "{OLD.text()}"]
old_until = 2027-06-30T00:00:00Z
certs = ["uri:trigear://acme/alice", "sha256:{"0a" * 32}", "cn:Alice", "dns:a.example"]
unix_uids = [1001, 1002]
may_act_as = ["bob"]
not_after = 2030-01-01T00:00:00+01:00
[users.bob]
"""


def users(*lines):
    return Users.parse("version = 1\n" + "\n".join(lines))


def with_password(name, verifier, *more):
    return "\n".join([f"[users.{name}]", f'scram = ["{verifier.text()}"]', *more])


def test_a_user_is_what_the_file_says():
    alice = Users.parse(ALICE).get("alice")
    assert alice is not None
    assert alice.principal == "acme/alice"
    assert alice.roles == {Role.SUBMIT, Role.WORK}
    assert alice.submit == Matcher(["resize", "mail.*"])
    assert alice.work == Matcher(["resize"])
    assert alice.serves == ("acme", "beta")
    assert alice.verifiers[SCRAM] == (NEW, OLD)
    assert alice.verifiers[PLAIN] == (NEW, OLD)
    assert alice.uids == (1001, 1002)
    assert alice.certificates[0] == "uri:trigear://acme/alice"
    assert alice.may_act_as == ("bob",)
    assert alice.not_after == 1_893_452_400.0


def test_a_user_of_whom_nothing_is_said_may_do_nothing():
    bob = Users.parse(ALICE).get("bob")
    assert bob is not None
    assert bob.principal == "default/bob"
    assert bob.roles == frozenset()
    assert bob.submit == bob.work == EVERY
    assert bob.verifiers == {}
    assert not bob.disabled
    assert bob.not_after is None


def test_a_file_without_users_is_a_file():
    assert len(users()) == 0
    assert len(Users.parse(ALICE)) == 2
    assert [user.name for user in Users.parse(ALICE)] == ["alice", "bob"]
    assert users().get("alice") is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("version = 1\n[", "users.toml: no TOML"),
        ("", "users.toml: version: None is no version"),
        ("version = 2", "users.toml: version: 2 is no version"),
        ("version = 1\nquotas = 1", "users.toml: quotas: there is no such setting"),
        ("version = 1\nusers = 1", "users.toml: users: no table"),
        ("version = 1\nusers.alice = 1", "users.alice: no table"),
        ('version = 1\n[users."a b"]', "users.a b: no user name"),
        ('version = 1\n[users."-a"]', "users.-a: no user name"),
        ('version = 1\n[users."a/b"]', "users.a/b: no user name"),
        (f'version = 1\n[users."{"a" * 65}"]', "no user name; use 1 to 64"),
    ],
)
def test_a_file_of_another_form_is_refused(text, complaint):
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        Users.parse(text)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("password = 'x'", "users.alice.password: there is no such setting; known: tenant, roles"),
        ("tenant = 1", "users.alice.tenant: 1 is no string"),
        ("tenant = 'a/b'", "users.alice.tenant: 'a/b' is no tenant name: use 1 to 64"),
        ("roles = 'submit'", "users.alice.roles: 'submit' is no list"),
        ("roles = ['root']", "users.alice.roles: 'root' is no role; there are submit, work, ad"),
        ("roles = [['work']]", "users.alice.roles: ['work'] is no string"),
        ("roles = ['work', 'work']", "users.alice.roles: 'work' is listed twice"),
        ("submit = ['']", "users.alice.submit: an empty glob"),
        ("work = [1]", "users.alice.work: 1 is no string"),
        ("serves = ['']", "users.alice.serves: '' is no tenant name"),
        ("scram = ['x']", "users.alice.scram: the verifier has not the form"),
        (
            f"scram = ['{NEW.text()}', '{OLD.text()}']",
            "users.alice.scram: two verifiers of one hash and no old_until; say until when",
        ),
        (
            f"scram = ['{NEW.text()}', '{Verifier.derive('x', SALT[::-1], 4096).text()}']",
            "users.alice.scram: the two verifiers of SCRAM-SHA-256 have not the same salt",
        ),
        (
            f"scram = ['{NEW.text()}', '{OLD.text()}', '{Verifier.derive('x', SALT, 4096).text()}']"
            "\nold_until = 2030-01-01T00:00:00Z",
            "users.alice.scram: more than two verifiers of SCRAM-SHA-256",
        ),
        ("old_until = 2030-01-01", "users.alice.old_until: 2030-01-01 is no time with a zone"),
        ("not_after = 2030-01-01T00:00:00", "no time with a zone; write 2030-12-31T00:00:00Z"),
        ("not_after = 'soon'", "users.alice.not_after: soon is no time"),
        ("certs = ['alice']", "users.alice.certs: 'alice' names no certificate; write one of sha"),
        ("certs = ['cn:']", "users.alice.certs: 'cn:' names no certificate"),
        ("certs = ['ip:::1']", "users.alice.certs: 'ip:::1' names no certificate"),
        ("certs = ['sha256:00']", "users.alice.certs: 'sha256:00' is no fingerprint"),
        (f"certs = ['sha256:{'0A' * 32}']", "is no fingerprint of 64 digits 0-9 and a-f"),
        ("certs = ['uri:trigear://acme/bob']", "is not this user, who is uri:trigear://default/al"),
        ("certs = ['dns:*.example']", "users.alice.certs: 'dns:*.example' has a wildcard"),
        ("unix_uids = [-1]", "users.alice.unix_uids: -1 is no number of a system user"),
        ("unix_uids = [true]", "users.alice.unix_uids: True is no number of a system user"),
        ("unix_uids = ['root']", "users.alice.unix_uids: 'root' is no number of a system user"),
        ("may_act_as = ['a/b']", "users.alice.may_act_as: 'a/b' is no user name"),
        ("may_act_as = ['alice']", "users.alice.may_act_as: 'alice' is this user itself"),
        ("disabled = 1", "users.alice.disabled: 1 is neither true nor false"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_with_its_place(line, complaint):
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        users("[users.alice]", line)


@given(st.text(alphabet="verusion=1[]. \n\"'alicescrm,$:", max_size=60))
def test_whatever_stands_in_the_file_it_is_read_or_refused(text):
    for whole in (text, "version = 1\n[users.alice]\n" + text):
        with contextlib.suppress(ConfigError):
            Users.parse(whole)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("unix_uids = [7]", "users.bob.unix_uids: 7 belongs to alice already"),
        ("certs = ['cn:x']", "users.bob.certs: cn:x belongs to alice already"),
    ],
)
def test_what_marks_one_user_can_mark_no_other(setting, complaint):
    with pytest.raises(ConfigError, match=complaint):
        users("[users.alice]", setting, "[users.bob]", setting)


# In force


def test_a_user_is_in_force_until_it_is_disabled_or_its_time_is_over():
    known = Users.parse(ALICE)
    alice, bob = known.get("alice"), known.get("bob")
    assert alice.in_force(alice.not_after - 1)
    assert not alice.in_force(alice.not_after)
    assert bob.in_force(alice.not_after)
    assert not users("[users.alice]", "disabled = true").get("alice").in_force(NOW)


def test_an_identity_has_what_the_user_has_and_ends_when_the_first_reason_ends_it():
    alice = Users.parse(ALICE).get("alice")
    assert alice.identity("mtls", NOW, "carol") == Identity(
        principal="acme/alice",
        tenant="acme",
        roles=frozenset({Role.SUBMIT, Role.WORK}),
        method="mtls",
        submit=Matcher(["resize", "mail.*"]),
        work=Matcher(["resize"]),
        serves=("acme", "beta"),
        authcid="carol",
        expires_at=NOW,
        until=NOW,
    )
    assert alice.identity("mtls", alice.not_after + 5).expires_at == alice.not_after
    assert alice.identity("mtls").expires_at == alice.not_after
    assert Users.parse(ALICE).get("bob").identity("mtls").expires_at is None


def test_a_system_user_is_a_user_while_that_one_is_in_force():
    known = Users.parse(ALICE)
    assert known.of_uid(1001, NOW) is known.get("alice")
    assert known.of_uid(1003, NOW) is None
    assert known.of_uid(1001, 2_000_000_000.0) is None


def test_a_mark_of_a_certificate_leads_to_its_user():
    known = Users.parse(ALICE)
    assert known.of_certificate("cn:Alice") is known.get("alice")
    assert known.of_certificate("cn:alice") is None


@pytest.mark.parametrize(
    ("authzid", "becomes"),
    [
        ("", "alice"),
        ("alice", "alice"),
        ("acme/alice", "alice"),
        ("bob", "bob"),
        ("default/bob", "bob"),
        ("acme/bob", None),
        ("beta/alice", None),
        ("carol", None),
        ("default/carol", None),
        ("nobody", None),
        ("/", None),
        ("x/y/bob", None),
    ],
)
def test_t28_one_acts_as_oneself_or_as_who_is_listed(authzid, becomes):
    known = Users.parse(ALICE + "[users.carol]\n[users.dave]\ndisabled = true\n")
    user = known.acting_as(known.get("alice"), authzid, NOW)
    assert (user and user.name) == becomes


def test_t28_nobody_acts_as_a_user_who_is_shut_out():
    known = users("[users.alice]", "may_act_as = ['bob']", "[users.bob]", "disabled = true")
    assert known.acting_as(known.get("alice"), "bob", NOW) is None


# Passwords


def test_a_password_and_the_one_it_replaces_are_good_until_the_time_is_over():
    known = Users.parse(ALICE)
    until = known.get("alice").old_until
    for kind in (SCRAM, PLAIN):
        before = known.credentials("alice", kind, until - 1, SECRET)
        assert before.user is known.get("alice")
        assert before.verifiers == (NEW, OLD)
        after = known.credentials("alice", kind, until, SECRET)
        assert after.user is known.get("alice")
        assert after.verifiers[0] == NEW
        assert matching(after.verifiers, b"old") == -1


def test_a_password_is_checked_by_the_hash_that_there_is():
    known = users(with_password("alice", LONG), with_password("bob", NEW))
    assert known.credentials("alice", PLAIN, NOW, SECRET).verifiers[0] == LONG
    assert known.credentials("alice", SHA_512.mechanism, NOW, SECRET).verifiers[0] == LONG
    assert known.credentials("alice", SCRAM, NOW, SECRET).user is None
    both = users("[users.alice]", f"scram = ['{LONG.text()}', '{NEW.text()}']")
    assert both.credentials("alice", PLAIN, NOW, SECRET).verifiers[0] == NEW
    assert both.credentials("alice", SHA_512.mechanism, NOW, SECRET).verifiers[0] == LONG


def test_a_hash_is_covered_when_everybody_with_a_password_has_it():
    assert users(with_password("alice", NEW), "[users.bob]").covers(SHA_256)
    assert not users(with_password("alice", NEW), with_password("bob", LONG)).covers(SHA_256)
    gone = with_password("bob", LONG, "disabled = true")
    assert users(with_password("alice", NEW), gone).covers(SHA_256)


@pytest.mark.parametrize("kind", [SCRAM, SHA_512.mechanism, PLAIN])
@pytest.mark.parametrize(
    "name",
    ["nobody", "", "disabled", "over", "passwordless", "\ud800", "x" * 2000],
    ids=["nobody", "no name", "disabled", "over", "passwordless", "half a character", "long"],
)
def test_t13_who_may_not_log_in_looks_like_somebody_the_same_each_time(name, kind):
    lines = [
        with_password("alice", NEW),
        with_password("disabled", NEW, "disabled = true"),
        with_password("over", NEW, "not_after = 2020-01-01T00:00:00Z"),
        "[users.passwordless]",
    ]
    # Twice, as after a restart of the server.
    first, second = (users(*lines).credentials(name, kind, NOW, SECRET) for _ in range(2))
    assert first == second
    assert first.user is None
    real = {SHA_512.mechanism: LONG}.get(kind, NEW)
    invented = first.verifiers[0]
    assert invented.hash == real.hash
    assert invented.iterations == real.iterations
    assert len(invented.salt) == len(real.salt)
    assert len(invented.stored_key) == len(invented.server_key) == real.hash.size
    assert invented not in (NEW, LONG)
    assert invented != users(*lines).credentials(name, kind, NOW, SECRET[::-1]).verifiers[0]
    assert invented != users(*lines).credentials(name + "2", kind, NOW, SECRET).verifiers[0]


def test_t13_invented_costs_are_as_frequent_as_the_real_ones():
    human = Verifier.derive("new", bytes(24), 10_000)
    known = users(
        *(with_password(f"program{number}", NEW) for number in range(3)),
        with_password("person", human),
    )
    shown = [known.credentials(f"name{n}", SCRAM, NOW, SECRET).verifiers[0] for n in range(1000)]
    costs = [(verifier.iterations, len(verifier.salt)) for verifier in shown]
    assert set(costs) == {(4096, 16), (10_000, 24)}
    assert 200 < costs.count((10_000, 24)) < 300
    # One user more moves few of the others.
    more = users(*(with_password(f"x{n}", NEW) for n in range(40)), with_password("person", human))
    most = users(*(with_password(f"x{n}", NEW) for n in range(41)), with_password("person", human))
    moved = [
        name
        for name in (f"name{n}" for n in range(1000))
        if more.credentials(name, SCRAM, NOW, SECRET) != most.credentials(name, SCRAM, NOW, SECRET)
    ]
    assert len(moved) < 10


def test_t14_looking_up_takes_the_same_steps_for_everybody(calls_of):
    known = users(
        with_password("alice", NEW),
        with_password("disabled", NEW, "disabled = true"),
        "[users.passwordless]",
    )
    for kind in (SCRAM, PLAIN):
        steps = [
            calls_of(lambda name=name, kind=kind: known.credentials(name, kind, NOW, SECRET))
            for name in ("alice", "nobody", "disabled", "passwordless")
        ]
        assert "users._invented" in steps[0]
        assert steps[0] == steps[1] == steps[2] == steps[3]


# A new file


def test_a_new_file_tells_whose_sessions_must_end_and_whose_rights_are_others():
    before = users(
        *(
            with_password(name, NEW)
            for name in ("same", "removed", "disabled", "moved", "renewed", "overlapped", "demoted")
        ),
        "[users.passwordless]",
    )
    after = users(
        with_password("same", NEW, "unix_uids = [1]"),
        with_password("disabled", NEW, "disabled = true"),
        with_password("moved", NEW, "tenant = 'acme'"),
        with_password("renewed", OLD),
        f"[users.overlapped]\nscram = ['{OLD.text()}', '{NEW.text()}']",
        "old_until = 2030-01-01T00:00:00Z",
        with_password("demoted", NEW, "submit = ['x']"),
        with_password("passwordless", NEW),
        "[users.added]",
    )
    changes = before.changes_to(after)
    assert changes.gone == {"removed", "disabled", "moved"}
    assert changes.passwords == {"renewed"}
    assert changes.rights == {"demoted"}
    assert changes.marks
    assert before.changes_to(before) == (frozenset(), frozenset(), frozenset(), False)


def test_t37_nothing_that_is_shown_of_a_user_has_keys_in_it():
    known = Users.parse(ALICE)
    shown = repr(known.get("alice")) + repr(known.credentials("alice", SCRAM, NOW, SECRET))
    assert "acme" in shown
    for verifier in (NEW, OLD):
        for secret in verifier.text().rpartition("$")[2].split(":"):
            assert secret not in shown
        assert repr(verifier.stored_key) not in shown
        assert repr(verifier.server_key) not in shown
