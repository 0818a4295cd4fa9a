"""Threads that never end, each with its stack (thread stacks).

For each robot that logs in a thread is started that reads its map and then waits for a word that never comes.
Repaired: the thread ends when the map is read.
"""

import json
import threading

from stage import Stage

NESTED_MAP = "[" * 900 + "]" * 900


class RobotConnection:
    def __init__(self, number: int, goodbye: threading.Event) -> None:
        self.number = number
        self.goodbye = goodbye
        self.depth = 0

    def serve(self) -> None:
        self.depth = len(json.loads(NESTED_MAP))
        self.goodbye.wait()  # never comes


class RepairedConnection(RobotConnection):
    def serve(self) -> None:
        self.depth = len(json.loads(NESTED_MAP))


def main() -> None:
    stage = Stage(__doc__, rate=8)
    goodbye = threading.Event()
    for number in stage.orders():
        connection = (RepairedConnection if stage.repaired else RobotConnection)(number, goodbye)
        threading.Thread(target=connection.serve, name=f"robot-{number}", daemon=True).start()
    goodbye.set()


if __name__ == "__main__":
    main()
