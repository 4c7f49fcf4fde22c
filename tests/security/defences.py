"""Takes out one defence after the other, and sees whether a test notices.

A line of :data:`DEFENCES` is a change of the source that takes one defence out, and the tests that
must fail then. Each change is made in a copy of the tree that is thrown away afterwards::

    python -m tests.security.defences            # all of them
    python -m tests.security.defences T33 T14    # those against these threats

Exit status 1: a defence can be taken out without a test noticing, or a test fails with all of them
in place.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent.parent

PATIENCE: Final = 300.0
"""Seconds that the tests of one defence may take."""

SHOWN: Final = 2000
"""Characters of what pytest says that are shown."""


class Defence(NamedTuple):
    """One defence: against which threat, what it is, in which file under ``trigear/``, what stands
    there, what stands there without it, and the tests that notice, as pytest names them."""

    threat: str
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


_LEAKS: Final = "tests/engine/test_leaks.py"
_LOGINS: Final = "tests/engine/test_logins.py"
_MECHS: Final = "tests/security/test_mechs.py"
_FAILURES: Final = "tests/security/test_mechs_failures.py"
_POLICY: Final = "tests/security/test_policy.py"
_SCRAM: Final = "tests/security/test_scram.py"
_THREATS: Final = "tests/engine/test_threats.py"
_THROTTLE: Final = "tests/security/test_throttle.py"
_TLS: Final = "tests/security/test_tls.py"
_TOGETHER: Final = (
    "tests/engine/test_two_tenants.py::test_t33_a_tenant_sees_what_it_would_see_alone"
)
_USERS_FILE: Final = "tests/security/test_users_file.py"
_X509: Final = "tests/security/test_x509id.py"

DEFENCES: Final = (
    Defence(
        "T1",
        "what is no part of a login needs one",
        "protocol/auth.py",
        "if needs_login and self._before is Stage.UNAUTH:",
        "if False:",
        (f"{_THREATS}::test_t1_no_command_is_heard_before_a_login_but_those_that_tell_nothing",),
    ),
    Defence(
        "T1",
        "before a login only its own packets have rows",
        "engine/guarded_rows.py",
        "return rows_for(_handlers(cls, frozenset(_ALWAYS)))",
        'return rows_for(_handlers(cls, frozenset((*_ALWAYS, "SUBMIT_JOB", "CAN_DO"))))',
        (
            f"{_THREATS}::test_t1_of_all_types_of_packets_only_those_of_a_login_are_heard_before_one",
        ),
    ),
    Defence(
        "T2",
        "a failed login leaves the connection where it was",
        "protocol/auth.py",
        "        self.stage = self._before\n        self._failures += counts",
        "        self._failures += counts",
        (f"{_THREATS}::test_t2_after_a_failure_every_request_is_refused",),
    ),
    Defence(
        "T2",
        "the third failure is the end",
        "protocol/auth.py",
        "if refusal.closes or self._failures >= ATTEMPTS:",
        "if refusal.closes:",
        (f"{_LOGINS}::test_t2_a_wrong_password_is_told_after_a_while_and_the_third_is_the_end",),
    ),
    Defence(
        "T3",
        "what comes behind a failure waits for its answer",
        "engine/entering.py",
        "        self.hold()\n"
        "        self._after(delays * self._logins.delay(), lambda now: self._refuse_now(refusal))",
        "        self._after(delays * self._logins.delay(), lambda now: self._refuse_now(refusal))",
        (f"{_LOGINS}::test_t3_what_comes_behind_a_failure_is_not_heard",),
    ),
    Defence(
        "T4",
        "a login begins only where it was asked for, and once",
        "protocol/auth.py",
        "if self.in_exchange or not self.asked:",
        "if False:",
        (f"{_LOGINS}::test_t4_sasl_out_of_order_is_the_end",),
    ),
    Defence(
        "T6",
        "a client that could bind and was not shown -PLUS is refused",
        "security/scram.py",
        "            if self._plus_offered:\n",
        "            if False:\n",
        (f"{_SCRAM}::test_t6_a_client_that_could_bind_and_was_not_shown_plus_is_refused",),
    ),
    Defence(
        "T9",
        "the proof is bound to the certificate",
        "security/scram.py",
        "if not hmac.compare_digest(_base64(binding), self._binding):",
        "if False:",
        (f"{_SCRAM}::test_a_relay_with_another_certificate_is_refused",),
    ),
    Defence(
        "T10",
        "tls-unique is none of TLS 1.3",
        "security/tls.py",
        'if connection.version() == "TLSv1.2":',
        "if True:",
        (f"{_TLS}::test_t10_both_sides_bind_to_the_same_and_tls_unique_is_none_of_1_3",),
    ),
    Defence(
        "T11",
        "what is not offered on a channel cannot be begun there",
        "security/mechs.py",
        "if mechanism not in offered:",
        "if False:",
        (f"{_MECHS}::test_t11_what_is_not_offered_cannot_be_begun",),
    ),
    Defence(
        "T13",
        "names that nobody has get the same salt every time",
        "security/users.py",
        'salt = hmac.digest(secret, b"salt\\0" + about, "sha512")',
        'salt = __import__("os").urandom(64)',
        (
            f"{_THREATS}::test_t13_a_user_and_nobody_get_the_same_answers_before_and_after_a_restart",
        ),
    ),
    Defence(
        "T14",
        "verifiers are invented for everybody, not for nobody alone",
        "security/users.py",
        "        invented = self._invented(name, kind, secret)\n"
        "        user = self._by_name.get(name, _NOBODY)\n",
        "        user = self._by_name.get(name, _NOBODY)\n"
        "        if user is not _NOBODY and user.verifiers.get(kind) is not None:\n"
        "            pair = user.verifiers[kind]\n"
        "            return Credentials(user, (pair.current, pair.old or pair.current))\n"
        "        invented = self._invented(name, kind, secret)\n",
        ("tests/security/test_users.py::test_t14_looking_up_takes_the_same_steps_for_everybody",),
    ),
    Defence(
        "T14",
        "every verifier is tried, whichever it is",
        "security/scram.py",
        "            if hmac.compare_digest(key, verifier.stored_key):\n"
        "                matched = position\n        if matched < 0:",
        "            if hmac.compare_digest(key, verifier.stored_key):\n"
        "                matched = position\n                break\n        if matched < 0:",
        (f"{_FAILURES}::test_t14_the_current_password_takes_the_same_steps_as_the_one_before",),
    ),
    Defence(
        "T15",
        "an address has a bucket of failures",
        "security/throttle.py",
        "bucket.left -= 1.0",
        "bucket.left -= 0.5",
        (
            f"{_THROTTLE}::test_t15_guessing_from_one_address_is_held_to_the_rate_and_nobody_else_is",
        ),
    ),
    Defence(
        "T15",
        "a second look at the throttle before the proof is checked",
        "security/mechs.py",
        "        self._not_too_soon(now)\n        proof =",
        "        proof =",
        (f"{_FAILURES}::test_t15_exchanges_that_began_together_are_not_free_guesses",),
    ),
    Defence(
        "T16",
        "failures count for a name at an address, not for the name",
        "security/throttle.py",
        "return prefix, user[:64]",
        'return "", user[:64]',
        (f"{_THROTTLE}::test_t16_a_thousand_failures_shut_the_user_out_nowhere_else",),
    ),
    Defence(
        "T17",
        "only so many passwords wait to be checked",
        "engine/logins.py",
        "if waiting >= CHECKS or waiting * self._seconds > self.deadline / 2:",
        "if False:",
        (f"{_THREATS}::test_t17_passwords_are_checked_one_at_a_time_while_others_are_served",),
    ),
    Defence(
        "T17",
        "who guesses too often is refused before anything is stretched",
        "security/mechs.py",
        "        self._password = prepare(fields[2])\n        self._not_too_soon(now)\n",
        "        self._password = prepare(fields[2])\n",
        (f"{_THREATS}::test_t17_who_guesses_too_often_is_refused_without_a_check",),
    ),
    Defence(
        "T18",
        "messages of a login have a longest length",
        "security/mechs.py",
        "if len(data) > self.limit:",
        "if False:",
        (f"{_FAILURES}::test_t18_a_message_beyond_its_limit_ends_the_connection_unread",),
    ),
    Defence(
        "T20",
        "a packet before a login is measured by its header",
        "engine/entering.py",
        "self.decoder.max_packet = min(MOST_BODY, engine.config.max_packet)",
        "self.decoder.max_packet = 1 << 32",
        (f"{_THREATS}::test_t20_a_length_that_nobody_may_send_ends_the_connection_at_once",),
    ),
    Defence(
        "T21",
        "a login has a deadline",
        "engine/guarded.py",
        "self._after(max(0.0, logins.deadline - waited), self._too_late)",
        "pass",
        (f"{_THREATS}::test_t21_neither_silence_nor_a_trickle_keeps_a_connection_open",),
    ),
    Defence(
        "T22",
        "an address has a bound of connections that have not logged in",
        "engine/doors.py",
        "if 0 < self._most_per_address <= there and not self.exempts(address):",
        "if False:",
        ("tests/engine/test_doors.py::test_only_so_many_of_them_come_from_one_address",),
    ),
    Defence(
        "T23",
        "revocation lists are looked at",
        "security/tls.py",
        "context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF",
        "pass",
        (f"{_TLS}::test_t23_a_revoked_client_certificate_is_refused_and_others_are_not",),
    ),
    Defence(
        "T25",
        "all names of a listener demand the same of clients",
        "security/tls.py",
        "if self._demands() != other._demands():",
        "if False:",
        (f"{_TLS}::test_t25_names_of_one_listener_demand_the_same_of_clients",),
    ),
    Defence(
        "T26",
        "the old context serves until a new one is good",
        "security/tls.py",
        "        self.adopt(build_server(settings, now), settings)\n",
        "        self.context = ServerContext(ssl.PROTOCOL_TLS_SERVER)\n"
        "        self.adopt(build_server(settings, now), settings)\n",
        (f"{_TLS}::test_t26_a_reload_that_fails_leaves_the_old_certificate_in_service",),
    ),
    Defence(
        "T27",
        "a certificate that leads to two users is nobody's",
        "security/x509id.py",
        "if any(other is not user for other in found.values()):",
        "if False:",
        (
            f"{_X509}::test_t27_odd_and_ambiguous_certificates_are_nobodys",
            f"{_X509}::test_t27_a_fingerprint_of_one_and_a_name_of_another_is_nobody",
        ),
    ),
    Defence(
        "T28",
        "one acts as oneself or as who is listed",
        "security/mechs.py",
        "        if acting is None:\n",
        "        acting = acting or authenticator.users.get(authzid)\n        if acting is None:\n",
        (f"{_MECHS}::test_t28_every_mechanism_lets_one_act_as_oneself_or_as_who_is_listed",),
    ),
    Defence(
        "T29",
        "a message of PLAIN has three fields",
        "security/mechs.py",
        "if len(fields) != 3:",
        "if len(fields) < 3:",
        (f"{_MECHS}::test_t29_plain_is_three_fields_and_nothing_else",),
    ),
    Defence(
        "T32",
        "a connection does not become another user's",
        "protocol/auth.py",
        "if self.stage is Stage.REAUTH and not same:",
        "if False:",
        (
            f"{_LOGINS}::test_a_connection_does_not_become_another_users",
            "tests/engine/test_doors.py::test_t32_a_login_on_top_of_a_network_needs_a_clean_connection",
        ),
    ),
    Defence(
        "T33",
        "a function belongs to its tenant",
        "broker/registry.py",
        "partition.functions[tenant.name, name] = tenant.functions[name] = function",
        "partition.functions[tenant.name, name] = tenant.functions[name] = function\n"
        "            for other in self.tenants.values():\n"
        "                other.functions.setdefault(name, function)",
        (_TOGETHER,),
    ),
    Defence(
        "T33",
        "a handle is looked up in its tenant",
        "broker/broker.py",
        "        job = tenant.job(handle)\n"
        "        return None if job is None or job.state == PENDING",
        "        jobs = [each.job(handle) for each in self.tenants.values()]\n"
        "        job = next((each for each in jobs if each), None)\n"
        "        return None if job is None or job.state == PENDING",
        (_TOGETHER, f"{_LEAKS}::test_t33_a_probe_is_answered_as_if_nobody_else_were_there"),
    ),
    Defence(
        "T33",
        "a unique is looked up in its tenant",
        "broker/broker.py",
        "        for function in tenant.functions.values():\n"
        "            job = function.uniques.get(unique)",
        "        everybody = self.tenants.values()\n"
        "        for function in [f for each in everybody for f in each.functions.values()]:\n"
        "            job = function.uniques.get(unique)",
        (_TOGETHER, f"{_LEAKS}::test_t33_a_probe_is_answered_as_if_nobody_else_were_there"),
    ),
    Defence(
        "T33",
        "lists of connections are of one tenant",
        "engine/engine.py",
        "return (s for s in self._sessions.values() if s.peer.tenant is tenant)",
        "return iter(self._sessions.values())",
        (_TOGETHER, f"{_LEAKS}::test_t33_a_probe_is_answered_as_if_nobody_else_were_there"),
    ),
    Defence(
        "T33",
        "connections are numbered per tenant",
        "engine/engine.py",
        "self._seats[tenant] += 1\n        return self._seats[tenant]",
        'self._seats[""] += 1\n        return self._seats[""]',
        (_TOGETHER, f"{_LEAKS}::test_t33_a_probe_is_answered_as_if_nobody_else_were_there"),
    ),
    Defence(
        "T33",
        "a schedule is looked up in its tenant",
        "engine/scheduler.py",
        "found = [schedule for schedule in self.of(tenant) if schedule.unique == name]",
        "everybody = list(self._engine.broker.tenants)\n"
        "        found = [s for each in everybody for s in self.of(each) if s.unique == name]",
        (f"{_LEAKS}::test_t33_a_probe_is_answered_as_if_nobody_else_were_there",),
    ),
    Defence(
        "T33",
        "quotas are a tenant's own",
        "broker/registry.py",
        "tenant.allowance = Allowance(quotas)\n        return tenant",
        "tenant.allowance = next(\n"
        "                    (t.allowance for t in self.tenants.values() if t.allowance),\n"
        "                    Allowance(quotas),\n"
        "                )\n        return tenant",
        (_TOGETHER,),
    ),
    Defence(
        "T34",
        "the reducer has to pass the globs, too",
        "engine/guarded_rows.py",
        "if matcher(args[0]) and matcher(args[reducer]):",
        "if matcher(args[0]):",
        (f"{_LOGINS}::test_t_globs_decide_of_which_functions_jobs_may_be_submitted",),
    ),
    Defence(
        "T35",
        "globs match whole names",
        "security/policy.py",
        "re.compile(alternatives, re.DOTALL).fullmatch",
        "re.compile(alternatives, re.DOTALL).match",
        (f"{_POLICY}::test_t35_a_glob_matches_whole_names_byte_for_byte",),
    ),
    Defence(
        "T36",
        "who comes back without a login is told later",
        "engine/entering.py",
        "if self._comes_back(refusal):",
        "if False:",
        (
            "tests/engine/test_turned_away.py::test_t36_who_comes_back_without_a_login_is_told_later_and_heard_no_more",
        ),
    ),
    Defence(
        "T36",
        "who comes back in vain waits",
        "runtime/doorstep.py",
        "if self._turned_away.again(address, now()):",
        "if False:",
        ("tests/runtime/test_doorstep.py::test_t36_who_comes_back_waits_and_others_do_not",),
    ),
    Defence(
        "T37",
        "messages of a login are not shown",
        "security/mechs.py",
        "    data: bytes = field(repr=False)\n",
        "    data: bytes = field()\n",
        (f"{_FAILURES}::test_t37_no_secret_is_in_anything_that_may_be_shown",),
    ),
    Defence(
        "T38",
        "a file that others can get at is refused",
        "security/users_file.py",
        "if mode & 0o077:",
        "if False:",
        (f"{_USERS_FILE}::test_t38_a_file_that_others_can_get_at_is_refused",),
    ),
    Defence(
        "T40",
        "who is in no network is hung up on",
        "engine/doors.py",
        "return Way.NETWORK not in self.ways or self.networks.find(address) is not None",
        "return True",
        (
            "tests/runtime/test_doors.py::test_t40_who_is_in_no_network_is_refused_before_a_byte_is_read",
        ),
    ),
    Defence(
        "T41",
        "a Unix socket is for its user and group",
        "runtime/listeners.py",
        "mask = os.umask(0o117)",
        "mask = os.umask(0)",
        ("tests/runtime/test_listeners.py::test_a_unix_socket_is_for_its_user_and_group",),
    ),
    Defence(
        "T44",
        "a tenant has its number of jobs",
        "broker/quotas.py",
        "if 0 < quotas.max_queued_jobs <= jobs:",
        "if False:",
        (
            "tests/engine/test_quotas.py::test_a_submission_over_the_quota_is_refused_and_the_connection_lives",
        ),
    ),
)


def chosen(threats: list[str]) -> list[Defence]:
    """The defences against these threats; all if none is named."""
    return [defence for defence in DEFENCES if not threats or defence.threat in threats]


def copy_tree(to: Path) -> None:
    """Copy what the tests need."""
    for name in ("trigear", "tests", "docs"):
        ignored = shutil.ignore_patterns("__pycache__", "_build")
        shutil.copytree(ROOT / name, to / name, ignore=ignored)
    for file in ROOT.glob("*.*"):
        if file.is_file():
            shutil.copy(file, to / file.name)


def failure(tree: Path, tests: tuple[str, ...]) -> str:
    """What pytest says of the first of these tests that fails in a tree; nothing if none does."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return f"the tests are not over after {PATIENCE:.0f} s"
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{' '.join(tests)} cannot be run:\n{done.stdout}{done.stderr}")
    return done.stdout[-SHOWN:] if done.returncode else ""


def unnoticed(tree: Path, defence: Defence) -> list[str]:
    """Take a defence out; those of its tests that did not notice."""
    file = tree / "trigear" / defence.file
    source = file.read_text("utf-8")
    file.write_text(source.replace(defence.old, defence.new), "utf-8")
    try:
        return [test for test in defence.tests if not failure(tree, (test,))]
    finally:
        file.write_text(source, "utf-8")


def misplaced(defences: list[Defence]) -> list[str]:
    """Those that are not where they are said to be, once: the source has changed."""
    return [
        f"{defence.threat} {defence.what}: look for it in trigear/{defence.file}"
        for defence in defences
        if (ROOT / "trigear" / defence.file).read_text("utf-8").count(defence.old) != 1
    ]


def main(threats: list[str]) -> int:
    """Take them out, one after the other."""
    defences = chosen(threats)
    if lost := misplaced(defences):
        print("The source is another than the table of defences knows:", *lost, sep="\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        tests = tuple(dict.fromkeys(test for defence in defences for test in defence.tests))
        if said := failure(tree, tests):
            print(f"With all defences in place a test fails already:\n{said}")
            return 1
        missed = 0
        for defence in defences:
            start = time.monotonic()
            blind = unnoticed(tree, defence)
            missed += bool(blind)
            verdict = f"NOT NOTICED by {', '.join(blind)}" if blind else "noticed"
            seconds = time.monotonic() - start
            print(f"{defence.threat:4} {defence.what}: {verdict} ({seconds:.1f} s)", flush=True)
    print(f"{len(defences)} defences taken out one at a time, {missed} of them without notice.")
    return bool(missed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
