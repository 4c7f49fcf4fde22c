"""Our SCRAM with an independent one at the other end."""

from __future__ import annotations

import pytest
from scramp import ScramClient as TheirClient
from scramp import ScramException, ScramMechanism

from trigear.security.scram import (
    HASHES,
    SHA_256,
    ScramClient,
    ScramError,
    ScramServer,
    Verifier,
    prepare,
)

SALT = bytes(range(16))
BINDING = ("tls-server-end-point", b"hash of a certificate")
MECHANISMS = ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512", "SCRAM-SHA-512-PLUS"]
USERS = ["alice", "a,b=c", "söhne"]
PASSWORDS = ["pencil", "I\u00adX\u2168"]  # the second is "IXIX" once it is prepared


def our_server(mechanism, password):
    hash = HASHES[mechanism.removesuffix("-PLUS")]
    verifier = Verifier.derive(password, SALT, 4096, hash)
    return ScramServer(
        hash,
        lambda name: (verifier,),
        b"servernonce",
        plus=mechanism.endswith("-PLUS"),
        bindings=dict([BINDING]),
        plus_offered=mechanism.endswith("-PLUS"),
    )


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_their_client_logs_in_at_our_server(mechanism, user, password):
    answering = our_server(mechanism, password)
    binding = BINDING if mechanism.endswith("-PLUS") else None
    asking = TheirClient([mechanism], user, password, channel_binding=binding)
    asking.set_server_first(answering.first(asking.get_client_first().encode()).decode())
    asking.set_server_final(answering.final(asking.get_client_final().encode()).decode())
    assert answering.username == user


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_their_client_with_another_password_does_not(mechanism):
    answering = our_server(mechanism, "pencil")
    binding = BINDING if mechanism.endswith("-PLUS") else None
    asking = TheirClient([mechanism], "alice", "pencils", channel_binding=binding)
    asking.set_server_first(answering.first(asking.get_client_first().encode()).decode())
    with pytest.raises(ScramError, match="the proof is wrong"):
        answering.final(asking.get_client_final().encode())


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_our_client_logs_in_at_their_server(mechanism, user, password):
    theirs = ScramMechanism(mechanism.removesuffix("-PLUS"))
    known = theirs.make_auth_info(password, iteration_count=4096, salt=SALT)
    plus = mechanism.endswith("-PLUS")
    answering = ScramMechanism(mechanism).make_server(
        lambda name: known if name == user else None, channel_binding=BINDING if plus else None
    )
    asking = ScramClient(
        HASHES[mechanism.removesuffix("-PLUS")],
        user,
        prepare(password),
        b"clientnonce",
        flag=f"p={BINDING[0]}" if plus else "n",
        binding=BINDING[1] if plus else b"",
    )
    answering.set_client_first(asking.first().decode())
    answering.set_client_final(asking.final(answering.get_server_first().encode()).decode())
    asking.check(answering.get_server_final().encode())


def test_our_client_with_another_password_does_not():
    theirs = ScramMechanism("SCRAM-SHA-256")
    known = theirs.make_auth_info("pencil", iteration_count=4096, salt=SALT)
    answering = theirs.make_server(lambda name: known)
    asking = ScramClient(SHA_256, "alice", b"pencils", b"clientnonce")
    answering.set_client_first(asking.first().decode())
    with pytest.raises(ScramException, match="keys don't match"):
        answering.set_client_final(asking.final(answering.get_server_first().encode()).decode())


def test_our_client_notices_their_server_with_another_password():
    theirs = ScramMechanism("SCRAM-SHA-256")
    stolen = theirs.make_auth_info("another", iteration_count=4096, salt=SALT)
    answering = theirs.make_server(lambda name: stolen)
    asking = ScramClient(SHA_256, "alice", b"pencil", b"clientnonce")
    answering.set_client_first(asking.first().decode())
    asking.final(answering.get_server_first().encode())
    with pytest.raises(ScramError, match="proof is wrong"):
        asking.check(b"v=" + b"A" * 43 + b"=")


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_verifiers_are_the_same_on_both_sides(mechanism):
    theirs = ScramMechanism(mechanism).make_auth_info("pencil", iteration_count=5000, salt=SALT)
    ours = Verifier.derive("pencil", SALT, 5000, HASHES[mechanism])
    assert (ours.salt, ours.stored_key, ours.server_key, ours.iterations) == theirs
