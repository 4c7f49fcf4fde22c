"""The PHP extension's own tests against gearmand and against trigear.

The tests come with the source package of Debian's php-gearman, the program that runs them with
php-dev; both are fetched from the Debian archive this machine is set up for, kept in a cache
directory, and never installed. Many of the tests name port 4730 of localhost, so each server runs
on that port in a network namespace of its own.

As a script: python -m tests.interop.run_phpt [--cache DIRECTORY]
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from tests.conftest import PeerTools
from tests.interop import namespace, servers

TEST_SECONDS = "20"
# Where the source is looked for after the release that is installed: the archive need not have all.
OTHER_RELEASES = ("stable", "trixie", "forky", "sid")


class NotAvailable(Exception):
    """The archive does not have what is needed, or cannot be reached."""


@dataclass(frozen=True)
class Archive:
    """A view of the Debian archive with lists of its own; the system's stay as they are."""

    root: pathlib.Path
    release: str

    def _options(self) -> list[str]:
        settings = {
            "Dir::Etc::SourceList": self.root / "sources.list",
            "Dir::Etc::SourceParts": "-",
            "Dir::State::Lists": self.root / "lists",
            "Dir::Cache": self.root / "cache",
            "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
            "Debug::NoLocking": "true",
        }
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def run(self, *command: str, directory: pathlib.Path | None = None) -> str:
        """Standard output of an apt-get command on this view; `NotAvailable` if it fails."""
        done = subprocess.run(
            ["apt-get", "-q", *self._options(), *command],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise NotAvailable(f"apt-get {' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def open(self, kinds: tuple[str, ...]) -> None:
        """Fetch the lists of this release's packages ("deb") or sources ("deb-src")."""
        (self.root / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (self.root / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
        (self.root / "sources.list").write_text(
            "".join(
                f"{kind} [signed-by={keys}] {address()} {self.release} main\n" for kind in kinds
            )
        )
        self.run("update")


def address() -> str:
    """Where this machine gets Debian's main archive from."""
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    for line in targets.splitlines():
        uri, _, label = line.partition(" ")
        if label == "Debian Debian":
            return uri
    raise NotAvailable("apt is not set up for an archive of Debian")


def release() -> str:
    """The installed release's code name."""
    text = pathlib.Path("/etc/os-release").read_text()
    found = re.search(r"^VERSION_CODENAME=(\S+)$", text, re.MULTILINE)
    if found is None:
        raise NotAvailable("this is no release of Debian")
    return found[1]


def fetch_tests(cache: pathlib.Path) -> pathlib.Path:
    """The directory with the extension's test files, fetched unless it is in the cache."""
    if not (kept := sorted(cache.glob("php-gearman_*.orig.tar.*"))):
        failures = []
        for name in dict.fromkeys([release(), *OTHER_RELEASES]):
            with tempfile.TemporaryDirectory() as scratch:
                archive = Archive(pathlib.Path(scratch), name)
                try:
                    archive.open(("deb-src",))
                    fetch_upstream_source(archive, cache)
                    break
                except NotAvailable as problem:
                    failures.append(f"{name}: {problem}")
        kept = sorted(cache.glob("php-gearman_*.orig.tar.*"))
        if not kept:
            raise NotAvailable("no source of php-gearman: " + "; ".join(failures))
    unpacked = cache / "source"
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(kept[-1]) as source:
        source.extractall(unpacked, filter="data")
    (tests,) = unpacked.glob("*/tests")
    return tests


def fetch_upstream_source(archive: Archive, cache: pathlib.Path) -> None:
    """Fetch the upstream part of the source package alone, checked against the signed list."""
    listing = archive.run("source", "--print-uris", "php-gearman")
    for uri, name, checksum in re.findall(r"^'(\S+)' (\S+) \d+ (\S+)$", listing, re.MULTILINE):
        if ".orig.tar." in name:
            part = cache / f"{name}.part"
            done = subprocess.run(
                ["/usr/lib/apt/apt-helper", "download-file", uri, str(part), checksum],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise NotAvailable(done.stderr.strip())
            part.rename(cache / name)


def fetch_runner(cache: pathlib.Path) -> pathlib.Path:
    """PHP's run-tests.php for the installed PHP, fetched unless it is in the cache."""
    version = subprocess.run(
        [PeerTools.php, "-r", 'echo PHP_MAJOR_VERSION, ".", PHP_MINOR_VERSION;'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    kept = cache / f"run-tests-{version}.php"
    if not kept.exists():
        with tempfile.TemporaryDirectory() as scratch:
            directory = pathlib.Path(scratch)
            archive = Archive(directory / "apt", release())
            archive.open(("deb",))
            archive.run("download", f"php{version}-dev", directory=directory)
            (package,) = directory.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", package, directory / "files"], check=True)
            (found,) = directory.glob("files/usr/lib/php/*/build/run-tests.php")
            shutil.copy(found, kept)
    return kept


def run_inside(name: str, tests: pathlib.Path, runner: pathlib.Path) -> dict[str, str]:
    """In a network namespace of our own: start the server, run the tests; file name to verdict."""
    namespace.bring_loopback_up()
    with tempfile.TemporaryDirectory() as scratch:
        directory = pathlib.Path(scratch)
        report = directory / "report.xml"
        with servers.running(name, servers.COMMANDS[name], directory, namespace.DEFAULT_PORT):
            done = subprocess.run(
                [PeerTools.php, runner, "-p", PeerTools.php, "-P", "-q", "--show-diff", tests],
                # A test asks `gearmand -V` for its version; Debian's is to answer.
                env={
                    **os.environ,
                    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                    "NO_INTERACTION": "1",
                    "TEST_PHP_JUNIT": str(report),
                    "TEST_TIMEOUT": TEST_SECONDS,
                },
                cwd=tests.parent,
                capture_output=True,
                text=True,
                check=False,
            )
        if not report.exists():
            raise RuntimeError(f"run-tests.php wrote no report: {done.stdout}{done.stderr}")
        verdicts = {}
        for case in ET.parse(report).getroot().iter("testcase"):
            outcome = next(iter(case), None)
            file = pathlib.PurePath(case.attrib["name"].split(" ")[0]).name
            verdicts[file] = "pass" if outcome is None else f"{outcome.tag}: {outcome.text}"
        return verdicts


def run(name: str, tests: pathlib.Path, runner: pathlib.Path) -> dict[str, str]:
    """The verdict on each test file with this server."""
    done = namespace.run_module(
        "tests.interop.run_phpt",
        *("--inside", name, "--tests", str(tests), "--runner", str(runner)),
        seconds=110,
    )
    if done.returncode != 0:
        raise RuntimeError(f"no run against {name}: {done.stdout}{done.stderr}")
    verdicts: dict[str, str] = json.loads(done.stdout)
    return verdicts


def default_cache() -> pathlib.Path:
    """Where downloads are kept between runs."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "trigear-interop"


def prepare(cache: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The test files and their runner; `NotAvailable` tells why they cannot be had."""
    cache.mkdir(parents=True, exist_ok=True)
    return fetch_tests(cache), fetch_runner(cache)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the PHP extension's own tests.")
    parser.add_argument("--cache", type=pathlib.Path, default=default_cache())
    parser.add_argument("--inside", choices=sorted(servers.COMMANDS), help=argparse.SUPPRESS)
    parser.add_argument("--tests", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--runner", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(run_inside(arguments.inside, arguments.tests, arguments.runner)))
        return 0
    try:
        tests, runner = prepare(arguments.cache)
    except NotAvailable as problem:
        print(f"the tests cannot be had: {problem}", file=sys.stderr)
        return 2
    verdicts = {name: run(name, tests, runner) for name in servers.COMMANDS}
    for file in sorted(verdicts["gearmand"]):
        each = [f"{name}: {verdicts[name].get(file, 'not run')}" for name in servers.COMMANDS]
        print(f"{file}: {', '.join(each)}")
    for name, its in verdicts.items():
        print(f"{name}: {sum(verdict == 'pass' for verdict in its.values())} of {len(its)} pass")
    return 0 if verdicts["gearmand"] == verdicts["trigear"] else 1


if __name__ == "__main__":
    sys.exit(main())
