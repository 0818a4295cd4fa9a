"""One object that grows, not many: a ``bytearray`` of everything that a connection has received.

Repaired: what was parsed is cut off.
"""

from stage import Stage


class Connection:
    def __init__(self) -> None:
        self.received = bytearray()
        self.parsed = 0

    def data_received(self, data: bytes) -> None:
        self.received.extend(data)  # inserted here
        while (end := self.received.find(b"\n", self.parsed)) >= 0:
            self.parsed = end + 1


class RepairedConnection(Connection):
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        del self.received[: self.parsed]
        self.parsed = 0


def main() -> None:
    stage = Stage(__doc__, rate=1000)
    connection = RepairedConnection() if stage.repaired else Connection()
    for number in stage.orders():
        connection.data_received(b"robot %d is at place %d\n" % (number, number) * 20)


if __name__ == "__main__":
    main()
