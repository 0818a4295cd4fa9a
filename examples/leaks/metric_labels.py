"""A metric labelled by order number: a time series for each order, for ever.

Repaired: labelled by the kind of order.
"""

from prometheus_client import Counter
from stage import Stage

handled = Counter("orders_handled", "Orders that were handled", ["order"])


def count_by_number(number: int) -> None:
    handled.labels(f"order-{number}").inc()  # allocated here, inserted here


def count_by_kind(number: int) -> None:
    handled.labels(f"kind-{number % 7}").inc()


def main() -> None:
    stage = Stage(__doc__, rate=300)
    count = count_by_kind if stage.repaired else count_by_number
    for number in stage.orders():
        count(number)


if __name__ == "__main__":
    main()
