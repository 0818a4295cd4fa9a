"""A list that is a local variable of ``main()``, which runs as long as the process.

Repaired: it is emptied each 100 orders.
"""

from stage import Stage


def handle(number: int) -> dict[str, object]:
    return {"order": number, "lines": [f"line {number}.{line}" for line in range(10)]}  # allocated here


def main() -> None:
    stage = Stage(__doc__, rate=600)
    answers = []
    for number in stage.orders():
        answers.append(handle(number))  # inserted here
        if stage.repaired and len(answers) >= 100:
            answers.clear()


if __name__ == "__main__":
    main()
