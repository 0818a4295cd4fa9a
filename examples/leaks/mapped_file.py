"""Pages of a file that is mapped into memory and read further and further (page cache).

An index reads a large file through ``mmap``. Every page once read counts for the process until the system wants it
back; no object grows. Repaired: pages that were read are given back at once by ``madvise``.
"""

import mmap
import tempfile

from stage import Stage

FILE_BYTES = 256 * 1024 * 1024
RECORD_BYTES = 4096


def main() -> None:
    stage = Stage(__doc__, rate=300)
    with tempfile.TemporaryFile(prefix="mapped-file-") as file:
        file.truncate(FILE_BYTES)
        with mmap.mmap(file.fileno(), FILE_BYTES) as index:
            total = 0
            for number in stage.orders():
                start = number * RECORD_BYTES % FILE_BYTES
                total += sum(index[start : start + 64])
                if stage.repaired:
                    index.madvise(mmap.MADV_DONTNEED, start, RECORD_BYTES)


if __name__ == "__main__":
    main()
