"""An undo history as pairs (what was done, the history before): a chain of tuples and strings, without any class.

Repaired: it is forgotten every hundred steps.
"""

from stage import Stage

History = tuple[str, "History"] | None


class Editor:
    def __init__(self) -> None:
        self.history: History = None

    def change(self, number: int) -> None:
        self.history = (f"shelf {number} was moved to place {number}", self.history)  # allocated here, inserted here


class RepairedEditor(Editor):
    def change(self, number: int) -> None:
        super().change(number)
        if number % 100 == 0:
            self.history = None


editor = Editor()


def main() -> None:
    global editor
    stage = Stage(__doc__, rate=900)
    editor = RepairedEditor() if stage.repaired else Editor()
    for number in stage.orders():
        editor.change(number)


if __name__ == "__main__":
    main()
