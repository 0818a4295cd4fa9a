"""A list that is replaced by a longer copy with every order: no list lives long enough to be seen growing.

Repaired: the last ten are kept.
"""

from stage import Stage


class Order:
    def __init__(self, number: int) -> None:
        self.number = number
        self.text = f"bring {number} bolts to place {number}"


class Basket:
    def __init__(self) -> None:
        self.orders: list[Order] = []

    def add(self, number: int) -> None:
        order = Order(number)  # allocated here
        self.orders = [*self.orders, order]  # inserted here


class RepairedBasket(Basket):
    def add(self, number: int) -> None:
        super().add(number)
        self.orders = self.orders[-10:]


basket = Basket()


def main() -> None:
    global basket
    stage = Stage(__doc__, rate=250)
    basket = RepairedBasket() if stage.repaired else Basket()
    for number in stage.orders():
        basket.add(number)


if __name__ == "__main__":
    main()
