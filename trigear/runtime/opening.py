"""What is to be entered with `async with` on Trio, and tells those who do otherwise what to write.

Without this, somebody who forgets `async with` reads of a private class of the standard library,
and somebody who runs asyncio reads of a missing attribute inside Trio.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar, final

import trio

if TYPE_CHECKING:
    from types import TracebackType

Opened = TypeVar("Opened")


def check_trio(call: str, instead: str) -> None:
    """Look whether this runs on Trio.

    Args:
        call: what only runs there.
        instead: what there is for other programs.

    Raises:
        RuntimeError: it does not.
    """
    if not trio.lowlevel.in_trio_task():
        raise RuntimeError(
            f"{call} runs on Trio, and this is not a task of Trio's: start the program with"
            f" trio.run(main). {instead}"
        )


@final
class Opening(AbstractAsyncContextManager[Opened], Generic[Opened]):
    """Something that is open inside its block.

    Args:
        manager: which opens and closes it.
        call: what was called, as people write it.
        name: the name to give to what is open, in advice.
        instead: what there is for programs without Trio.
    """

    __slots__ = ("_call", "_instead", "_manager", "_name")

    def __init__(
        self,
        manager: AbstractAsyncContextManager[Opened, bool | None],
        call: str,
        name: str,
        instead: str,
    ) -> None:
        self._manager = manager
        self._call = call
        self._name = name
        self._instead = instead

    async def __aenter__(self) -> Opened:
        check_trio(self._call, self._instead)
        return await self._manager.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._manager.__aexit__(kind, error, trace)

    if not TYPE_CHECKING:  # type checkers tell these mistakes by what is missing

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("__"):
                raise AttributeError(name)  # somebody looks what kind of thing this is
            raise AttributeError(f"{self._call} has no {name!r} yet: {self._advice}")

        def __await__(self) -> NoReturn:
            raise TypeError(f"{self._call} is not awaited: {self._advice}")

        def __enter__(self) -> NoReturn:
            raise TypeError(f"{self._call} is entered asynchronously: {self._advice}")

        def __exit__(self, *_: object) -> None:
            raise AssertionError("this cannot be entered")

    @property
    def _advice(self) -> str:
        return f"write `async with {self._call} as {self._name}:`, and use {self._name} in there"
