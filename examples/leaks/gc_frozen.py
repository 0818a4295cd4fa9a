"""Cycles that are frozen before they could be collected (gateway, circular references).

``gc.freeze()`` is meant to be called once, before workers fork. Here it is called after each batch, "so that the
collector has less to do", and moves the garbage of the batch where the collector never looks. Repaired: frozen
once, at the start.
"""

import gc

from stage import Stage

BATCH = 50


class Node:
    def __init__(self, number: int, parent: "Node | None") -> None:
        self.label = f"node {number}"
        self.parent = parent
        self.children: list[Node] = []


def plan(number: int) -> int:
    root = Node(number, None)
    root.children = [Node(number + child, root) for child in range(8)]
    return len(root.children)


def main() -> None:
    stage = Stage(__doc__, rate=400)
    gc.freeze()
    for number in stage.orders():
        plan(number)
        if number % BATCH == 0 and not stage.repaired:
            gc.freeze()


if __name__ == "__main__":
    main()
