"""Symbols of ELF files and where a process has them: enough to find Python and libc in another process.

64-bit little-endian only, which is what x86-64 and aarch64 are. Standard library only.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

_DYNSYM = 11
_LOAD = 1


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of ``/proc/PID/maps`` that maps a file."""

    start: int
    end: int
    executable: bool
    offset: int
    path: str
    deleted: bool


def mappings(pid: int) -> list[Mapping]:
    """Mapped files of a process. Raises OSError without the right to read them, or when the process is gone."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text("utf-8", "surrogateescape").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) < 6 or not fields[5].startswith("/"):
            continue
        start, _, end = fields[0].partition("-")
        path, deleted, _ = fields[5].partition(" (deleted)")
        found.append(Mapping(int(start, 16), int(end, 16), "x" in fields[1], int(fields[2], 16), path, bool(deleted)))
    return found


class Image:
    """The dynamic symbols of one ELF file. Raises ValueError for anything else, OSError when it cannot be read."""

    def __init__(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as data:
                self._read(data)
        finally:
            os.close(fd)

    def _read(self, data: mmap.mmap) -> None:
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError("not a 64-bit little-endian ELF file")
        program_at, section_at = struct.unpack_from("<QQ", data, 32)
        program_size, programs, section_size, sections = struct.unpack_from("<HHHH", data, 54)
        self.loads: list[tuple[int, int, int]] = []  # offset, address, bytes in the file
        for number in range(programs):
            kind, _, offset, address, _, size = struct.unpack_from("<IIQQQQ", data, program_at + number * program_size)
            if kind == _LOAD:
                self.loads.append((offset, address, size))
        self.symbols: dict[str, int] = {}
        for number in range(sections):
            at = section_at + number * section_size
            kind, offset, size, link = struct.unpack_from("<4xI16xQQI", data, at)
            if kind == _DYNSYM:
                names_at, names_size = struct.unpack_from("<24xQQ", data, section_at + link * section_size)
                self._collect(data[offset : offset + size], data[names_at : names_at + names_size])

    def _collect(self, table: bytes, names: bytes) -> None:
        for name, info, _, section, value, _ in struct.iter_unpack("<IBBHQQ", table):
            if section and value and info >> 4 in (1, 2):  # defined here, global or weak
                text = names[name : names.index(b"\0", name)].decode("ascii", "replace")
                self.symbols.setdefault(text, value)

    def bias(self, mapped: list[Mapping]) -> int:
        """What to add to a symbol's value in a process that has this file mapped so. Raises ValueError."""
        page = os.sysconf("SC_PAGE_SIZE")
        for mapping in mapped:
            for offset, address, _ in self.loads:
                if offset // page * page == mapping.offset:
                    return mapping.start - address // page * page
        raise ValueError("the file is not mapped as it says: it was replaced while the process runs")

    def offset(self, address: int) -> int:
        """Where in the file the bytes of an address are. Raises ValueError."""
        for offset, start, size in self.loads:
            if start <= address < start + size:
                return offset + address - start
        raise ValueError("the address has no bytes in the file")
