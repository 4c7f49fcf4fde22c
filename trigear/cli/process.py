"""What the process does to itself before it serves: descriptors, daemon, pid file, privileges.

All of this happens before Trio runs, in this order (`trigear.cli.serve` calls it):

1. **descriptor limit**: only root may raise the hard limit, so before privileges are dropped.
2. **daemon**: forking is safe only while there are no threads and no event loop. The terminal
   stays with the process until everything below has worked, and the parent waits for that: its
   exit status is the truth, and errors still have a reader.
3. **sockets**: a port below 1024 and a socket in root's directory need root. Before the pid file:
   a second server that fails on the port must not have touched the first one's file.
4. **pid file**: after the fork, it names the daemon; before privileges are dropped, its directory
   is root's.
5. **log file**: created for the user who will write it, opened only as that user.
6. **privileges**: last of what needs root; nothing has been accepted or read from a peer so far.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import resource
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trigear.cli.report import Failure, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

# --- descriptors


def raise_descriptor_limit(wanted: int | None = None) -> int:
    """Allow this process as many open files as it may have, or exactly ``wanted``.

    Returns:
        The limit that now holds.

    Raises:
        Failure: ``wanted`` is more than this process may have.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted is None:
        with contextlib.suppress(OSError, ValueError):  # a system with a cap of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    # A hard limit once lowered stays low: only root could raise it again, for a restart in place.
    ceiling = hard if hard == resource.RLIM_INFINITY else max(hard, wanted)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, ceiling))
    except (OSError, ValueError) as error:
        raise Failure(
            f"--file-descriptors {wanted}: this process may have {hard} at most;"
            " ask for fewer, or start as root",
            Status.NOT_ALLOWED,
        ) from error
    return wanted


# --- daemon


class Daemon:
    """The detached process' end of the wire to the parent that waits for it."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def ready(self) -> None:
        """Let go of the terminal and let the parent end with success."""
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        if null > 2:
            os.close(null)
        self.ended(0)

    def ended(self, status: int) -> None:
        """Let the parent end with ``status``; only the first call counts."""
        pipe, self.pipe = self.pipe, -1
        if pipe >= 0:
            with contextlib.suppress(BrokenPipeError):  # the parent was killed: nobody asks
                os.write(pipe, bytes([status]))
            os.close(pipe)


def detach() -> Daemon:
    """Go on in a process of its own session, without a terminal; the caller ends in the parent.

    The parent ends when the daemon calls :meth:`Daemon.ready` or :meth:`Daemon.ended`, with that
    status, or with 1 if the daemon dies without a word.
    """
    reading, writing = os.pipe()
    first = os.fork()
    if first:
        os.close(writing)
        os.waitpid(first, 0)
        word = os.read(reading, 1)
        # Not sys.exit: the interpreter's clean-up belongs to the process that goes on.
        os._exit(word[0] if word else Status.NO)
    os.close(reading)
    os.setsid()
    if os.fork():
        os._exit(0)  # a session's leader could get a terminal again by opening one
    os.chdir("/")  # else the directory of the start could not be unmounted
    return Daemon(writing)


# --- pid file


class PidFile:
    """A file with this process' id in it.

    An existing file is replaced: it is what a killed server left. Whether another server runs is
    decided by the port, which is bound before.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(mode := os.lstat(path).st_mode) and not stat.S_ISLNK(mode):
                # As root, replacing /dev/null would work, and break the machine.
                raise FileExistsError(errno.EEXIST, "exists and is not a file", path)
            os.unlink(path)
        # The descriptor stays open: see `remove`.
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        self.descriptor = os.open(path, flags, 0o644)
        os.write(self.descriptor, f"{os.getpid()}\n".encode())

    def remove(self) -> None:
        """Remove the file, unless another process has put its own in its place.

        Without the right to remove it (privileges were dropped, the directory is root's) it is
        left empty, so that it names nobody.
        """
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor < 0:
            return
        try:
            os.ftruncate(descriptor, 0)
            with contextlib.suppress(OSError):  # gone, or not ours to remove
                if os.path.samestat(os.lstat(self.path), os.fstat(descriptor)):
                    os.unlink(self.path)
        finally:
            os.close(descriptor)


# --- privileges


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and a group to become."""

    user: str
    uid: int
    gid: int


def identity(text: str, option: str = "--run-as") -> Identity:
    """Who `USER[:GROUP]` is, by name or by number; ``option`` is what errors call it.

    Raises:
        Failure: there is no such user or group, or this process is not root.
    """
    user, colon, group = text.partition(":")
    entry = find_user(user)
    if entry is None:
        raise Failure(f"{option} {text}: there is no user '{user}'", Status.USAGE)
    gid = entry.pw_gid
    if colon:
        found = find_group(group)
        if found is None:
            raise Failure(f"{option} {text}: there is no group '{group}'", Status.USAGE)
        gid = found
    if os.geteuid() != 0:
        raise Failure(
            f"{option} {text}: only root can become another user;"
            " start as root, or leave the option out",
            Status.NOT_ALLOWED,
        )
    return Identity(entry.pw_name, entry.pw_uid, gid)


def find_user(name: str) -> pwd.struct_passwd | None:
    with contextlib.suppress(KeyError, ValueError):
        return pwd.getpwnam(name)
    with contextlib.suppress(KeyError, ValueError, OverflowError):
        return pwd.getpwuid(int(name))
    return None


def find_group(name: str) -> int | None:
    with contextlib.suppress(KeyError, ValueError):
        return grp.getgrnam(name).gr_gid
    with contextlib.suppress(KeyError, ValueError, OverflowError):
        return grp.getgrgid(int(name)).gr_gid
    return None


def become(target: Identity) -> None:
    """Give up root for good; the supplementary groups go, too.

    Raises:
        Failure: it did not work, or root could be had again. The process must not go on.
    """
    try:
        os.setgroups([])
        os.setgid(target.gid)
        os.setuid(target.uid)
    except OSError as error:
        raise Failure(
            f"cannot become user '{target.user}': {error.strerror}", Status.NOT_ALLOWED
        ) from error
    # Believe the system's answer, not the calls: a process that thinks it dropped root is worse
    # than one that never tried.
    users = {os.getuid(), os.geteuid()}
    groups = {os.getgid(), os.getegid(), *os.getgroups()}
    if users != {target.uid} or groups != {target.gid}:
        raise Failure(
            f"did not become user '{target.user}': users {users}, groups {groups}",
            Status.NOT_ALLOWED,
        )
    if target.uid != 0 and root_can_be_had_again():
        raise Failure(
            f"became user '{target.user}', but could become root again; not starting like that",
            Status.NOT_ALLOWED,
        )


@contextlib.contextmanager
def rights_of(user: Identity | None) -> Iterator[None]:
    """Open files with the rights of this user, or with those there are, and be root again after.

    Only for trigear's own code, and only while there is one thread: code of others could take root
    back within.
    """
    if user is None:
        yield
        return
    groups, gid = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(user.gid)
    os.seteuid(user.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def root_can_be_had_again() -> bool:
    for regain in (os.setuid, os.seteuid):
        try:
            regain(0)
        except PermissionError:
            continue
        return True
    return False
