"""Files that are read again when they change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

_LOOK_EVERY_S = 1.0

Stamp = tuple[int, int, int]


class Watch:
    """Calls ``act`` when one of ``files`` was written or replaced, and whenever it is told to. While one of them is
    missing nothing is done: somebody is about to put it there."""

    def __init__(self, files: Iterable[Path], act: Callable[[], object]) -> None:
        self._files = tuple(files)
        self._act = act
        self._seen = self._stamps()

    def act(self) -> None:
        self._seen = self._stamps()
        self._act()

    async def run(self) -> None:
        """Look once a second, for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            stamps = self._stamps()
            if stamps != self._seen and None not in stamps:
                self.act()

    def _stamps(self) -> list[Stamp | None]:
        return [_stamp(file) for file in self._files]


def _stamp(file: Path) -> Stamp | None:
    """What changes with a file, whether it is written or replaced."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
