"""SCRAM: exchanges that succeed, and everything that must not."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.security.chance import dice
from trigear.security import scram
from trigear.security.scram import (
    SHA_256,
    SHA_512,
    ScramClient,
    ScramError,
    ScramServer,
    Verifier,
    matching,
    prepare,
)

SALT = bytes(range(16))
PENCIL = Verifier.derive("pencil", SALT, 4096)
BINDINGS = {"tls-server-end-point": b"hash of a certificate"}
CLIENT_FIRST = b"n,,n=alice,r=clientnonce"
NONCE = b"clientnonceservernonce"


def server(*verifiers, hash=SHA_256, plus=False, bindings=None, plus_offered=False, seen=None):
    def lookup(name):
        if seen is not None:
            seen.append(name)
        return verifiers or (PENCIL,)

    return ScramServer(
        hash,
        lookup,
        b"servernonce",
        plus=plus,
        bindings=BINDINGS if bindings is None else bindings,
        plus_offered=plus_offered,
    )


def client(password="pencil", hash=SHA_256, **options):
    return ScramClient(hash, "alice", prepare(password), b"clientnonce", **options)


def exchange(asking, answering):
    """Both sides to the end."""
    final = answering.final(asking.final(answering.first(asking.first())))
    asking.check(final)
    return final


# The published exchange


def test_the_exchange_that_rfc_7677_publishes_comes_out_to_the_byte():
    salt = scram.a2b_base64(b"W22ZaJ0SNY7soEsUEjb6gQ==")
    asking = ScramClient(SHA_256, "user", b"pencil", b"rOprNGfwEbeRWgbNEkqO")
    answering = ScramServer(
        SHA_256,
        lambda name: (Verifier.derive("pencil", salt, 4096),),
        b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        plus=False,
        bindings={},
        plus_offered=False,
    )
    said = [asking.first()]
    said.append(answering.first(said[-1]))
    said.append(asking.final(said[-1]))
    said.append(answering.final(said[-1]))
    asking.check(said[-1])
    nonce = b"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    assert said == [
        b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
        b"r=" + nonce + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        b"c=biws,r=" + nonce + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ]


# Both sides of ours


@pytest.mark.parametrize("hash", [SHA_256, SHA_512], ids=lambda hash: hash.name)
def test_client_and_server_prove_themselves_to_each_other(hash):
    answering = server(Verifier.derive("pencil", SALT, 4096, hash), hash=hash)
    exchange(client(hash=hash), answering)
    assert answering.username == "alice"
    assert answering.authzid == ""
    assert answering.matched == 0


def test_the_channel_is_bound_with_plus():
    asking = client(flag="p=tls-server-end-point", binding=BINDINGS["tls-server-end-point"])
    exchange(asking, server(plus=True, plus_offered=True))


def test_a_client_that_can_bind_and_a_server_that_cannot_agree():
    exchange(client(flag="y"), server())


def test_another_password_is_refused():
    with pytest.raises(ScramError, match="the proof is wrong"):
        exchange(client("pencil2"), server())


def test_a_relay_with_another_certificate_is_refused():
    asking = client(flag="p=tls-server-end-point", binding=b"hash of the relay's certificate")
    with pytest.raises(ScramError, match="bound to something else"):
        exchange(asking, server(plus=True))


def test_of_two_passwords_under_one_salt_either_is_good_and_told_apart():
    old = Verifier.derive("old pencil", SALT, 4096)
    for position, password in enumerate(["pencil", "old pencil"]):
        answering = server(PENCIL, old)
        exchange(client(password), answering)
        assert answering.matched == position
    with pytest.raises(ScramError, match="proof"):
        exchange(client("no pencil"), server(PENCIL, old))


def test_names_with_commas_and_equals_signs_arrive_as_they_are():
    seen = []
    asking = ScramClient(SHA_256, "a=2C,b=", b"pencil", b"clientnonce", authzid="c,=d")
    answering = server(seen=seen)
    assert asking.first() == b"n,a=c=2C=3Dd,n=a=3D2C=2Cb=3D,r=clientnonce"
    exchange(asking, answering)
    assert seen == ["a=2C,b="]
    assert answering.authzid == "c,=d"


@pytest.mark.parametrize(
    ("opening", "authzid"),
    [(b"n,,", ""), (b"n,a=,", ""), (b"n,a=alice,", "alice"), (b"y,a=acme/alice,", "acme/alice")],
    ids=["none", "empty, as GNU SASL sends it", "own name, as Cyrus sends it", "another form"],
)
def test_whom_to_act_as_may_be_said_in_the_header(opening, authzid):
    answering = server()
    answering.first(opening + b"n=alice,r=clientnonce")
    assert answering.authzid == authzid


def test_extensions_that_need_not_be_understood_are_passed_over():
    answering = server()
    assert answering.first(CLIENT_FIRST + b",x=1,Y=2=3")
    asking = client()
    asking.final(b"r=" + NONCE + b",s=AAECAwQFBgcICQoLDA0ODw==,i=4096,x=new")


def test_a_salted_password_is_computed_once_for_salt_and_iterations():
    cache = {}
    exchange(client(cache=cache), server())
    ((known, salted),) = cache.items()
    assert known == ("SHA-256", SALT, 4096)
    assert salted == SHA_256.stretch(b"pencil", SALT, 4096)
    # With what is in the cache the password itself is not looked at any more.
    exchange(client("something else", cache=cache), server())


# What the server refuses


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (b"", "GS2 header"),
        (b"n,", "GS2 header"),
        (b"n,,", "too few attributes"),
        (b"n,,n=alice", "too few attributes"),
        (b"n,,r=clientnonce,n=alice", "no attribute n"),
        (b"n,,m=x,n=alice,r=clientnonce", "no attribute n"),
        (b"n,,n=alice,r=clientnonce,m=x", "place that is not its own"),
        (b"n,,n=alice,r=clientnonce,r=other", "place that is not its own"),
        (b"n,,n=alice,r=clientnonce,", "an extension"),
        (b"n,,n=alice,r=clientnonce,x", "an extension"),
        (b"n,,n=alice,r=clientnonce,x=", "an extension"),
        (b"n,,n=alice,r=clientnonce,1=x", "an extension"),
        (b"n,b=alice,n=alice,r=clientnonce", "a= attribute"),
        (b"n,alice,n=alice,r=clientnonce", "a= attribute"),
        (b"n,a=al=ice,n=alice,r=clientnonce", "must be escaped"),
        (b"n,,n=al=ice,r=clientnonce", "must be escaped"),
        (b"n,,n=al=2cice,r=clientnonce", "must be escaped"),
        (b"n,,n=a=3=2CDb,r=clientnonce", "must be escaped"),
        (b"n,,n=al\0ice,r=clientnonce", "must be escaped"),
        (b"n,,n=\xff\xfe,r=clientnonce", "no UTF-8"),
        (b"n,,n=alice,r=short", "8 to 256"),
        (b"n,,n=alice,r=" + b"x" * 257, "8 to 256"),
        (b"n,,n=alice,r=client nonce", "unprintable"),
        (b"n,,n=alice,r=clientnonce\x7f", "unprintable"),
        (b"z,,n=alice,r=clientnonce", "a flag"),
        (b"p=tls-unique,,n=alice,r=clientnonce", "a flag"),
        (b",,n=alice,r=clientnonce", "a flag"),
    ],
)
def test_a_broken_opening_is_refused(message, complaint):
    with pytest.raises(ScramError, match=re.escape(complaint)):
        server().first(message)


@pytest.mark.parametrize(
    ("opening", "complaint"),
    [
        (b"n,,", "without a channel binding"),
        (b"y,,", "without a channel binding"),
        (b"p=tls-unique,,", "does not have"),
        (b"p=\xff,,", "does not have"),
        (b"p=,,", "does not have"),
    ],
)
def test_plus_wants_a_binding_that_this_channel_has(opening, complaint):
    with pytest.raises(ScramError, match=complaint):
        server(plus=True).first(opening + b"n=alice,r=clientnonce")


def test_t6_a_client_that_could_bind_and_was_not_shown_plus_is_refused():
    with pytest.raises(ScramError, match="not shown the -PLUS"):
        server(plus_offered=True).first(b"y,,n=alice,r=clientnonce")


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (b"", "ends in no proof"),
        (b"c=biws,r=" + NONCE, "ends in no proof"),
        (b"p=AAAA", "ends in no proof"),
        (b"c=biws,p=AAAA", "too few attributes"),
        (b"c=biws,r=" + NONCE + b",p=AAAA,x=1", "broken base64"),
        (b"c=biws,r=" + NONCE + b",p=!", "broken base64"),
        (b"c=biws,r=" + NONCE + b",p=AAAA", "another length"),
        (b"c=biws,r=" + NONCE + b"x,p=AAAA", "another nonce"),
        (b"c=biws,r=clientnonce,p=AAAA", "another nonce"),
        (b"c=!,r=" + NONCE + b",p=AAAA", "broken base64"),
        (b"c=eSws,r=" + NONCE + b",p=AAAA", "bound to something else"),
        (b"c=biwsAA==,r=" + NONCE + b",p=AAAA", "bound to something else"),
        (b"r=" + NONCE + b",c=biws,p=AAAA", "no attribute c"),
        (b"c=biws,r=" + NONCE + b",p=x,p=AAAA", "place that is not its own"),
    ],
)
def test_a_broken_ending_is_refused(message, complaint):
    answering = server()
    answering.first(CLIENT_FIRST)
    with pytest.raises(ScramError, match=complaint):
        answering.final(message)
    assert answering.matched == -1


def test_an_ending_without_an_opening_is_refused():
    with pytest.raises(ScramError):
        server().final(b"c=,r=,p=" + scram.b64encode(bytes(32)))


def test_the_proof_of_one_exchange_is_worth_nothing_in_another():
    asking = client()
    proof = asking.final(server().first(asking.first()))
    later = ScramServer(
        SHA_256, lambda name: (PENCIL,), b"newnonce", plus=False, bindings={}, plus_offered=False
    )
    later.first(CLIENT_FIRST)
    with pytest.raises(ScramError, match="another nonce"):
        later.final(proof)


@pytest.mark.parametrize("step", ["first", "final"])
def test_t18_a_message_beyond_the_limit_is_refused_before_anything_in_it_is_read(step, calls_of):
    answering = server()
    answering.first(CLIENT_FIRST)
    big = b"n,,n=" + "\N{LATIN SMALL LIGATURE FI}".encode() * 350_000

    def give():
        with pytest.raises(ScramError, match="more than 2048 bytes"):
            getattr(answering, step)(big)

    assert [call for call in calls_of(give) if call.startswith("scram.")] == [
        f"scram.{step}",
        "scram._limit",
    ]


# What the client refuses


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (b"", "too few attributes"),
        (b"e=other-error", "too few attributes"),
        (b"m=x,r=a,s=b,i=4096", "no attribute r"),
        (b"r=clientnonce,s=AAECAwQFBgcICQoLDA0ODw==,i=4096", "did not add"),
        (b"r=othernonceother,s=AAECAwQFBgcICQoLDA0ODw==,i=4096", "did not add"),
        (b"r=clientnonceshort,s=AAECAwQFBgcICQoLDA0ODw==,i=4096", "8 to 256"),
        (b"r=clientnonceserver nonce,s=AAECAwQFBgcICQoLDA0ODw==,i=4096", "unprintable"),
        (b"r=clientnonceservernonce,s=,i=4096", "salt has not 12 to 64"),
        (b"r=clientnonceservernonce,s=AAEC,i=4096", "salt has not 12 to 64"),
        (b"r=clientnonceservernonce,s=?,i=4096", "broken base64"),
        (b"r=clientnonceservernonce,s=AAECAwQFBgcICQoLDA0ODw==,i=", "no number"),
        (b"r=clientnonceservernonce,s=AAECAwQFBgcICQoLDA0ODw==,i=+4096", "no number"),
        (b"r=clientnonceservernonce,s=AAECAwQFBgcICQoLDA0ODw==,i=04096", "no number"),
        (b"r=clientnonceservernonce,s=AAECAwQFBgcICQoLDA0ODw==,i=12345678901", "no number"),
        (b"r=clientnonceservernonce,s=AAECAwQFBgcICQoLDA0ODw==,i=4095", "4096 to 1000000"),
        (b"r=" + b"x" * 2047, "more than 2048"),
    ],
)
def test_a_broken_answer_of_the_server_is_refused(message, complaint):
    with pytest.raises(ScramError, match=complaint):
        client().final(message)


def test_t19_a_server_that_asks_for_ten_million_iterations_gets_none(calls_of):
    asking = client()

    def give():
        with pytest.raises(ScramError, match="asks for 10000000 iterations"):
            asking.final(b"r=" + NONCE + b",s=AAECAwQFBgcICQoLDA0ODw==,i=10000000")

    assert not [call for call in calls_of(give) if "pbkdf2" in call or "stretch" in call]


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (b"", "no attribute v"),
        (b"v=", "proof is wrong"),
        (b"v=AAAA", "proof is wrong"),
        (b"v=" + scram.b64encode(bytes(32)), "proof is wrong"),
        (b"v=?", "broken base64"),
        (b"e=invalid-proof", "with an error"),
        (b"v=" + b"A" * 2048, "more than 2048"),
    ],
)
def test_t8_a_server_that_does_not_know_the_password_is_found_out(message, complaint):
    asking = client()
    asking.final(server().first(asking.first()))
    with pytest.raises(ScramError, match=complaint):
        asking.check(message)


def test_a_proof_before_there_is_anything_to_prove_is_none():
    with pytest.raises(ScramError, match="proof is wrong"):
        client().check(b"v=")


@pytest.mark.parametrize(
    ("name", "complaint"), [("a\0b", "NUL"), ("\ud800", "no Unicode text")], ids=["NUL", "half"]
)
def test_a_client_sends_no_name_that_cannot_be_written(name, complaint):
    with pytest.raises(ScramError, match=complaint):
        ScramClient(SHA_256, name, b"pencil", b"clientnonce")
    with pytest.raises(ScramError, match=complaint):
        ScramClient(SHA_256, "alice", b"pencil", b"clientnonce", authzid=name)


# Whatever is sent, nothing but ScramError comes of it

MOSTLY_SCRAM = st.lists(
    st.sampled_from(
        [
            *(b"n,,", b"y,a=x,", b"p=tls-server-end-point,,", b"n=alice", b"r=clientnonce", b","),
            *(b"r=" + NONCE, b"s=AAECAwQFBgcICQoLDA0ODw==", b"i=4096", b"c=biws", b",p=", b"v="),
            *(b"e=x", b"m=1", b"x=y", b"=2C", b"=", b"\xff", b"\0", b"AAAA", b"a=", b"n", b"\xc3"),
        ]
    ),
    max_size=12,
).map(b"".join)


@given(st.one_of(st.binary(max_size=64), MOSTLY_SCRAM), st.booleans())
def test_no_message_makes_the_server_raise_anything_else(message, plus):
    answering = server(plus=plus)
    for step in (answering.first, answering.final):
        with contextlib.suppress(ScramError):
            step(message)


@given(st.one_of(st.binary(max_size=64), MOSTLY_SCRAM))
def test_no_message_makes_the_client_raise_anything_else(message):
    asking = client(cache={("SHA-256", SALT, 4096): bytes(32)})
    for step in (asking.final, asking.check):
        with contextlib.suppress(ScramError):
            step(message)


@given(
    st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text),
    st.text(max_size=20).filter(lambda text: "\0" not in text),
    st.binary(min_size=18, max_size=18),
)
def test_every_name_and_nonce_that_a_client_sends_arrives(name, authzid, random):
    seen = []
    try:
        asking = ScramClient(SHA_256, name, b"pencil", scram.nonce(random), authzid=authzid)
    except ScramError:  # half a surrogate pair
        return
    answering = server(seen=seen)
    answering.first(asking.first())
    assert seen == [name]
    assert answering.authzid == authzid


# Verifiers


def test_a_verifier_survives_being_written_and_read():
    for hash in (SHA_256, SHA_512):
        made = Verifier.derive("pencil", dice()(16), 4096, hash)
        assert Verifier.parse(made.text()) == made


def test_a_verifier_of_postgresql_is_understood():
    # What `SELECT rolpassword FROM pg_authid` shows for the password "pencil" and this salt.
    text = "SCRAM-SHA-256$4096:AAECAwQFBgcICQoLDA0ODw==$" + PENCIL.text().rpartition("$")[2]
    assert Verifier.parse(text) == PENCIL
    assert matching([Verifier.parse(text)], b"pencil") == 0


KEYS = PENCIL.text().rpartition("$")[2]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not the form"),
        ("pencil", "not the form"),
        ("SCRAM-SHA-256$4096$AAAA:AAAA", "not the form"),
        ("SCRAM-SHA-256$4096:AAAA$AAAA", "not the form"),
        ("SCRAM-SHA-256$4096:AAAA$AAAA:AAAA:AAAA", "not the form"),
        (f"SCRAM-SHA-1$4096:AAECAwQFBgcICQoLDA0ODw==${KEYS}", "for none of SCRAM-SHA-256"),
        (f"md5$4096:AAECAwQFBgcICQoLDA0ODw==${KEYS}", "for none of SCRAM-SHA-256"),
        (f"SCRAM-SHA-256$x:AAECAwQFBgcICQoLDA0ODw==${KEYS}", "no number"),
        (f"SCRAM-SHA-256$4095:AAECAwQFBgcICQoLDA0ODw==${KEYS}", "4095 iterations"),
        (f"SCRAM-SHA-256$10000001:AAECAwQFBgcICQoLDA0ODw==${KEYS}", "10000001 iterations"),
        (f"SCRAM-SHA-256$4096:AAECAwQFBgcICQo=${KEYS}", "salt has not 12 to 64"),
        (f"SCRAM-SHA-256$4096:{'AAAA' * 22}${KEYS}", "salt has not 12 to 64"),
        (f"SCRAM-SHA-256$4096:ä${KEYS}", "broken base64"),
        (f"SCRAM-SHA-256$4096:\ud800${KEYS}", "broken base64"),
        ("SCRAM-SHA-256$4096:AAECAwQFBgcICQoLDA0ODw==$AAAA:AAAA", "not 32 bytes"),
        (f"SCRAM-SHA-512$4096:AAECAwQFBgcICQoLDA0ODw==${KEYS}", "not 64 bytes"),
    ],
)
def test_a_broken_verifier_is_refused_with_its_reason(text, complaint):
    with pytest.raises(ScramError, match=complaint):
        Verifier.parse(text)


@given(st.text(alphabet="SCRAM-256$:4096AB==/+ä", max_size=40))
def test_no_text_makes_the_reader_of_verifiers_raise_anything_else(text):
    with contextlib.suppress(ScramError):
        Verifier.parse(text)


def test_t37_a_verifier_that_is_shown_hides_its_keys():
    shown = repr(PENCIL)
    assert "4096" in shown
    for secret in (PENCIL.stored_key, PENCIL.server_key):
        assert repr(secret) not in shown
    assert KEYS not in shown


def test_verifiers_overlap_when_a_client_could_be_told_of_both():
    other_password = Verifier.derive("old pencil", SALT, 4096)
    assert PENCIL.overlaps(other_password)
    assert not PENCIL.overlaps(Verifier.derive("pencil", SALT[::-1], 4096))
    assert not PENCIL.overlaps(Verifier.derive("pencil", SALT, 4097))
    assert not PENCIL.overlaps(Verifier.derive("pencil", SALT, 4096, SHA_512))


def test_a_password_is_checked_against_all_verifiers():
    old = Verifier.derive("old pencil", SALT, 4096)
    assert matching([PENCIL, old], b"pencil") == 0
    assert matching([PENCIL, old], b"old pencil") == 1
    assert matching([PENCIL, old], b"no pencil") == -1
