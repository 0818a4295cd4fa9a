"""The diagnosis of one process on a screen of its own: ``flatwater diagnose`` in a child, so that leaving ends it."""

from __future__ import annotations

import subprocess
import sys
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, Header, Static


class AnswerScreen(Screen[None]):
    """Runs the diagnosis and shows its report."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", "back"),
        Binding("q", "app.quit", "leave"),
    ]

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._pid = pid
        self._process: subprocess.Popen[str] | None = None

    def compose(self) -> ComposeResult:
        yield Header()
        with VerticalScroll():
            yield Static(f"diagnosing pid {self._pid} …", id="answer", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.run_worker(self._diagnose, thread=True, exclusive=True)

    def on_unmount(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(2)  # it detaches and leaves the target as it was

    def _diagnose(self) -> None:
        command = [sys.executable, "-m", "flatwater.cli", "diagnose", str(self._pid)]
        self._process = subprocess.Popen(  # noqa: S603 - our own command, a number
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        text, trouble = self._process.communicate()
        if self.is_mounted:
            self.app.call_from_thread(self.query_one("#answer", Static).update, text or trouble)
