"""Free memory that malloc keeps, because small survivors lie between what was freed (fragmentation).

Eight connections read at a time, each into a buffer of the size that is expected, then each buffer is cut to what came.
What was cut off is free, but lies between two answers that are kept, and the expected size rises with the hours: no
hole is ever large enough for another buffer. Repaired: what came is copied out, and the buffer freed as a whole.
"""

from collections import deque

from stage import Stage

EXPECTED_BYTES = 8000
ANSWER_BYTES = 600
CONNECTIONS = 8
MAX_ANSWERS = 100_000


class Reader:
    def __init__(self, max_answers: int) -> None:
        self.reading: list[bytearray] = []
        self.answers: deque[bytes | bytearray] = deque(maxlen=max_answers)

    def read(self, number: int) -> None:
        buffer = bytearray(EXPECTED_BYTES + 16 * (number // 10))
        buffer[:8] = b"answer %d" % (number % 10)
        self.reading.append(buffer)
        if len(self.reading) == CONNECTIONS:
            for complete in self.reading:
                self.keep(complete)
            self.reading.clear()

    def keep(self, buffer: bytearray) -> None:
        del buffer[ANSWER_BYTES:]
        self.answers.append(buffer)


class RepairedReader(Reader):
    def keep(self, buffer: bytearray) -> None:
        self.answers.append(bytes(buffer[:ANSWER_BYTES]))


def main() -> None:
    stage = Stage(__doc__, rate=120)
    reader = RepairedReader(50) if stage.repaired else Reader(MAX_ANSWERS)
    for number in stage.orders():
        reader.read(number)


if __name__ == "__main__":
    main()
