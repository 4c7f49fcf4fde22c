"""TLS: who gets through a handshake, what a channel is bound to, and reloads that cannot break."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import re
import ssl
import time
import warnings

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from tests.security.certificates import DAY, SERVER, Authority, self_signed
from trigear.errors import ConfigError
from trigear.security import tls
from trigear.security.layer import refusal
from trigear.security.tls import (
    END_POINT,
    UNIQUE,
    ClientCertificates,
    ClientTLS,
    Listening,
    ServerTLS,
    bindings,
    build_client,
    build_server,
    shake_hands,
)

# OpenSSL compares certificates with the machine's clock, so these tests do as well.
NOW = time.time()
ASKING = [ClientCertificates.OPTIONAL, ClientCertificates.REQUIRED]


class Files:
    """A folder with an authority, a server's certificate and whatever else a test needs."""

    def __init__(self, folder):
        self.folder = folder
        self.authority = Authority()
        self.ca = self.put("ca.pem", self.authority.pem)
        self.certificate, self.key = self.authority.server().write(folder, "server")

    def put(self, name, data, mode=0o600):
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(mode)
        return str(path)

    def server(self, clients=ClientCertificates.NONE, **options):
        settings = {"certificate": self.certificate, "key": self.key, "clients": clients}
        if clients is not ClientCertificates.NONE:
            settings["client_ca"] = self.ca
        return ServerTLS(**(settings | options))

    def client(self, issued=None, **options):
        settings = {"ca": self.ca}
        if issued is not None:
            settings["certificate"], settings["key"] = issued.write(self.folder, "client")
        return ClientTLS(**(settings | options))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def fresh(tmp_path):
    """For tests that change the files."""
    return Files(tmp_path)


def connected(server, client, name="localhost", session=None):
    """Client's and server's end after the handshake; raises what the one that refuses raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=name, session=session),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    shake_hands(*ends)
    return ends


# Getting through


@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_client_and_server_understand_each_other_and_agree_on_gearman(files, version, strict):
    context = build_client(files.client(strict=strict))
    context.maximum_version = {
        name: getattr(ssl.TLSVersion, name.replace(".", "_")) for name in ("TLSv1.2", "TLSv1.3")
    }[version]
    near, far = connected(build_server(files.server(strict=strict), NOW), context)
    assert near.version() == far.version() == version
    assert near.selected_alpn_protocol() == far.selected_alpn_protocol() == "gearman"
    near.write(b"there")
    assert far.read() == b"there"
    for end in (near, far):
        assert bool(end.context.verify_flags & ssl.VERIFY_X509_STRICT) is strict


def test_a_client_that_knows_nothing_of_alpn_is_served(files):
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain.load_verify_locations(files.ca)
    near, far = connected(build_server(files.server(), NOW), plain)
    assert near.selected_alpn_protocol() is far.selected_alpn_protocol() is None


def test_old_versions_and_weak_ciphers_are_refused(files):
    server = build_server(files.server(), NOW)
    assert {cipher["protocol"] for cipher in server.get_ciphers()} == {"TLSv1.2", "TLSv1.3"}
    for cipher in server.get_ciphers():
        assert cipher["aead"]
        assert cipher["protocol"] == "TLSv1.3" or cipher["name"].startswith("ECDHE-")
    newest = build_server(files.server(minimum="1.3"), NOW)
    old = build_client(files.client())
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="unsupported protocol"):
        connected(newest, old)
    with pytest.raises(ssl.SSLError, match="unsupported protocol"):
        connected(server, of_1_1())


def of_1_1():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("elsewhere.example", "Hostname mismatch"), ("127.0.0.1", "IP address mismatch")],
)
def test_a_client_refuses_a_server_of_another_name(files, name, complaint):
    with pytest.raises(ssl.SSLCertVerificationError, match=complaint):
        connected(build_server(files.server(), NOW), build_client(files.client()), name)


def test_a_client_trusts_nobody_but_its_authorities(files, tmp_path):
    other = tmp_path / "other.pem"
    other.write_bytes(Authority().pem)
    server = build_server(files.server(), NOW)
    for settings in (ClientTLS(ca=str(other)), ClientTLS()):
        with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
            connected(server, build_client(settings))


def test_verification_is_off_only_when_that_is_said_and_then_the_context_says_so(files):
    server = build_server(files.server(), NOW)
    open_to_all = build_client(ClientTLS(verify=False))
    connected(server, open_to_all, "elsewhere.example")
    assert not open_to_all.verified
    assert build_client(files.client()).verified


# Client certificates


@pytest.mark.parametrize("clients", ASKING)
def test_a_good_client_certificate_is_accepted_and_can_be_read(files, clients):
    issued = files.authority.client()
    server = build_server(files.server(clients), NOW)
    _, far = connected(server, build_client(files.client(issued)))
    assert far.getpeercert(binary_form=True) == issued.der


def test_who_has_no_certificate_is_let_in_where_none_is_required(files):
    for clients in (ClientCertificates.NONE, ClientCertificates.OPTIONAL):
        server = build_server(files.server(clients), NOW)
        _, far = connected(server, build_client(files.client()))
        assert far.getpeercert(binary_form=True) is None
    with pytest.raises(ssl.SSLError, match="peer did not return a certificate"):
        connected(
            build_server(files.server(ClientCertificates.REQUIRED), NOW),
            build_client(files.client()),
        )


def expired(files):
    return files.authority.client(begins=-2 * DAY, expires=-DAY)


def not_yet(files):
    return files.authority.client(begins=DAY)


def for_servers(files):
    return files.authority.issue("alice", usage=[SERVER])


def of_others(files):
    return Authority().client()


def of_others_with_the_same_name(files):
    return Authority("tests").client()


def of_itself(files):
    return Authority("alice")


@pytest.mark.parametrize("clients", ASKING)
@pytest.mark.parametrize(
    ("issue", "complaint"),
    [
        (expired, "certificate has expired"),
        (not_yet, "certificate is not yet valid"),
        (for_servers, "unsuitable certificate purpose|unsupported certificate"),
        (of_others, "unable to get local issuer certificate"),
        (of_others_with_the_same_name, "unable to get local issuer certificate|signature failure"),
        (of_itself, "self-signed certificate|unable to get local issuer"),
    ],
)
def test_t23_a_bad_client_certificate_is_refused_also_where_none_is_required(
    files, clients, issue, complaint
):
    server = build_server(files.server(clients), NOW)
    with pytest.raises(ssl.SSLError, match=complaint):
        connected(server, build_client(files.client(issue(files))))


@pytest.mark.parametrize("clients", ASKING)
def test_t23_a_revoked_client_certificate_is_refused_and_others_are_not(fresh, clients):
    revoked, good = fresh.authority.client("revoked"), fresh.authority.client("good")
    crl = fresh.put("crl.pem", fresh.authority.crl(revoked))
    server = build_server(fresh.server(clients, crl=crl), NOW)
    connected(server, build_client(fresh.client(good)))
    with pytest.raises(ssl.SSLError, match="certificate revoked"):
        connected(server, build_client(fresh.client(revoked)))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_t24_no_session_outlives_the_reload_that_revokes_its_certificate(fresh, version):
    revoked = fresh.authority.client("revoked")
    crl = fresh.put("crl.pem", fresh.authority.crl())
    listening = Listening(fresh.server(ClientCertificates.REQUIRED, crl=crl), NOW)
    context = build_client(fresh.client(revoked))
    context.maximum_version = version
    near, _ = connected(listening.context, context)
    session = near.session
    fresh.put("crl.pem", fresh.authority.crl(revoked))
    listening.reload(NOW)
    with pytest.raises(ssl.SSLError, match="certificate revoked"):
        connected(listening.context, context, session=session)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_t24_a_new_context_resumes_no_session_of_the_old_one(fresh, version):
    listening = Listening(fresh.server(), NOW)
    context = build_client(fresh.client())
    context.maximum_version = version
    near, _ = connected(listening.context, context)
    assert not near.session.has_ticket
    listening.reload(NOW)
    again, _ = connected(listening.context, context, session=near.session)
    assert not again.session_reused


# Channel binding


@pytest.mark.parametrize(
    ("maximum", "types"),
    [
        (ssl.TLSVersion.TLSv1_2, {END_POINT, UNIQUE}),
        (ssl.TLSVersion.TLSv1_3, {END_POINT}),
    ],
)
def test_t10_both_sides_bind_to_the_same_and_tls_unique_is_none_of_1_3(files, maximum, types):
    context = build_client(files.client())
    context.maximum_version = maximum
    near, far = connected(build_server(files.server(), NOW), context)
    assert bindings(near) == bindings(far)
    assert bindings(near).keys() == types
    served = near.getpeercert(binary_form=True)
    assert bindings(near)[END_POINT] == hashlib.sha256(served).digest()


def test_t9_a_relay_with_another_good_certificate_makes_for_another_binding(fresh):
    real = build_server(fresh.server(), NOW)
    certificate, key = fresh.authority.server().write(fresh.folder, "relay")
    relay = build_server(ServerTLS(certificate, key), NOW)
    near, _ = connected(relay, build_client(fresh.client()))
    _, far = connected(real, build_client(fresh.client()))
    assert bindings(near)[END_POINT] != bindings(far)[END_POINT]


def test_a_certificate_that_cannot_be_bound_to_is_served_without(fresh):
    issued = fresh.authority.server(key=ed25519.Ed25519PrivateKey.generate())
    certificate, key = issued.write(fresh.folder, "ed25519")
    # What counts is the signature on the certificate, which here is the authority's.
    assert build_server(ServerTLS(certificate, key), NOW).endpoint_hash is not None
    own = tls_of_its_own(fresh, ed25519.Ed25519PrivateKey.generate(), None)
    server = build_server(own, NOW)
    assert server.endpoint_hash is None
    near, far = connected(server, build_client(ClientTLS(verify=False)))
    assert bindings(near) == bindings(far) == {}


def tls_of_its_own(files, key, hash):
    certificate, path = self_signed(key, hash).write(files.folder, "own")
    return ServerTLS(certificate, path)


def test_a_certificate_that_only_openssl_can_read_is_one_without_a_binding():
    assert tls._quiet_hash(b"nonsense") is None


# Names


def test_a_listener_serves_the_certificate_of_the_name_that_is_asked_for(fresh):
    other = ServerTLS(*fresh.authority.server("jobs.example").write(fresh.folder, "jobs"))
    listening = Listening(fresh.server(names={"Jobs.Example": other}), NOW)
    server = listening.reload(NOW)
    for name in ("localhost", "jobs.example"):
        near, far = connected(server, build_client(fresh.client()), name)
        assert bindings(near) == bindings(far)
        assert far.context.generation == 2
    # Who names nothing, or something else, gets the first one.
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        connected(server, build_client(fresh.client()), "elsewhere.example")
    near, _ = connected(server, build_client(ClientTLS(verify=False)), None)
    assert bindings(near)[END_POINT] == server.endpoint_hash


@pytest.mark.parametrize(
    "change",
    [
        {"clients": ClientCertificates.NONE, "client_ca": "", "crl": ""},
        {"clients": ClientCertificates.REQUIRED},
        {"client_ca": "other.pem"},
        {"crl": "other.pem"},
        {"minimum": "1.3"},
        {"strict": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_t25_names_of_one_listener_demand_the_same_of_clients(change):
    common = {"clients": ClientCertificates.OPTIONAL, "client_ca": "ca.pem", "crl": "crl.pem"}
    other = ServerTLS("other.pem", "other-key.pem", **(common | change))
    complaint = "names.jobs.example: other demands on clients than the listener's; give names"
    with pytest.raises(ConfigError, match=complaint):
        ServerTLS("a.pem", "a-key.pem", **common, names={"jobs.example": other})


# Reload


def test_a_reload_puts_the_new_certificate_in_place_and_leaves_connections_alone(fresh):
    listening = Listening(fresh.server(), NOW)
    before = listening.context
    near, far = connected(before, build_client(fresh.client()))
    fresh.authority.server().write(fresh.folder, "server")
    after = listening.reload(NOW)
    assert listening.context is after is not before
    assert (before.generation, after.generation) == (1, 2)
    assert far.context is before
    near.write(b"still there")
    assert far.read() == b"still there"
    again, _ = connected(after, build_client(fresh.client()))
    assert bindings(again)[END_POINT] == after.endpoint_hash != before.endpoint_hash


def test_a_reload_may_come_with_other_settings(fresh):
    listening = Listening(fresh.server(), NOW)
    settings = fresh.server(ClientCertificates.REQUIRED)
    assert listening.reload(NOW, settings).verify_mode is ssl.CERT_REQUIRED
    assert listening.settings is settings


@pytest.mark.parametrize("fault", ["key", "gone", "broken", "expired", "settings"])
def test_t26_a_reload_that_fails_leaves_the_old_certificate_in_service(fresh, fault):
    listening = Listening(fresh.server(), NOW)
    before, settings = listening.context, listening.settings
    now, other = NOW, None
    if fault == "key":
        fresh.put("server-key.pem", fresh.authority.server().key_pem())
    elif fault == "gone":
        os.unlink(fresh.key)
    elif fault == "broken":
        fresh.put("server.pem", b"-----BEGIN CERTIFICATE-----")
    elif fault == "expired":
        now = NOW + 100 * 86400
    else:
        other = fresh.server(certificate="nowhere.pem")
    with pytest.raises(ConfigError):
        listening.reload(now, other)
    assert listening.context is before
    assert listening.settings is settings
    connected(listening.context, build_client(fresh.client()))


# What is wrong with a file, in words


def server_complaint(files, **options):
    with pytest.raises(ConfigError) as refused:
        build_server(files.server(**options), NOW)
    return str(refused.value)


def test_a_file_that_is_not_there_is_named(files):
    missing = str(files.folder / "missing.pem")
    for option in ("certificate", "key"):
        assert server_complaint(files, **{option: missing}) == (
            f"{missing}: it cannot be read: No such file or directory; check the path and its "
            "rights"
        )
    complaint = server_complaint(files, clients=ClientCertificates.REQUIRED, client_ca=missing)
    assert complaint.startswith(f"{missing}: it cannot be read")


@pytest.mark.parametrize(
    ("option", "what"),
    [
        ("certificate", "certificate"),
        ("key", "private key"),
        ("client_ca", "certificate"),
        ("crl", "revocation list"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN X509 CRL-----\nAAAA\n"])
def test_a_file_with_something_else_in_it_is_named(fresh, option, what, content):
    path = fresh.put("odd.pem", content)
    options = {"clients": ClientCertificates.REQUIRED, option: path}
    assert server_complaint(fresh, **options) == (
        f"{path}: there is no {what} in it that can be read; PEM is needed"
    )


def test_a_key_of_another_certificate_is_named_with_it(fresh):
    other = fresh.put("other-key.pem", fresh.authority.server().key_pem())
    assert server_complaint(fresh, key=other) == (
        f"{other}: it is not the key of {fresh.certificate}; name the two files that belong "
        "together"
    )


def test_an_encrypted_key_is_refused_instead_of_asking_for_its_password(fresh):
    issued = fresh.authority.server()
    certificate, _ = issued.write(fresh.folder, "other")
    key = fresh.put("encrypted.pem", issued.key_pem(b"password"))
    assert server_complaint(fresh, certificate=certificate, key=key) == (
        f"{key}: it is encrypted, and nobody is there to type its password; run: openssl pkey -in "
        f"{key} -out FILE, and keep FILE from others"
    )
    # Should one ever come as far as OpenSSL, it does not ask either.
    with pytest.raises(ConfigError, match=f"{re.escape(certificate)}: OpenSSL refuses it"):
        tls._load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key)


def test_a_key_that_everybody_can_read_is_refused_and_one_for_a_group_is_not(fresh):
    os.chmod(fresh.key, 0o644)
    assert server_complaint(fresh) == (
        f"{fresh.key}: everybody may get at it (mode 0644); run: chmod 600 {fresh.key}"
    )
    os.chmod(fresh.key, 0o640)
    build_server(fresh.server(), NOW)


def test_an_expired_certificate_is_not_served(fresh):
    certificate, key = fresh.authority.server(begins=-3 * DAY, expires=-DAY).write(
        fresh.folder, "expired"
    )
    day = f"{datetime.datetime.now(datetime.UTC) - DAY:%Y-%m-%d}"
    assert server_complaint(fresh, certificate=certificate, key=key) == (
        f"{certificate}: it expired on {day}; put a certificate there that is valid"
    )


def test_a_context_knows_when_its_certificate_expires(fresh):
    issued = fresh.authority.server(expires=5 * DAY)
    certificate, key = issued.write(fresh.folder, "short")
    expires = build_server(ServerTLS(certificate, key), NOW).expires
    assert expires == issued.certificate.not_valid_after_utc.timestamp()


def test_a_listener_knows_when_each_of_its_files_ends_and_what_that_means(fresh):
    crl = fresh.put("crl.pem", fresh.authority.crl(expires=3 * DAY))
    asking = {"clients": ClientCertificates.REQUIRED, "client_ca": fresh.ca, "crl": crl}
    jobs = fresh.authority.server("jobs.example", expires=5 * DAY).write(fresh.folder, "jobs")
    listening = Listening(fresh.server(names={"Jobs": ServerTLS(*jobs, **asking)}, **asking), NOW)
    days = {name: round((end - NOW) / DAY.total_seconds()) for name, end in listening.ends.items()}
    assert days == {
        (fresh.certificate, "clients refuse this server"): 20,
        (jobs[0], "clients refuse this server"): 5,
        (crl, "no client certificate is accepted"): 3,
    }
    assert list(Listening(fresh.server(), NOW).ends) == [
        (fresh.certificate, "clients refuse this server")
    ]


def test_a_certificate_that_no_client_could_use_is_not_served(fresh):
    settings = tls_of_its_own(fresh, ec.generate_private_key(ec.SECP256K1()), hashes.SHA256())
    with pytest.raises(ConfigError, match=r"no client can connect with it: .*; use a certificate"):
        build_server(settings, NOW)


def test_what_openssl_refuses_is_said_in_its_words(fresh):
    settings = tls_of_its_own(fresh, rsa.generate_private_key(65537, 1024), hashes.SHA256())
    with pytest.raises(ConfigError, match=r"own.pem: OpenSSL refuses it: ee key too small"):
        build_server(settings, NOW)


def test_a_revocation_list_of_somebody_else_is_named(fresh):
    # The last of them has the name of one that signs lists, and a key that signs nothing.
    key = x25519.X25519PrivateKey.generate()
    silent = fresh.put("silent.pem", fresh.authority.issue("tests", key=key).pem)
    for other, name, ca in (
        (Authority("others"), "CN=others", fresh.ca),
        (Authority(), "CN=tests", fresh.ca),
        (Authority(), "CN=tests", silent),
    ):
        crl = fresh.put("crl.pem", other.crl())
        options = {"clients": ClientCertificates.OPTIONAL, "client_ca": ca, "crl": crl}
        assert server_complaint(fresh, **options) == (
            f"{crl}: its list of {name} is of none of the authorities; name the list that belongs "
            "to client_ca"
        )


def test_a_revocation_list_that_is_out_of_date_is_named(fresh):
    crl = fresh.put("crl.pem", fresh.authority.crl(expires=-DAY))
    complaint = server_complaint(fresh, clients=ClientCertificates.OPTIONAL, crl=crl)
    assert "it is out of date since " in complaint
    assert complaint.endswith("fetch the new list from the authority")


def test_several_authorities_with_their_lists_can_stand_in_one_file(fresh):
    other = Authority("others")
    revoked, good = other.client("revoked"), fresh.authority.client("good")
    ca = fresh.put("both.pem", fresh.authority.pem + other.pem)
    crl = fresh.put("both-crl.pem", fresh.authority.crl() + b"\n" + other.crl(revoked))
    settings = fresh.server(ClientCertificates.REQUIRED, client_ca=ca, crl=crl)
    server = build_server(settings, NOW)
    connected(server, build_client(fresh.client(good)))
    with pytest.raises(ssl.SSLError, match="certificate revoked"):
        connected(server, build_client(fresh.client(revoked)))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (
            lambda: ServerTLS("a", "b", clients=ClientCertificates.OPTIONAL),
            "client_ca: client certificates are optional, and no authority is named; name the file",
        ),
        (
            lambda: ServerTLS("a", "b", client_ca="ca.pem"),
            "client_ca: ca.pem has no effect, because no client is asked for a certificate; make",
        ),
        (lambda: ServerTLS("a", "b", crl="crl.pem"), "crl: crl.pem has no effect"),
        (lambda: ServerTLS("a", "b", minimum="1.1"), "tls_min: '1.1' is no version of TLS; write"),
        (lambda: ClientTLS(minimum=""), "tls_min: '' is no version of TLS; write 1.2 or 1.3"),
        (lambda: ClientTLS(certificate="a"), "cert: a alone is of no use; name both"),
        (lambda: ClientTLS(key="b"), "key: b alone is of no use; name both certificate and key"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(make, complaint):
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        make()


def test_a_client_names_the_file_that_it_cannot_use(fresh):
    with pytest.raises(ConfigError, match=r"nowhere.pem: it cannot be read"):
        build_client(ClientTLS(ca="nowhere.pem"))
    odd = fresh.put("odd.pem", b"nonsense")
    with pytest.raises(ConfigError, match=r"odd.pem: there is no certificate in it"):
        build_client(ClientTLS(ca=odd))
    certificate, _ = fresh.authority.client().write(fresh.folder, "client")
    with pytest.raises(ConfigError, match=r"server-key.pem: it is not the key of .*client.pem"):
        build_client(ClientTLS(ca=fresh.ca, certificate=certificate, key=fresh.key))


def test_t37_no_message_about_a_key_has_anything_of_it(fresh):
    secret = b"-----BEGIN PRIVATE KEY-----\nTOPSECRETTOPSECRET\n-----END PRIVATE KEY-----\n"
    path = fresh.put("odd-key.pem", secret)
    with contextlib.suppress(ConfigError):
        build_server(fresh.server(key=path), NOW)
    assert "TOPSECRET" not in server_complaint(fresh, key=path)


def test_context_that_is_made_already_is_taken_as_it_is() -> None:
    made = build_client(ClientTLS(verify=False))
    assert build_client(made) is made
    assert not made.certified


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] x"), "refuses us: .*cert and"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] x"), "does not speak TLS there"),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), "does not speak TLS there"),
        (ssl.SSLError(1, "no shared cipher"), "^TLS failed: "),
    ],
)
def test_what_openssl_says_is_explained(error: ssl.SSLError, words: str) -> None:
    assert re.search(words, refusal(error))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Hostname mismatch, certificate is not valid for 'a'.", "for 'a'; name the server as"),
        (
            "unable to get local issuer certificate",
            r"name the authority that signed it \(ca, or --ca FILE\)$",
        ),
    ],
)
def test_a_certificate_that_is_not_trusted_is_explained(message: str, words: str) -> None:
    error = ssl.SSLCertVerificationError(1, "x")
    error.verify_message = message
    assert re.search(words, refusal(error))
