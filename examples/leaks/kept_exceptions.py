"""Exceptions that are kept "for the report", with their tracebacks, the frames of these, and all locals of those.

Repaired: the text of the exception is kept, of the last hundred.
"""

from stage import Stage


class RobotError(Exception):
    pass


class Dispatcher:
    def __init__(self) -> None:
        self.failures: list[RobotError] = []

    def call_robot(self, number: int) -> None:
        telegram = [f"byte {number}.{position}" for position in range(20)]
        raise RobotError(f"robot {number} refuses {len(telegram)} bytes")  # allocated here

    def dispatch(self, number: int) -> None:
        try:
            self.call_robot(number)
        except RobotError as error:
            self.failures.append(error)  # inserted here


class RepairedDispatcher(Dispatcher):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def dispatch(self, number: int) -> None:
        try:
            self.call_robot(number)
        except RobotError as error:
            self.texts = [*self.texts[-99:], str(error)]


def main() -> None:
    stage = Stage(__doc__, rate=350)
    dispatcher = RepairedDispatcher() if stage.repaired else Dispatcher()
    for number in stage.orders():
        dispatcher.dispatch(number)


if __name__ == "__main__":
    main()
