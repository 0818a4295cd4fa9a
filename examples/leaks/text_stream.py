"""A report that is written into an ``io.StringIO`` and never taken out of it.

The stream gathers what is written in C, where neither the collector nor ``sys.getsizeof`` looks. Repaired: emptied
after each page.
"""

import io

from stage import Stage


class Report:
    def __init__(self) -> None:
        self.text = io.StringIO()

    def line(self, number: int) -> None:
        self.text.write(f"order {number} went to place {number}\n" * 20)  # inserted here


class RepairedReport(Report):
    def line(self, number: int) -> None:
        super().line(number)
        if number % 50 == 0:
            self.text.seek(0)
            self.text.truncate()


report = Report()


def main() -> None:
    global report
    stage = Stage(__doc__, rate=300)
    report = RepairedReport() if stage.repaired else Report()
    for number in stage.orders():
        report.line(number)


if __name__ == "__main__":
    main()
