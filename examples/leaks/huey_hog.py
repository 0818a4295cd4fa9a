"""A Huey worker whose memory-hungry task leaves its data behind (Huey worker, S3).

``copy_workspace`` loads all rows of a workspace, and a module-level dictionary that was meant for the duration of one
copy keeps the rows of every copy. Repaired: the rows are local, and read in parts. Run with a real Huey consumer, one
worker thread, on a SQLite file.
"""

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from huey import SqliteHuey
from stage import Stage

folder = tempfile.TemporaryDirectory(prefix="huey-hog-")
huey = SqliteHuey("workspaces", filename=str(Path(folder.name) / "huey.db"))
copied_rows: dict[int, list[dict[str, str]]] = {}


def rows_of(workspace: int) -> Iterator[dict[str, str]]:
    for number in range(60):
        text = f"{number} words of {workspace} " * 5
        yield {"name": f"document {workspace}.{number}", "text": text}  # allocated here


@huey.task()
def copy_workspace(workspace: int) -> None:
    copied_rows[workspace] = list(rows_of(workspace))  # allocated here, inserted here
    for row in copied_rows[workspace]:
        row["name"] += " (copy)"


@huey.task()
def copy_workspace_in_parts(workspace: int) -> None:
    for row in rows_of(workspace):
        row["name"] += " (copy)"


def order_copies(stage: Stage) -> None:
    copy = copy_workspace_in_parts if stage.repaired else copy_workspace
    for number in stage.orders():
        copy(number)


def main() -> None:
    stage = Stage(__doc__, rate=30)
    consumer = huey.create_consumer(
        workers=1, periodic=False, check_worker_health=False, initial_delay=0.01, max_delay=0.05
    )
    consumer.start()
    try:
        order_copies(stage)
    finally:
        consumer.stop(graceful=True)
        threading.Event().wait(0.1)
        folder.cleanup()


if __name__ == "__main__":
    main()
