"""A buffer in a ``threading.local``, of a thread that never ends. Repaired: it is flushed when it holds 200 rows."""

import threading

from stage import Stage


class Buffers(threading.local):
    def __init__(self) -> None:
        self.rows: list[dict[str, str]] = []


class Writer:
    def __init__(self, *, repaired: bool) -> None:
        self.buffers = Buffers()
        self.repaired = repaired
        self.written = 0

    def write(self, number: int) -> None:
        row = {"order": f"order {number}", "state": f"state {number} of many states" * 4}  # allocated here
        self.buffers.rows.append(row)  # inserted here
        if self.repaired and len(self.buffers.rows) >= 200:
            self.flush()

    def flush(self) -> None:
        self.written += len(self.buffers.rows)
        self.buffers.rows.clear()


def run(writer: Writer, stage: Stage) -> None:
    for number in stage.orders():
        writer.write(number)


def main() -> None:
    stage = Stage(__doc__, rate=900)
    thread = threading.Thread(target=run, args=(Writer(repaired=stage.repaired), stage), name="writer", daemon=True)
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
