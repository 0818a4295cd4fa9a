"""Attach and detach, again and again, to a program under load: it neither dies nor hangs nor grows.

``ATTACH_CYCLES=1000 pytest tests/live/test_attach_cycles.py -s`` is the proof (some minutes; the figures are printed).
"""

import os
import time

import pytest

from flatwater.memory.attach import attach
from flatwater.memory.slope import slope
from tests.live.target import Program

CYCLES = int(os.environ.get("ATTACH_CYCLES", "20"))
WARM = 5  # the first cycles fill malloc's and Python's free lists
TIMEOUT_S = 60.0


def middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


@pytest.mark.timeout(60 + CYCLES * 3)
@pytest.mark.parametrize("kind", ["busy", "served", "green", "idle"])
def test_attach_and_detach(kind: str):
    with Program(kind) as program:
        quiet = float(program.hear("gap")[0]) if kind != "idle" else 0.0
        blocks: list[int] = []
        kinds: list[dict[str, int]] = []
        resident, pauses, answers = [], [], []
        for cycle in range(CYCLES):
            began = time.monotonic()
            with attach(program.pid, timeout_s=TIMEOUT_S) as attached:
                pauses.append(attached.pause_s)
                answers.append(time.monotonic() - began)
                assert attached.injected
                if kind == "idle" and cycle in (WARM, CYCLES - 1):
                    blocks.append(attached.ask("usage", shares=False)["blocks"])
                    kinds.append({row[0]: row[1] for row in attached.ask("census")["types"]})
            resident.append((float(cycle), float(program.resident())))
            assert program.process.poll() is None
        assert program.threads() <= {"busy": 8, "served": 6, "green": 2, "idle": 1}[kind]
        if kind == "idle":
            assert {name: count for name, count in kinds[1].items() if count - kinds[0].get(name, 0) > 5} == {}
            assert abs(blocks[1] - blocks[0]) < 300 + CYCLES  # Python's free lists of tuples fill slowly
        else:
            program.hear("gap")  # its loop still turns
        line = slope(resident[WARM:])
        assert line is not None
        assert line.low * CYCLES < 2 << 20, f"RSS grows by {line.per_s:,.0f} bytes a cycle"
        while program.read(0):
            pass
        gaps = [float(words[1]) for words in program.lines if words[0] == "gap"] or [0.0]
        print(
            f"\n{kind}: {CYCLES} cycles; one thread stood still {middle(pauses) * 1e3:.2f} ms (longest"
            f" {max(pauses) * 1e3:.2f}); answer after {middle(answers):.3f} s (longest {max(answers):.3f});"
            f" RSS {line.per_s:+,.0f} bytes a cycle ({line.low:+,.0f} to {line.high:+,.0f}); longest gap of its loop"
            f" in a second {quiet * 1e3:.1f} ms before, {middle(gaps) * 1e3:.1f} ms while attaching (at most"
            f" {max(gaps) * 1e3:.1f})"
        )
