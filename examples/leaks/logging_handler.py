"""A logging handler per request, added and never removed. Repaired: removed and closed in a ``finally``."""

import io
import logging

from stage import Stage

logger = logging.getLogger("warehouse.requests")
logger.propagate = False
logger.setLevel(logging.INFO)


def handle(number: int) -> logging.Handler:
    capture = logging.StreamHandler(io.StringIO())  # allocated here
    capture.setLevel(logging.ERROR)
    logger.addHandler(capture)  # inserted here
    logger.info("request %d handled", number)
    return capture


def handle_and_remove(number: int) -> None:
    capture = handle(number)
    logger.removeHandler(capture)
    capture.close()


def main() -> None:
    stage = Stage(__doc__, rate=150)
    work = handle_and_remove if stage.repaired else handle
    for number in stage.orders():
        work(number)


if __name__ == "__main__":
    main()
