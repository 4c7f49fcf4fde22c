"""What is odd about a users file though it can be used: for `trigear user check` and the log."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from trigear.security.policy import EVERY, Role
from trigear.security.scram import SALT_BYTES, SHA_256, SHA_512
from trigear.security.users import PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trigear.security.users import User, Users

_OTHER_SYNTAX: Final = frozenset("[]{}|^$\\()")


def remarks(users: Users, now: float) -> list[str]:
    """One line for each oddity: what, and what to do about it.

    Args:
        users: of a file that could be read.
        now: seconds since 1970.
    """
    lines = [line for user in users for line in _about(user, users, now)]
    lines += _about_names(users)
    lines += _about_costs(users)
    return lines


def _about(user: User, users: Users, now: float) -> Iterator[str]:
    name = user.name
    if not (user.verifiers or user.certificates or user.uids or user.disabled):
        yield (
            f"{name}: can log in only by a certificate that names trigear://{user.principal}; "
            "give it a password, a certificate or a system user"
        )
    for role in (Role.SUBMIT, Role.WORK):
        globs = user.submit if role is Role.SUBMIT else user.work
        if globs != EVERY and role not in user.roles:
            yield f"{name}: has {role.value} globs without the role {role.value}; add the role"
        for glob in globs.globs:
            if _OTHER_SYNTAX.intersection(glob):
                yield f"{name}: in the glob {glob!r} only * and ? are special; is that meant?"
    if user.serves and Role.WORK not in user.roles:
        yield f"{name}: serves tenants without the role work; add the role"
    if not user.disabled and not user.in_force(now):
        yield f"{name}: its time is over; remove it or set another not_after"
    if user.old_until is not None and user.old_until <= now:
        yield f"{name}: the replaced password is no longer good; remove it and old_until"
    for other in user.may_act_as:
        if users.get(other) is None:
            yield f"{name}: may act as {other}, who does not exist"
    for verifier in {pair.current for pair in user.verifiers.values()}:
        if len(verifier.salt) != SALT_BYTES:
            yield (
                f"{name}: has a salt of {len(verifier.salt)} bytes where others have {SALT_BYTES}; "
                "set the password anew"
            )


def _about_names(users: Users) -> Iterator[str]:
    spelt: dict[str, list[str]] = {}
    for user in users:
        spelt.setdefault(user.name.lower(), []).append(user.name)
    for names in spelt.values():
        if len(names) > 1:
            yield f"{' and '.join(names)}: differ in the size of letters only; rename all but one"


def _about_costs(users: Users) -> Iterator[str]:
    with_password = [user for user in users if PLAIN in user.verifiers]
    for hash in (SHA_256, SHA_512):
        have = [user.name for user in with_password if hash.mechanism in user.verifiers]
        if have and not users.covers(hash):
            lack = [user.name for user in with_password if hash.mechanism not in user.verifiers]
            yield (
                f"{', '.join(lack)}: no {hash.mechanism} verifier, so that it is offered to nobody;"
                " set these passwords anew"
            )
    # Who guesses a name sees the iterations. Of a number that one user has alone the invented
    # users have it as seldom, but they are the only ones who help to hide it.
    counts = Counter(user.verifiers[PLAIN].current.iterations for user in with_password)
    for user in with_password:
        iterations = user.verifiers[PLAIN].current.iterations
        if counts[iterations] == 1 and len(with_password) > 1:
            yield f"{user.name}: the only one with {iterations} iterations, which can be seen"
