"""Builds the load generator and runs it, one measured window after the other."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from benchmarks.servers import HOST, pinned

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SOURCES = Path(__file__).resolve().parent
EDGES = frozenset({"begin", "end", "idle", "idled", "fill", "filling", "filled"})
"""Words at which the generator stands still until it is told to go on."""

SCENARIOS = ("background", "drain", "foreground", "oneatatime", "echo", "flood")


class GeneratorError(Exception):
    """The generator could not be built, or got a wrong answer; the text says which."""


def find_compiler() -> str:
    """The C compiler: `$CC`, or the first of cc, gcc and clang.

    Raises:
        GeneratorError: there is none.
    """
    for name in filter(None, (os.environ.get("CC"), "cc", "gcc", "clang")):
        if found := shutil.which(name):
            return found
    raise GeneratorError(
        "no C compiler found (tried $CC, cc, gcc, clang); the load generator is written in C: "
        "apt install gcc libc6-dev"
    )


def has_openssl(compiler: str) -> bool:
    """Whether programs can be built with OpenSSL: the generator speaks TLS only then."""
    command = [compiler, "-E", "-x", "c", "-include", "openssl/ssl.h", "/dev/null"]
    return not subprocess.run(command, capture_output=True, check=False).returncode


def cache_directory() -> Path:
    """Where compiled generators are kept: outside of the checkout, nothing to clean up there."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "trigear-bench"


def _compile(source: str, flags: list[str], libraries: list[str], directory: Path | None) -> Path:
    """Compiles one of the sources here unless a build of exactly these is there already.

    Raises:
        GeneratorError: no compiler, or it refused the source; its words are included.
    """
    compiler = find_compiler()
    flags = ["-O2", "-Wall", "-Wextra", *flags]
    digest = hashlib.sha256(f"{compiler} {flags} {libraries}".encode())
    for file in sorted((SOURCES / source, *SOURCES.glob("*.h"))):
        digest.update(file.read_bytes())
    directory = directory or cache_directory()
    program = directory / f"{Path(source).stem}-{digest.hexdigest()[:16]}"
    if program.exists():
        return program
    directory.mkdir(parents=True, exist_ok=True)
    # Built beside and renamed: two runs that start together never execute half a file.
    unfinished = program.with_suffix(f".{os.getpid()}")
    command = [compiler, *flags, "-o", str(unfinished), str(SOURCES / source), *libraries]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GeneratorError(f"{compiler} could not build {source}:\n{done.stderr.strip()}")
    unfinished.rename(program)
    return program


def build(directory: Path | None = None) -> Path:
    """Compiles loadgen.c unless a build of exactly these sources is there already.

    Returns:
        The executable.

    Raises:
        GeneratorError: no compiler, or it refused the source; its words are included.
    """
    if has_openssl(find_compiler()):
        return _compile("loadgen.c", ["-DWITH_TLS"], ["-lssl", "-lcrypto"], directory)
    return _compile("loadgen.c", [], [], directory)


def build_slow_sync(directory: Path | None = None) -> Path:
    """Compiles slowsync.c in the same way.

    Returns:
        A library for LD_PRELOAD that holds up each sync of a file for half a millisecond.

    Raises:
        GeneratorError: no compiler, or it refused the source; its words are included.
    """
    return _compile("slowsync.c", ["-shared", "-fPIC"], ["-ldl"], directory)


@dataclass(frozen=True, slots=True)
class Load:
    """What the generator is asked to do: seconds, bytes; None leaves a scenario's preset."""

    scenario: str
    seconds: float = 3.0
    warmup: float = 0.3
    size: int = 64
    unique: int = 0
    backlog: int = 20000
    timeout: float = 10.0
    clients: int | None = None
    workers: int | None = None
    outstanding: int | None = None
    interval: float | None = None
    mix: str | None = None
    keep: int = 0
    empty: bool = False
    idle: int = 0
    functions: int = 1
    tls: bool = False

    def words(self) -> list[str]:
        """The generator's command line for it."""
        words: list[str] = []
        for name in self.__slots__:
            value = getattr(self, name)
            if value is True:
                words.append(f"--{name}")
            elif value is not None and value is not False:
                words += [f"--{name}", str(value)]
        return words


class Generator:
    """A running generator; leaving the `with` block ends it if it has not finished.

    Use `windows` first, then `result`.
    """

    def __init__(
        self,
        program: Path,
        port: int,
        load: Load,
        *,
        handshake: bool = True,
        cpus: frozenset[int] | None = None,
    ) -> None:
        self._command = [str(program), "--host", HOST, "--port", str(port), *load.words()]
        if handshake:
            self._command.append("--handshake")
        self._cpus = cpus
        self._process: subprocess.Popen[str] | None = None
        self._last = ""

    def __enter__(self) -> Self:
        with pinned(self._cpus):
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        self._process.wait()

    def windows(self) -> Iterator[str]:
        """Yields "begin" and "end" at the edges of each measured window, in turn; before them
        "idle" and "idled" where idle workers connect, and "fill", "filling" (nine times) and
        "filled" where a queue is filled that stays.

        The generator stands still until the caller asks for the next word: what is read from /proc
        between two words belongs to the window's edge.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() not in EDGES:
                self._last = line
                return
            yield line.strip()
            self._go_on()

    def begin(self) -> None:
        """Lets it come to the beginning of its first window, and begin; with `handshake` only."""
        for word in self.windows():
            if word == "begin":
                break
        self._go_on()

    def _go_on(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def stop(self) -> dict[str, Any]:
        """Ends the measured window now, whatever is left of its time; its figures, as `result`."""
        assert self._process is not None
        self._process.terminate()
        return self.result()

    def result(self) -> dict[str, Any]:
        """The generator's own figures.

        Raises:
            GeneratorError: it could not connect, or the server gave a wrong answer or none.
        """
        assert self._process is not None
        if not self._last:
            for _ in self.windows():
                pass
        assert self._process.stderr is not None
        complaint = self._process.stderr.read().strip()
        if self._process.wait() or not self._last:
            raise GeneratorError(complaint or f"the generator ended: {self._process.returncode}")
        result: dict[str, Any] = json.loads(self._last)
        return result


def split_cpus(usable: Sequence[int]) -> tuple[frozenset[int], frozenset[int]]:
    """Processors for the server and for the generator, no two shared.

    Raises:
        GeneratorError: there is only one.
    """
    if len(usable) < 2:
        raise GeneratorError("--pin needs two processors, this machine offers one")
    *rest, last = sorted(usable)
    return frozenset(rest), frozenset({last})
