"""How people name a PostgreSQL database, and that nobody else gets to know their passwords."""

from __future__ import annotations

import pytest

from trigear.stores.postgresql_place import Place, place_of_conninfo, place_of_url

SECRETS = [
    "postgresql://u:hush@h/d",
    "postgresql://u@h/d?password=hush",
    "postgresql://u@h/d?sslpassword=hush&sslmode=require",
]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGCONNECT_TIMEOUT", "PGTARGETSESSIONATTRS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://", "postgresql"),
        ("postgres://h", "postgresql h"),
        ("postgresql://u@h:5433/d", "postgresql u@h:5433/d"),
        ("postgresql://%2Frun%2Fpg/d", "postgresql /run/pg/d"),
        ("postgresql://a:1,b:2/d", "postgresql a:1,b:2/d"),
        ("postgresql://a,b/d?port=7", "postgresql a:7,b:7/d"),
        ("postgresql:///d?hostaddr=127.0.0.1", "postgresql 127.0.0.1/d"),
        ("postgresql://?service=jobs", "postgresql service jobs"),
        ("postgresql://h/d?schema=s", "postgresql h/d, schema s"),
        ("postgresql://h/d?table_prefix=t_", "postgresql h/d, tables t_*"),
        ("postgresql://h/a%0Ab", "postgresql h/a\\x0ab"),
        *((url, "postgresql u@h/d") for url in SECRETS),
    ],
)
def test_a_place_has_a_name_for_people(url, name):
    assert place_of_url(url).name == name


@pytest.mark.parametrize("url", SECRETS)
def test_a_password_goes_to_the_database_and_nowhere_else(url):
    place = place_of_url(url)
    assert place.secret
    assert "hush" in place.connection_parameters().values()
    assert "hush" not in f"{place!r}{place}{place.name}"


def test_a_question_mark_in_a_password_is_part_of_it():
    place = place_of_url("postgresql://u:hu?sh=x@h/d")
    assert (place.parameters["password"], place.name) == ("hu?sh=x", "postgresql u@h/d")


def test_a_place_without_password_has_no_secret():
    assert not place_of_url("postgresql://u@h/d?passfile=/x").secret
    assert not place_of_conninfo("host=h password=''", "queue").secret


def test_words_of_ours_are_kept_from_the_database_and_others_are_passed_on():
    place = place_of_url(
        "postgresql://u@h/d?sslmode=verify-full&schema=s&sslrootcert=%2Fca.pem&table_prefix=t_"
    )
    assert (place.schema, place.prefix) == ("s", "t_")
    words = {"user": "u", "host": "h", "dbname": "d", "sslmode": "verify-full"}
    assert place.parameters == {**words, "sslrootcert": "/ca.pem"}
    assert place_of_url("postgresql://h/d?ssl=true").parameters["sslmode"] == "require"


def test_what_was_not_said_is_added():
    given = place_of_url("postgresql://h/d?connect_timeout=30").connection_parameters()
    assert given["connect_timeout"] == "30"
    assert given["target_session_attrs"] == "read-write"
    assert given["tcp_user_timeout"] == "10000"
    assert given["client_encoding"] == "utf8"


def test_what_the_environment_says_is_not_overridden(monkeypatch):
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "any")
    given = place_of_url("postgresql://h/d").connection_parameters()
    assert "target_session_attrs" not in given
    assert given["connect_timeout"] == "5"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql://h/d?sslmod=require", "'sslmod' is nothing that PostgreSQL or trigear knows"),
        ("postgresql://h/d?schema=a-b", "schema has to be letters, digits and _"),
        ("postgresql://h/d?table_prefix=", "table_prefix has to be letters, digits and _"),
        ("postgresql://h/d?schema=" + "x" * 41, "schema has to be"),
        ("postgresql://u:hu%sh@h/d", "it cannot be read"),
        ("postgresql://u:hu sh@h/d%", "it cannot be read"),
        ("postgresql://u:hu/sh@h/d", "it cannot be read"),
        ("postgresql://u:hu@sh@h/d", "it cannot be read"),
        ("postgresql://u:hush/d", "it cannot be read"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_repeating_it(url, why):
    with pytest.raises(ValueError, match=why) as caught:
        place_of_url(url)
    assert "hu" not in str(caught.value)
    # Nor does whoever prints the whole chain get to see it.
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("table", "schema", "prefix"),
    [("queue", None, "queue_"), ("Jobs_2", None, "jobs_2_"), ("old.Queue", "old", "queue_")],
)
def test_gearmands_table_gives_ours_their_names(table, schema, prefix):
    place = place_of_conninfo("host=h dbname=d", table)
    assert (place.schema, place.prefix, place.gearmands) == (schema, prefix, table.lower())
    assert place.name == f"postgresql h/d{', schema old' if schema else ''}, tables {prefix}*"


@pytest.mark.parametrize("table", ["", "a b", "a.b.c", ".a", "a.", 'a"', "1a"])
def test_what_is_no_name_of_a_table_is_refused(table):
    with pytest.raises(ValueError, match="is no name for a table"):
        place_of_conninfo("", table)


def test_conninfo_may_be_empty_or_a_url():
    assert place_of_conninfo("", "queue").parameters == {}
    assert place_of_conninfo("postgresql://u@h/d", "queue").name.startswith("postgresql u@h/d")
    with pytest.raises(ValueError, match="it cannot be read"):
        place_of_conninfo("host", "queue")


def test_files_are_found_from_where_they_were_named():
    place = place_of_url("postgresql://h/d?passfile=p&sslrootcert=system&sslcert=%2Fa%2F..%2Fc")
    assert place.seen_from("/etc").parameters == {
        **{"host": "h", "dbname": "d"},
        **{"passfile": "/etc/p", "sslrootcert": "system", "sslcert": "/c"},
    }


def test_two_names_of_one_place_are_equal():
    assert place_of_url("postgresql://u@h/d") == Place({"user": "u", "host": "h", "dbname": "d"})
