"""One ``ExitStack`` for the life of the server, which every request enters something into.

Repaired: one for each request.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from stage import Stage


@contextmanager
def reserved_site(number: int) -> Iterator[str]:
    name = f"site {number} " * 30
    yield name


def handle(number: int, stack: ExitStack) -> int:
    site = stack.enter_context(reserved_site(number))  # allocated here, inserted here
    return len(site)


def main() -> None:
    stage = Stage(__doc__, rate=500)
    with ExitStack() as server_stack:
        for number in stage.orders():
            if stage.repaired:
                with ExitStack() as request_stack:
                    handle(number, request_stack)
            else:
                handle(number, server_stack)


if __name__ == "__main__":
    main()
