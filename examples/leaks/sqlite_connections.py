"""Connections that are kept without being used: nearly all of their memory is SQLite's, outside Python.

What grows is native, but it is the list that owns it. Repaired: each is closed.
"""

import sqlite3

from stage import Stage


class Stock:
    def __init__(self) -> None:
        self.connections: list[sqlite3.Connection] = []

    def count(self, number: int) -> int:
        connection = sqlite3.connect(":memory:")  # allocated here
        connection.execute("create table places (number integer, article text)")
        connection.execute("insert into places values (?, 'bolts')", (number,))
        self.connections.append(connection)  # inserted here
        return number


class RepairedStock(Stock):
    def count(self, number: int) -> int:
        super().count(number)
        self.connections.pop().close()
        return number


def main() -> None:
    stage = Stage(__doc__, rate=40)
    stock = RepairedStock() if stage.repaired else Stock()
    for number in stage.orders():
        stock.count(number)


if __name__ == "__main__":
    main()
