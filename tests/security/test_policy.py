"""Rights: one table, complete, and globs that match whole names only."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trigear.errors import ConfigError
from trigear.security.policy import (
    ANONYMOUS,
    COMMAND_RULES,
    EVERY,
    NONE,
    PACKET_RULES,
    Identity,
    Matcher,
    Rights,
    Role,
    Scope,
    allowed,
    explain,
    network_identity,
    rule_of,
    way_to,
)
from trigear.wire.packets import EXTENSIONS, PACKETS, Side


def somebody(*roles, submit=EVERY, work=EVERY):
    return Identity(
        "acme/alice", "acme", frozenset(roles), "SCRAM-SHA-256", submit=submit, work=work
    )


# The table


def test_what_is_not_in_the_table_is_refused_to_everybody():
    for row in (*PACKETS.values(), *EXTENSIONS.values()):
        if row.asked_by == Side.NONE:
            assert not allowed(ANONYMOUS, row.name, b"f", b"r")
    for action in ("", "shut", "status ", "STATUS", "nonsense"):
        assert rule_of(action) is None
        assert not allowed(ANONYMOUS, action, b"f", b"r")
    known = {row.number: row for row in (*PACKETS.values(), *EXTENSIONS.values())}
    assert {known[number].name for number in Rights(ANONYMOUS).packets} == {
        row.name for row in known.values() if row.asked_by != Side.NONE
    }


ROLES_NEEDED = {
    "work": {"CAN_DO", "CAN_DO_TIMEOUT"},
    "submit": {
        *(name for name in PACKET_RULES if name.startswith("SUBMIT_")),
        *("JOB_DETACH", "GET_STATUS", "GET_STATUS_UNIQUE", "GET_RESULT"),
    },
    "login": {
        *(name for name in PACKET_RULES if name.startswith(("GRAB_", "WORK_"))),
        *("SET_CLIENT_ID", "CANT_DO", "RESET_ABILITIES", "PRE_SLEEP", "ALL_YOURS"),
        *("HEARTBEAT", "JOB_RELEASE"),
    },
    "nothing": {"ECHO_REQ", "OPTION_REQ", "SASL_START", "SASL_RESPONSE", "SASL_ABORT"}
    | {"version", "whoami", "auth"},
    "operator": {"shutdown", "getpid", "verbose", "reload", "tenant", "drain", "metrics"},
    "admin": {
        *("maxqueue", "create function", "drop function", "cancel job"),
        *("result", "drop result"),
        *("dead list", "dead show", "dead retry", "dead delete"),
        *("schedule list", "schedule show", "schedule pause", "schedule resume"),
        *("schedule remove", "requeue", "priority", "pause", "resume", "set", "reset"),
    },
    "admin or operator": {"status", "prioritystatus", "workers", "show jobs"}
    | {"show unique jobs", "show job", "show functions", "jobs", "clients", "functions"}
    | {"sessions", "session end", "tenants", "loading"},
    "admin and submit": {"schedule add", "schedule run"},
}


def test_each_request_is_open_to_the_roles_that_it_is_meant_for_and_to_no_other():
    everything = PACKET_RULES.keys() | COMMAND_RULES.keys()
    assert set().union(*ROLES_NEEDED.values()) == everything

    def may(identity):
        return {action for action in everything if allowed(identity, action, b"f", b"r")}

    needed = ROLES_NEEDED
    assert may(None) == needed["nothing"]
    base = needed["nothing"] | needed["login"]
    assert may(somebody()) == base
    assert may(somebody(Role.WORK)) == base | needed["work"]
    assert may(somebody(Role.SUBMIT)) == base | needed["submit"]
    assert may(somebody(Role.ADMIN)) == base | needed["admin"] | needed["admin or operator"]
    assert may(somebody(Role.OPERATOR)) == base | needed["operator"] | needed["admin or operator"]
    assert may(somebody(Role.ADMIN, Role.SUBMIT)) == (
        base
        | needed["admin"]
        | needed["admin or operator"]
        | needed["submit"]
        | needed["admin and submit"]
    )
    assert may(ANONYMOUS) == everything


def test_who_sees_more_than_its_own_tenant_is_an_operator():
    assert way_to(somebody(Role.ADMIN), "status").scope is Scope.TENANT
    assert way_to(somebody(Role.OPERATOR), "status").scope is Scope.SERVER
    assert way_to(somebody(Role.OPERATOR, Role.ADMIN), "status").scope is Scope.SERVER
    assert way_to(somebody(Role.OPERATOR, Role.ADMIN), "cancel job").scope is Scope.TENANT
    # Whatever is not read or done by operators stays inside of a tenant.
    for action in PACKET_RULES.keys() | COMMAND_RULES.keys():
        way = way_to(somebody(Role.SUBMIT, Role.WORK, Role.ADMIN), action, b"f", b"r")
        assert way is None or way.scope is Scope.TENANT


@pytest.mark.parametrize(
    ("role", "action"),
    [(Role.SUBMIT, "SUBMIT_JOB"), (Role.WORK, "CAN_DO"), (Role.WORK, "CAN_DO_TIMEOUT")],
)
def test_functions_are_named_by_the_globs_of_the_role(role, action):
    narrow = Matcher(["resize", "mail.*"])
    wide = {Role.SUBMIT: "work", Role.WORK: "submit"}[role]
    identity = somebody(role, **{role.value: narrow, wide: EVERY})
    assert allowed(identity, action, b"resize")
    assert allowed(identity, action, b"mail.send")
    assert not allowed(identity, action, b"reverse")
    assert not allowed(identity, action)


def test_starting_by_the_calendar_takes_the_right_to_submit_the_function():
    identity = somebody(Role.ADMIN, Role.SUBMIT, submit=Matcher(["resize"]))
    assert allowed(identity, "schedule add", b"resize")
    assert not allowed(identity, "schedule add", b"mail")
    assert not allowed(somebody(Role.ADMIN), "schedule add", b"resize")
    assert allowed(somebody(Role.ADMIN), "schedule remove", b"resize")


@pytest.mark.parametrize("action", ["SUBMIT_REDUCE_JOB", "SUBMIT_REDUCE_JOB_BACKGROUND"])
def test_t34_the_reducer_is_a_function_like_any_other(action):
    identity = somebody(Role.SUBMIT, submit=Matcher(["map", "sum"]))
    assert allowed(identity, action, b"map", b"sum")
    assert not allowed(identity, action, b"map", b"delete-everything")
    assert not allowed(identity, action, b"delete-everything", b"sum")
    assert not allowed(identity, action, b"map")


# Compiled at login


@pytest.mark.parametrize(
    "identity",
    [
        None,
        ANONYMOUS,
        somebody(),
        somebody(Role.SUBMIT, submit=Matcher(["f", "r"])),
        somebody(Role.SUBMIT, Role.ADMIN, submit=Matcher(["other"])),
        somebody(Role.WORK, work=NONE),
        somebody(Role.WORK, Role.OPERATOR),
    ],
    ids=lambda identity: "-" if identity is None else ",".join(identity.role_names) or "login",
)
def test_the_compiled_rights_say_what_the_table_says(identity):
    rights = Rights(identity)
    for row in (*PACKETS.values(), *EXTENSIONS.values()):
        matcher = rights.packets.get(row.number)
        compiled = matcher is not None and matcher(b"f") and matcher(b"r")
        assert compiled == allowed(identity, row.name, b"f", b"r"), row.name
    for action in COMMAND_RULES:
        matcher = rights.commands.get(action)
        compiled = matcher is not None and matcher(b"f")
        assert compiled == allowed(identity, action, b"f"), action


# Globs


@pytest.mark.parametrize(
    ("glob", "name", "matches"),
    [
        ("foo", b"foo", True),
        ("foo", b"foobar", False),
        ("foo", b"xfoo", False),
        ("foo", b"Foo", False),
        ("foo", b"foo\n", False),
        ("foo", b"", False),
        ("foo*", b"foobar", True),
        ("foo*", b"foo", True),
        ("*", b"", True),
        ("*", b"any\nthing\xff\0", True),
        ("**", b"x", True),
        ("?", b"", False),
        ("?", b"\n", True),
        ("?", b"\xff", True),
        ("?", "ö".encode(), False),
        ("??", "ö".encode(), True),
        ("ö*", "öl".encode(), True),
        ("a.b", b"axb", False),
        ("a|b", b"a", False),
        ("a|b", b"a|b", True),
        ("[a]", b"a", False),
        ("[!a]", b"[!a]", True),
        ("\\*", b"\\x", True),
        ("a*b", b"ab", True),
        ("a*b", b"aba", False),
        ("a*bc*bc", b"abc", False),
        ("a*bc*bc", b"abcbc", True),
        ("*.jpg", b"a.jpg.exe", False),
    ],
)
def test_t35_a_glob_matches_whole_names_byte_for_byte(glob, name, matches):
    assert Matcher([glob])(name) is matches
    assert Matcher(["nothing", glob])(name) is matches


def naive(glob: bytes, name: bytes) -> bool:
    """What a glob means, by trying everything."""
    if not glob:
        return not name
    if glob[:1] == b"*":
        return any(naive(glob[1:], name[skip:]) for skip in range(len(name) + 1))
    return bool(name) and glob[:1] in (b"?", name[:1]) and naive(glob[1:], name[1:])


@given(
    st.text(alphabet="ab*?\n", max_size=8), st.text(alphabet="ab\n", max_size=10).map(str.encode)
)
def test_globs_mean_what_trying_everything_finds(glob, name):
    assert Matcher([glob])(name) == naive(glob.encode(), name)


def test_many_stars_do_not_make_matching_slow():
    # With backtracking this would take longer than the universe has; a hang fails the run.
    assert not Matcher(["a*" * 30 + "b"])(b"a" * 4000)
    assert not Matcher(["*a?*a" * 20 + "*b"])(b"a" * 4000)


def test_without_globs_nothing_matches():
    assert not NONE(b"")
    assert not NONE(b"x")


def test_matchers_of_the_same_globs_are_equal_and_tell_their_globs():
    assert Matcher(["a", "b*"]) == Matcher(("a", "b*"))
    assert hash(Matcher(["a"])) == hash(Matcher(["a"]))
    assert Matcher(["a"]) != Matcher(["b"])
    assert Matcher(["a"]) != "a"
    assert repr(Matcher(["a", "b*"])) == "Matcher(['a', 'b*'])"
    assert Matcher(["a", "b*"]).which(b"bc") == "b*"
    assert Matcher(["a", "b*"]).which(b"c") is None


# Words


MAIL = somebody(Role.SUBMIT, submit=Matcher(["mail.*", "resize"]))


@pytest.mark.parametrize(
    ("identity", "action", "names", "words"),
    [
        (
            MAIL,
            "submit",
            (b"mail.send",),
            "allowed: SUBMIT_JOB needs role submit; acme/alice has it; submit glob 'mail.*' "
            "matches 'mail.send'; reaches the own tenant",
        ),
        (
            MAIL,
            "submit_job_bg",
            (b"reverse\n",),
            "refused: no submit glob of acme/alice matches the function 'reverse\\\\x0a': "
            "'mail.*', 'resize'",
        ),
        (
            somebody(Role.SUBMIT, submit=NONE),
            "submit",
            (b"x",),
            "refused: no submit glob of acme/alice matches the function 'x': none",
        ),
        (MAIL, "submit", (), "refused: SUBMIT_JOB depends on the function, and none is named"),
        (
            MAIL,
            "SUBMIT_REDUCE_JOB",
            (b"resize",),
            "refused: SUBMIT_REDUCE_JOB depends on the reducer, and none is named",
        ),
        (
            MAIL,
            "SUBMIT_REDUCE_JOB",
            (b"resize", b"sum"),
            "refused: no submit glob of acme/alice matches the reducer 'sum': 'mail.*', 'resize'",
        ),
        (
            MAIL,
            "SUBMIT_REDUCE_JOB",
            (b"resize", b"mail.sum"),
            "allowed: SUBMIT_REDUCE_JOB needs role submit; acme/alice has it; submit glob "
            "'resize' matches 'resize'; submit glob 'mail.*' matches 'mail.sum'; reaches the own "
            "tenant",
        ),
        (
            MAIL,
            "work",
            (b"resize",),
            "refused: CAN_DO needs role work, and acme/alice has submit",
        ),
        (
            somebody(),
            "status",
            (),
            "refused: status needs role operator, and acme/alice has none; status needs role "
            "admin, and acme/alice has none",
        ),
        (
            somebody(Role.OPERATOR),
            "status",
            (),
            "allowed: status needs role operator; acme/alice has it; reaches the whole server",
        ),
        (
            somebody(Role.ADMIN),
            "schedule add",
            (b"x",),
            "refused: schedule add needs roles admin and submit, and acme/alice has admin",
        ),
        (
            MAIL,
            "WORK_COMPLETE",
            (),
            "allowed: WORK_COMPLETE needs any login; only of a job that this connection holds",
        ),
        (MAIL, "GRAB_JOB", (), "allowed: GRAB_JOB needs any login"),
        (None, "GRAB_JOB", (), "refused: GRAB_JOB needs a login"),
        (None, "version", (), "allowed: version needs no login"),
        (MAIL, "fly", (), "refused: 'fly' is no request, and what is none is refused"),
    ],
)
def test_the_explanation_names_the_rule_that_decides(identity, action, names, words):
    assert str(explain(identity, action, *names)) == words


@given(
    st.sampled_from([*PACKET_RULES, *COMMAND_RULES, "nonsense"]),
    st.sets(st.sampled_from(list(Role))),
    st.sampled_from([None, b"a", b"b"]),
    st.sampled_from([None, b"a", b"b"]),
)
def test_the_explanation_agrees_with_the_decision(action, roles, function, reducer):
    for identity in (None, somebody(*roles, submit=Matcher(["a"]), work=Matcher(["b"]))):
        told = explain(identity, action, function, reducer)
        assert told.allowed == allowed(identity, action, function, reducer)
        assert told.reasons


def test_a_network_may_submit_and_work_and_no_more():
    identity = network_identity("10.1.0.0/16", "acme", [Role.SUBMIT, Role.WORK])
    assert identity.principal == "net:10.1.0.0/16"
    assert identity.tenant == "acme"
    assert allowed(identity, "SUBMIT_JOB", b"f")
    for role in (Role.ADMIN, Role.OPERATOR):
        complaint = f"networks.10.1.0.0/16: the role {role.value} cannot be had by an address"
        with pytest.raises(ConfigError, match=complaint):
            network_identity("10.1.0.0/16", "acme", [Role.SUBMIT, role])


def test_an_identity_names_its_roles_in_their_order_and_cannot_be_changed():
    identity = somebody(Role.OPERATOR, Role.SUBMIT)
    assert identity.role_names == ("submit", "operator")
    with pytest.raises(dataclasses.FrozenInstanceError):
        identity.tenant = "other"
