"""Everything that checks trigear, one session each; `nox` alone runs the first four.

`nox -l` lists them. Each session makes its own environment and takes nothing from outside it,
except Debian's Gearman programs, which are called by full path.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import nox

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Command = tuple[list[str], dict[str, str]]
    """Its words, and what is in its environment beside our own."""

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "types", "tests", "docs"]
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_external_run = True
nox.options.error_on_missing_interpreters = True
nox.options.reuse_existing_virtualenvs = False

# PYTHONPATH, PYTHONUNBUFFERED and their like change what programs do: here as on any machine.
for variable in [name for name in os.environ if name.startswith("PYTHON")]:
    del os.environ[variable]

# The rooms of floors 1 to 4 decide everything without doing any I/O: nothing excuses a line or a
# branch of theirs that no test runs.
FULLY_COVERED = ("wire", "protocol", "security", "broker", "stores", "engine")

OTHER_HALF = ("tests/benchmarks", "tests/cli", "tests/crash")
"""What is tested beside the rest: it takes about as long, together with what is compiled."""

QUICK_COMPILED = (
    *(f"tests/{room}" for room in ("wire", "broker", "engine")),
    *(f"tests/runtime/test_{part}.py" for part in ("hub", "hub_large", "hub_sharing", "server")),
)

FUZZ_EXAMPLES = "1000000"
SOAK_JOBS = "10000"


@nox.session
def lint(session: nox.Session) -> None:
    """Style: ruff's rules and ruff's formatting."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types: mypy, strict."""
    session.install("-e", ".[types]")
    session.run("mypy", *session.posargs)


@contextlib.contextmanager
def beside(session: nox.Session, commands: Mapping[str, Command]) -> Iterator[None]:
    """Run other commands, one after the other, beside what happens in the block: tests leave a
    processor idle most of the time. What each printed is shown after the block, under its name;
    the session fails if one did, but not before all are over."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = {name: Path(folder, name) for name in commands}
        failed: list[str] = []
        running: list[subprocess.Popen[bytes]] = []
        stopped = threading.Event()

        def run() -> None:
            for name, (arguments, environment) in commands.items():
                with outputs[name].open("wb") as output:
                    process = subprocess.Popen(
                        arguments,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=os.environ | environment,
                    )
                    running[:] = [process]
                    if stopped.is_set():
                        process.terminate()
                    if process.wait():
                        failed.append(name)
                if stopped.is_set():
                    return

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        except KeyboardInterrupt:
            stopped.set()
            for process in running:
                process.terminate()
            raise
        finally:
            thread.join()
            for name, output in outputs.items():
                if output.exists():
                    session.log(f"{name}:")
                    print(output.read_text(errors="replace"), end="")
        if failed:
            session.error(f"failed: {', '.join(failed)}")


@nox.session
def compiled(session: nox.Session) -> None:
    """The tests of what can be compiled, compiled. Arguments go to pytest; needs a C compiler."""
    session.install("-e", ".[interop]")
    session.run("python", "-m", "tests.compiled", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests but the long ones, in two halves beside each other, then the coverage gate; and
    the quick ones of what can be compiled once more, compiled, if there is a C compiler. Arguments
    go to pytest, and then that is all."""
    session.install("-e", ".[test]")
    if session.posargs:
        session.run("python", "-bb", "-m", "pytest", *session.posargs)
        return
    python = f"{session.bin}/python"
    covered = ("-bb", "-m", "coverage", "run", "-m", "pytest")
    # Nothing of this in a folder of nox's for temporary files: those of all tests would be there
    # as well, in the checkout.
    place = Path(session.virtualenv.location).resolve()
    data = {"COVERAGE_FILE": str(place / "coverage.db")}
    other_data = {"COVERAGE_FILE": str(place / "coverage-other.db")}
    others: dict[str, Command] = {
        "the other half of the tests": ([python, *covered, *OTHER_HALF], other_data)
    }
    if shutil.which("cc") is not None or "CI" in os.environ:
        arguments = [python, "-m", "tests.compiled", "-m", "not slow", *QUICK_COMPILED]
        others["the quick tests of what is compiled, compiled"] = (arguments, {})
    else:
        session.warn("no C compiler: what can be compiled was not tested compiled")
    with beside(session, others):
        elsewhere = [f"--ignore={room}" for room in ("tests/interop", *OTHER_HALF)]
        session.run("python", *covered, *elsewhere, env=data)
    session.run("coverage", "combine", "--append", other_data["COVERAGE_FILE"], env=data)
    session.run("coverage", "report", env=data)
    session.log("floors 1 to 4, which must be covered to the last branch:")
    gated = ",".join(f"trigear/{room}/*" for room in FULLY_COVERED)
    session.run("coverage", "report", f"--include={gated}", "--fail-under=100", env=data)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, where every warning is an error."""
    session.install("-e", ".[docs]")
    session.run(
        *("sphinx-build", "-W", "--keep-going", "-q", "-E", "-b", "html", "docs", "docs/_build")
    )
    session.log("open docs/_build/index.html")


@nox.session
def interop(session: nox.Session) -> None:
    """Foreign clients, workers and servers against ours. Needs Debian's Gearman programs."""
    session.install("-e", ".[interop]")
    session.run("python", "-bb", "-m", "pytest", "tests/interop", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure trigear, compiled, beside other servers. Arguments go to benchmarks/suite.py.

    `-- run` measures what is asked for instead of the whole list, `-- handlers` workers beside
    those of others; what follows goes to benchmarks/run.py or benchmarks/handlers.py. With
    TRIGEAR_COMPILE=0 in the environment it is the pure one.
    """
    session.install(".[bench]", env={"TRIGEAR_COMPILE": os.environ.get("TRIGEAR_COMPILE", "1")})
    program, arguments = "suite", session.posargs
    if arguments and arguments[0] in {"run", "handlers"}:
        program, *arguments = arguments
    session.run("python", "-m", f"benchmarks.{program}", *arguments)


@nox.session
def crash(session: nox.Session) -> None:
    """Kill a loaded server five hundred times, one with schedules a hundred times, one that keeps
    results fifty times. Arguments go to tests/crash/run.py, and then that is all."""
    session.install("-e", ".[test]")
    session.run("python", "-bb", "-m", "tests.crash.run", *session.posargs)
    if not session.posargs:
        session.run("python", "-bb", "-m", "tests.crash.schedules")
        session.run("python", "-bb", "-m", "tests.crash.results")


@nox.session
def fuzz(session: nox.Session) -> None:
    """The fuzz tests with a large budget; TRIGEAR_FUZZ_EXAMPLES sets another one."""
    session.install("-e", ".[test]")
    examples = os.environ.get("TRIGEAR_FUZZ_EXAMPLES", FUZZ_EXAMPLES)
    session.run(
        # A million inputs take longer than any other test may, and the figures are worth seeing.
        *("python", "-bb", "-m", "pytest", "tests/fuzz", "-s", "-o", "faulthandler_timeout=0"),
        *session.posargs,
        env={"TRIGEAR_FUZZ_EXAMPLES": examples},
    )


@nox.session
def security(session: nox.Session) -> None:
    """Take the defences out one at a time, let two tenants live many lives, and measure what can be
    told by time and what protection costs. Arguments name what of it: defences, tenants, timing,
    cost."""
    session.install("-e", ".[test]")
    wanted = session.posargs or ["defences", "tenants", "timing", "cost"]
    if "defences" in wanted:
        session.run("python", "-bb", "-m", "tests.security.defences")
    if "tenants" in wanted:
        examples = os.environ.get("TRIGEAR_FUZZ_EXAMPLES", FUZZ_EXAMPLES)
        session.run(
            *("python", "-bb", "-m", "pytest", "tests/engine/test_two_tenants.py"),
            *("-o", "faulthandler_timeout=0"),
            env={"TRIGEAR_FUZZ_EXAMPLES": examples},
        )
    if "timing" in wanted:
        session.run("python", "-bb", "-m", "tests.security.timing")
    if "cost" in wanted:
        session.run("python", "-bb", "-m", "benchmarks.security")


@nox.session
def soak(session: nox.Session) -> None:
    """The soak test in full length: TRIGEAR_SOAK_JOBS sets how many jobs."""
    session.install("-e", ".[test]")
    session.run(
        *("python", "-bb", "-m", "pytest", "tests/soak", "-s", *session.posargs),
        env={"TRIGEAR_SOAK_JOBS": os.environ.get("TRIGEAR_SOAK_JOBS", SOAK_JOBS)},
    )


@nox.session
def mutants(session: nox.Session) -> None:
    """Break wire/ and broker/ in every small way, and count what their tests notice: 30 minutes."""
    session.install("-e", ".[mutants]")
    session.run("mutmut", "run", "--max-children", "1", *session.posargs)
    session.run("python", "tests/mutants.py")
