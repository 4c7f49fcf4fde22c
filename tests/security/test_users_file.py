"""`users.toml` on disk: for its owner only, whole at any moment, with its comments."""

from __future__ import annotations

import os
import re
import resource
import signal
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from tests.security.chance import dice
from trigear.errors import ConfigError
from trigear.security.scram import SHA_256, SHA_512, Verifier, matching
from trigear.security.users import Users
from trigear.security.users_file import Directory, edit, load, mock_secret, read_private

TEXT = """\
# People of acme
version = 1

[users.alice]  # the first
tenant = "acme"
roles = ["submit"] # no more than that

# Bob works nights.
[users.bob]
roles = [
    "work",
]

# Carol is on leave.
[users.carol]
disabled = true
# That was all.
"""
NOBODY = 65534


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "users.toml"
    made.write_text(TEXT)
    made.chmod(0o600)
    return str(made)


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


# Reading


def test_a_file_of_ones_own_is_read(path):
    assert len(load(path)) == 3


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o604, 0o660, 0o601])
def test_t38_a_file_that_others_can_get_at_is_refused(path, mode):
    os.chmod(path, mode)
    complaint = f"users.toml: others may get at it (mode {mode:04o}); run: chmod 600 "
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        load(path)
    with pytest.raises(ConfigError, match=re.escape(complaint)), edit(path):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_t38_a_file_of_somebody_else_is_refused_unless_that_is_the_user_of_the_server(path):
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match="belongs to uid 65534, who could change it"):
        load(path)
    assert len(load(path, owners=[NOBODY])) == 3
    # Root may change it, and it stays theirs, lock included.
    os.chown(os.path.dirname(path), NOBODY, NOBODY)
    with edit(path) as editor:
        editor.set("bob", "disabled", True)
    status = os.stat(path)
    assert (status.st_uid, status.st_gid) == (NOBODY, NOBODY)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert os.stat(path + ".lock").st_uid == NOBODY


def test_a_file_that_is_not_there_and_one_that_is_none_are_told_apart(path, tmp_path):
    with pytest.raises(FileNotFoundError):
        load(str(tmp_path / "nothing"))
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigError, match="pipe: no plain file"):
        read_private(str(tmp_path / "pipe"))


def test_a_file_that_is_no_text_is_refused(path):
    with open(path, "wb") as file:
        file.write(b"version = 1 # \xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(path)


# A server's view


def test_a_server_takes_a_new_file_over_and_hears_what_changed(path):
    directory = Directory(path)
    with edit(path) as editor:
        editor.remove("alice")
        editor.set("bob", "roles", ["submit"])
    changes = directory.reload()
    assert changes.gone == {"alice", "carol"}
    assert changes.rights == {"bob"}
    assert directory.users.get("alice") is None


@pytest.mark.parametrize("fault", ["broken", "open", "gone"])
def test_t38_a_file_that_cannot_be_used_leaves_everything_as_it_was(path, fault):
    directory = Directory(path)
    before = directory.users
    if fault == "broken":
        with open(path, "a", encoding="utf-8") as file:
            file.write("[users.")
    elif fault == "open":
        os.chmod(path, 0o644)
    else:
        os.unlink(path)
    with pytest.raises((ConfigError, FileNotFoundError)):
        directory.reload()
    assert directory.users is before


# Changing


def test_a_change_leaves_every_other_line_as_it_was(path):
    with edit(path) as editor:
        editor.set("alice", "not_after", None)
        editor.set("bob", "disabled", True)
    assert read(path) == TEXT.replace('    "work",\n]\n', '    "work",\n]\ndisabled = true\n')
    with edit(path) as editor:
        editor.set("bob", "disabled", False)
    assert read(path) == TEXT.replace('    "work",\n]\n', '    "work",\n]\ndisabled = false\n')
    with edit(path) as editor:
        editor.set("bob", "disabled", None)
    assert read(path) == TEXT


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        (
            "alice",
            TEXT.replace(
                '[users.alice]  # the first\ntenant = "acme"\n'
                'roles = ["submit"] # no more than that\n',
                "",
            ),
        ),
        ("bob", TEXT.replace('[users.bob]\nroles = [\n    "work",\n]\n', "")),
        ("carol", TEXT.replace("[users.carol]\ndisabled = true\n", "")),
    ],
)
def test_removing_a_user_keeps_what_is_written_about_others(path, name, rest):
    with edit(path) as editor:
        editor.remove(name)
    assert read(path) == rest


WAYS_TO_WRITE = pytest.mark.parametrize(
    "text",
    [
        "version = 1\n[users.alice]",
        'version = 1\nusers.alice.tenant = "acme"\nusers.bob = {tenant = "acme"}\n',
        'version = 1\n[users]\nalice = {tenant = "acme"}\nbob = {}\n',
        'version = 1\n[users.bob]\n[users."alice"]\nsubmit = ["""\n[users.bob]\n""", "\'"]\n',
        'version = 1\n[users.bob]\nsubmit = ["""\n[users.alice]\n"""]\n[users.alice]\n',
        "version = 1\n[users.alice]\n",
    ],
)


@WAYS_TO_WRITE
def test_a_user_is_removed_however_it_is_written(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    before = {user.name: user for user in load(path)}
    with edit(path) as editor:
        editor.remove("alice")
    after = {user.name: user for user in load(path)}
    assert after == {name: user for name, user in before.items() if name != "alice"}


@WAYS_TO_WRITE
def test_a_user_gets_a_setting_however_it_is_written(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    with edit(path) as editor:
        editor.set("alice", "disabled", True)
    assert load(path).get("alice").disabled


def test_a_user_is_added_with_any_name_there_can_be(path):
    with edit(path) as editor:
        editor.add("dave.x@example+1", {"tenant": "acme", "roles": ["work"]})
    assert read(path).startswith(TEXT)
    assert load(path).get("dave.x@example+1").principal == "acme/dave.x@example+1"


def test_a_new_file_is_begun_only_when_asked_for_and_for_its_owner_only(tmp_path):
    path = str(tmp_path / "new.toml")
    with pytest.raises(FileNotFoundError), edit(path):
        pass
    with edit(path, create=True) as editor:
        editor.add("alice", {"roles": ["submit"]})
    assert read(path) == 'version = 1\n\n[users.alice]\nroles = ["submit"]\n'
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(path + ".lock").st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["new.toml", "new.toml.lock"]


def test_a_link_stays_a_link(path, tmp_path):
    os.symlink("users.toml", tmp_path / "link")
    with edit(str(tmp_path / "link")) as editor:
        editor.remove("carol")
    assert os.path.islink(tmp_path / "link")
    assert load(path).get("carol") is None


def test_a_file_that_did_not_change_is_not_written(path):
    before = os.stat(path).st_ino
    with edit(path):
        pass
    assert os.stat(path).st_ino == before


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda editor: editor.add("alice", {}), "users.alice: there is such a user already"),
        (lambda editor: editor.remove("eve"), "users.eve: there is no such user; known: alice, b"),
        (lambda editor: editor.set("eve", "disabled", True), "users.eve: there is no such user"),
        (lambda editor: editor.set("bob", "roles", ["root"]), "users.bob.roles: 'root' is no role"),
        (lambda editor: editor.add("a b", {}), "users.a b: no user name"),
        (
            lambda editor: editor.set_password("bob", "x", 4096, dice(), old_until=2e9),
            "users.bob.scram: there is no SCRAM-SHA-256 verifier that could stay beside a new one",
        ),
        (
            lambda editor: editor.set_password("eve", "x", 4096, dice(), old_until=2e9),
            "users.eve.scram: there is no SCRAM-SHA-256 verifier",
        ),
        (
            lambda editor: editor.set_password("eve", "x", 4096, dice()),
            "users.eve: there is no such user",
        ),
    ],
)
def test_a_change_that_cannot_be_is_refused_and_nothing_is_written(path, change, complaint):
    with pytest.raises(ConfigError, match=re.escape(complaint)), edit(path) as editor:
        change(editor)
    assert read(path) == TEXT
    assert not os.path.exists(path + ".new")


def test_a_file_without_users_knows_none(tmp_path):
    complaint = "there is no such user; known: none yet"
    path = str(tmp_path / "new.toml")
    with pytest.raises(ConfigError, match=complaint), edit(path, create=True) as editor:
        editor.remove("alice")


# Passwords


def test_a_password_gets_a_salt_of_its_own_and_the_old_one_is_worth_nothing(path):
    with edit(path) as editor:
        editor.set_password("bob", "first", 4096, dice("1"))
    with edit(path) as editor:
        editor.set_password("bob", "second", 5000, dice("2"))
    pair = load(path).get("bob").verifiers[SHA_256.mechanism]
    assert pair.old is None
    assert pair.current == Verifier.derive("second", dice("2")(16), 5000)


def test_with_an_overlap_both_passwords_are_good_and_then_one(path):
    with edit(path) as editor:
        editor.set_password("bob", "first", 4096, dice())
    with edit(path) as editor:
        editor.set_password("bob", "second", 600_000, dice(), old_until=2_000_000_000.7)
    users = load(path)
    assert users.get("bob").old_until == 2_000_000_000
    good = users.credentials("bob", SHA_256.mechanism, 1_999_999_999.0, b"s").verifiers
    assert [matching(good, password) for password in (b"first", b"second")] == [1, 0]
    with edit(path) as editor:
        editor.set_password("bob", "third", 4096, dice(), old_until=2_100_000_000)
    good = load(path).credentials("bob", SHA_256.mechanism, 2e9, b"s").verifiers
    assert [matching(good, p) for p in (b"first", b"second", b"third")] == [-1, 1, 0]
    with edit(path) as editor:
        editor.set_password("bob", "fourth", 4096, dice())
    assert load(path).get("bob").old_until is None


def test_a_password_can_have_verifiers_of_several_hashes(path):
    hashes = [SHA_256.mechanism, SHA_512.mechanism]
    with edit(path) as editor:
        editor.set_password("bob", "first", 4096, dice(), hashes=hashes)
    with edit(path) as editor:
        editor.set_password("bob", "second", 4096, dice(), hashes=hashes, old_until=2e9)
    users = load(path)
    assert users.covers(SHA_512)
    for mechanism in hashes:
        good = users.credentials("bob", mechanism, 1.9e9, b"s").verifiers
        assert [matching(good, password) for password in (b"first", b"second")] == [1, 0]


# Torn writes


@contextmanager
def files_no_larger_than(size):
    """What a full disk does to a write, as far as it can be had without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_t38_a_write_that_fails_half_way_changes_nothing(path):
    failing = pytest.raises(OSError, match="File too large")
    with files_no_larger_than(100), failing, edit(path) as editor:
        editor.set("bob", "disabled", True)
    assert read(path) == TEXT
    assert not os.path.exists(path + ".new")


WRITER = """
import sys
from trigear.security.users_file import edit
path = sys.argv[1]
for number in range(1_000_000):
    with edit(path) as editor:
        editor.set("bob", "submit", [f"job{number}x{part}" for part in range(50)])
    print(number, flush=True)
"""


def read_until_killed(path, writes):
    """How often the file was read while a process changed it so many times; then that process is
    killed, wherever it is by then. Nobody ever sees half a file."""
    looks = 0
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
    with writer:
        os.set_blocking(writer.stdout.fileno(), False)
        written = b""
        while written.count(b"\n") < writes:
            written += writer.stdout.read() or b""
            assert read(path).endswith(TEXT[-40:])
            assert writer.poll() is None
            looks += 1
        writer.kill()
    return looks


@pytest.mark.slow
def test_t38_a_writer_that_is_killed_leaves_a_whole_file_and_the_next_one_goes_on(path):
    # Eight times, which makes more than 200 writes.
    looks = [read_until_killed(path, 22 + number) for number in range(8)]
    assert sum(looks) > 1000
    assert len(load(path).get("bob").submit.globs) == 50
    with edit(path) as editor:
        editor.set("bob", "submit", None)
    assert read(path) == TEXT


def test_two_who_change_the_file_at_once_wait_for_each_other(path):
    inside, second_began, order = threading.Event(), threading.Event(), []

    def second():
        inside.wait()
        second_began.set()
        with edit(path) as editor:
            order.append("second")
            assert editor.users.get("bob").disabled
            editor.set("alice", "disabled", True)

    other = threading.Thread(target=second)
    other.start()
    with edit(path) as editor:
        inside.set()
        second_began.wait()
        editor.set("bob", "disabled", True)
        order.append("first")
    other.join()
    assert order == ["first", "second"]
    assert all(user.disabled for user in load(path))


# The secret of invented verifiers


def test_the_secret_is_made_once_and_for_its_owner_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (str(tmp_path / "secret"), "beside"):
        first = mock_secret(path, dice("first"))
        assert len(first) == 32
        assert mock_secret(path, dice("second")) == first
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_secret_that_is_damaged_or_no_secret_is_refused(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="5 bytes instead of 32; remove it"):
        mock_secret(str(path), dice())
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="others may get at it"):
        mock_secret(str(path), dice())


def test_what_an_editor_holds_is_what_the_file_means(path):
    with edit(path) as editor:
        assert {user.name for user in editor.users} == {user.name for user in Users.parse(TEXT)}
