"""A dictionary of a module in a package (``depot/registry.py``), filled from elsewhere.

Repaired: old keys are forgotten.
"""

from depot import registry
from stage import Stage


def main() -> None:
    stage = Stage(__doc__, rate=1000)
    for number in stage.orders():
        registry.note_sighting(number % 20, number)
        if stage.repaired and number % 100 == 0:
            registry.forget_before(number - 200)


if __name__ == "__main__":
    main()
