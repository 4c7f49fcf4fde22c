"""What the process does to itself: descriptors, pid file, privileges."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from trigear.cli.plan import PidFileSettings, Plan
from trigear.cli.process import PidFile, identity, raise_descriptor_limit
from trigear.cli.report import Failure, Status
from trigear.cli.serve import Launch

if TYPE_CHECKING:
    from pathlib import Path


def alone(code: str) -> str:
    """What a fresh process prints that runs ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Pid file


def test_pid_file_holds_the_process_id_and_goes_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    pid_file = PidFile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    pid_file.remove()
    assert not path.exists()
    pid_file.remove()  # once more does no harm


def test_pid_file_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    path.write_text("999999\nleft over\n")
    PidFile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"


def test_pid_file_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    target, path = tmp_path / "precious", tmp_path / "x.pid"
    target.write_text("secret")
    path.symlink_to(target)
    PidFile(str(path))
    assert target.read_text() == "secret"
    assert not path.is_symlink()


def test_pid_file_does_not_replace_what_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with pytest.raises(FileExistsError, match="is not a file"):
        PidFile(str(path))
    with pytest.raises(FileExistsError, match="is not a file"):
        PidFile(str(tmp_path))
    assert path.is_fifo()


def test_pid_file_that_another_server_has_replaced_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    mine = PidFile(str(path))
    PidFile(str(path))
    mine.remove()
    assert path.read_text() == f"{os.getpid()}\n"


def test_pid_file_that_is_gone_already_is_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    pid_file = PidFile(str(path))
    path.unlink()
    pid_file.remove()


def test_place_that_somebody_chose_must_be_writable(tmp_path: Path) -> None:
    place = str(tmp_path / "absent" / "x.pid")
    with pytest.raises(Failure, match=f"pid file {place}: No such file") as caught:
        Launch(Plan()).write_pid_file(PidFileSettings(place))
    assert caught.value.status == Status.NO


def test_place_that_nobody_chose_need_not_be_writable(tmp_path: Path) -> None:
    settings = PidFileSettings(str(tmp_path / "absent" / "x.pid"), required=False)
    assert Launch(Plan()).write_pid_file(settings) is None


@pytest.mark.usefixtures("as_root")
def test_pid_file_that_cannot_be_removed_is_left_empty(open_folder: Path) -> None:
    said = alone(f"""
        import os
        from trigear.cli.process import PidFile, become, identity
        pid_file = PidFile("{open_folder}/x.pid")
        become(identity("nobody"))
        pid_file.remove()
        print(os.path.getsize("{open_folder}/x.pid"))
    """)
    assert said == "0\n"


# Descriptors


def test_descriptor_limit_is_raised_to_what_is_allowed() -> None:
    said = alone("""
        import resource
        from trigear.cli.process import raise_descriptor_limit
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        print(raise_descriptor_limit() == hard)
        print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard)
    """)
    assert said == "True\nTrue\n"


def test_descriptor_limit_can_be_chosen() -> None:
    said = alone("""
        import resource
        from trigear.cli.process import raise_descriptor_limit
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        print(raise_descriptor_limit(100))
        print(resource.getrlimit(resource.RLIMIT_NOFILE) == (100, hard))
    """)
    assert said == "100\nTrue\n"


def test_more_descriptors_than_the_system_has_are_refused() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(Failure, match=f"{before[1]} at most") as caught:
        raise_descriptor_limit(1 << 40)
    assert caught.value.status == Status.NOT_ALLOWED
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


# Privileges


@pytest.mark.usefixtures("as_root")
def test_user_and_group_are_found_by_name_and_by_number() -> None:
    nobody = identity("nobody")
    assert (nobody.user, nobody.uid) == ("nobody", 65534)
    assert identity("65534") == nobody
    assert identity("nobody:daemon").gid == identity("nobody:1").gid == 1
    assert identity("root").uid == 0


@pytest.mark.parametrize("name", ["no-such-user", "nobody:no-such-group", "", "nobody:", "-7"])
def test_user_or_group_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(Failure, match=f"--user {name}: there is no (user|group)") as caught:
        identity(name, "--user")
    assert caught.value.status == Status.USAGE


def test_only_root_can_become_another_user() -> None:
    said = alone("""
        import os
        from trigear.cli.process import identity
        from trigear.cli.report import Failure
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            identity("root")
        except Failure as failure:
            print(failure.status, failure)
    """)
    assert said.startswith(f"{Status.NOT_ALLOWED} --run-as root: only root can become another user")


@pytest.mark.usefixtures("as_root")
def test_privileges_are_gone_with_all_groups() -> None:
    said = alone("""
        import os
        from trigear.cli.process import become, identity
        os.setgroups([0, 1, 2])
        become(identity("nobody:daemon"))
        print(os.getresuid(), os.getresgid(), os.getgroups())
        for regain in (os.setuid, os.seteuid, os.setgid, os.setegid):
            try:
                regain(0)
            except PermissionError:
                print("no way back")
    """)
    assert said.splitlines() == ["(65534, 65534, 65534) (1, 1, 1) []", *["no way back"] * 4]


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("sabotage", "words"),
    [
        # Each stands for a system on which a step does not do what it says.
        ("os.setuid = lambda uid: None", "did not become user 'nobody'"),
        ("os.setuid = os.seteuid", "did not become user 'nobody'"),
        ("os.setgid = lambda gid: None", "did not become user 'nobody'"),
        ("os.setgroups = lambda groups: None", "did not become user 'nobody'"),
        (
            "os.setuid = lambda uid: os.setresuid(uid, uid, 0)",
            "could become root again; not starting like that",
        ),
        ("os.setuid = denied", "cannot become user 'nobody': Operation not permitted"),
    ],
)
def test_privileges_that_are_not_surely_gone_stop_the_start(sabotage: str, words: str) -> None:
    said = alone(f"""
        import errno, os
        from trigear.cli.process import become, identity
        from trigear.cli.report import Failure
        def denied(uid):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        os.setgroups([0, 1, 2])
        target = identity("nobody")
        {sabotage}
        try:
            become(target)
        except Failure as failure:
            print(failure.status, failure)
    """)
    assert said.startswith(f"{Status.NOT_ALLOWED} ")
    assert words in said


@pytest.mark.usefixtures("as_root")
def test_becoming_root_is_staying_root_without_groups() -> None:
    said = alone("""
        import os
        from trigear.cli.process import become, identity
        become(identity("root"))
        print(os.getuid(), os.getgroups())
    """)
    assert said == "0 []\n"
