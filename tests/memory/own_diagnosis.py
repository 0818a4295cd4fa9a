"""A process that leaks and diagnoses itself with the library, and writes the Diagnosis as a pickle to its output.

In a process of its own, for that of the tests is hundreds of megabytes large, and what its other tests left free is
growth and shrinkage too.
"""

from __future__ import annotations

import pickle
import sys
import threading

from flatwater.memory.diagnosis import diagnose
from flatwater.memory.target import Here

SECRET = "<b>secret-4111</b>"
KEPT: dict[str, list[object]] = {}


def leak(leave: threading.Event) -> None:
    number = 0
    while not leave.wait(0.005):
        for _ in range(20):
            KEPT[f"{SECRET}{number}"] = [object(), SECRET * 30]
            number += 1


def main() -> None:
    leave = threading.Event()
    thread = threading.Thread(target=leak, args=[leave])
    thread.start()
    phases: list[str] = []
    try:
        with Here() as here:
            found = diagnose(here, 4.0, progress=lambda phase, part: phases.append(phase))
    finally:
        leave.set()
        thread.join()
    assert phases[-1] == "done"
    pickle.dump(found, sys.stdout.buffer)


if __name__ == "__main__":
    main()
