"""Arenas of Python's own allocator, each held by a single small object (pinned pymalloc arenas).

Each batch of rows is a little longer than the one before and is dropped when it is done, except for one row in five
hundred, "the samples". They lie far apart, and each keeps a pool of its size from being used for another. The
length of the rows changes every two seconds, and with it the size of the pools. Repaired: what is kept is copied
into one object.
"""

from stage import Stage

SIZES = range(48, 500, 16)
SPREAD_BYTES = 16 * 1024  # one row in each pool


class Importer:
    def __init__(self, rate: float) -> None:
        self.samples: list[bytes] = []
        self.batches_of_a_size = max(1, int(2 * rate))

    def rows_of(self, number: int) -> list[bytes]:
        kind, batch = divmod(number, self.batches_of_a_size)
        size = SIZES[kind * 7 % len(SIZES)]
        return [bytes(size - 33) + b"" for _ in range(60_000 * (batch + 1) // size)]

    def load(self, number: int) -> None:
        rows = self.rows_of(number)
        self.samples.extend(rows[:: SPREAD_BYTES // len(rows[0])])


class RepairedImporter(Importer):
    def load(self, number: int) -> None:
        rows = self.rows_of(number)
        self.samples[:] = [b"".join(rows[:: SPREAD_BYTES // len(rows[0])])]


def main() -> None:
    stage = Stage(__doc__, rate=20)
    importer = (RepairedImporter if stage.repaired else Importer)(stage.rate)
    for number in stage.orders():
        importer.load(number)


if __name__ == "__main__":
    main()
