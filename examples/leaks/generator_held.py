"""A set inside a generator that runs as long as the process: it removes duplicates from an endless stream.

Repaired: it remembers the last thousand.
"""

from collections.abc import Iterable, Iterator

from stage import Stage


def barcodes(numbers: Iterable[int]) -> Iterator[str]:
    for number in numbers:
        yield f"{number:0250d}"  # allocated here


def distinct(codes: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for code in codes:
        if code not in seen:
            seen.add(code)  # inserted here
            yield code


def distinct_of_late(codes: Iterable[str]) -> Iterator[str]:
    seen: dict[str, None] = {}
    for code in codes:
        if code not in seen:
            seen[code] = None
            if len(seen) > 1000:
                del seen[next(iter(seen))]
            yield code


def main() -> None:
    stage = Stage(__doc__, rate=1500)
    codes = (distinct_of_late if stage.repaired else distinct)(barcodes(stage.orders()))
    print(f"{sum(1 for _ in codes)} codes")


if __name__ == "__main__":
    main()
