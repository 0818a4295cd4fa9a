"""Charts and reports of recordings whose figures are known."""

from __future__ import annotations

import json
import math
import random
import re
import struct
import zlib
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.memory.test_record_recording import Hands, add

from flatwater.errors import FlatwaterError
from flatwater.memory import chart, chart_font, chart_html, chart_png, chart_svg, chart_text, plot, summary
from flatwater.memory.chart import Chart, Line, Series, Text
from flatwater.memory.recording import Recording, Sample
from flatwater.memory.recording_read import Point, Reader, merged
from flatwater.memory.trend import trend

MIB = 1024**2
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Half an hour: a worker that leaks until it is killed, its restart, a flat one, a warm-up, 14 short jobs."""
    path, clock, rng = tmp_path / "r.sqlite", Hands(), random.Random(3)
    with Recording(path, clock=clock) as made:
        group = made.group("/demo")
        leak, flat, warm = (
            add(made, pid, f"python -m {name}") for pid, name in ((1, "leak"), (2, "flat"), (3, "warm"))
        )
        jobs = [add(made, 100 + number, "sh -c job") for number in range(14)]
        again = 0
        for second in range(1800):

            def put(process: int, mib: float, t: int = second * 1000) -> None:
                made.add_sample(Sample(process, t, int(mib * MIB), 900 * MIB, t // 50, 0, 4, fds=9))

            if second == 1200:
                made.end_process(leak, 1_200_000, 9, oom=True)
                clock.s = 1000 + 1204
                again = add(made, 4, "python -m leak")
            if second < 1200 or second >= 1204:
                put(again or leak, 60 + (second % 1204) * 0.3 + rng.gauss(0, 1))
            put(flat, 50 + rng.gauss(0, 0.2))
            put(warm, 30 + 90 * (1 - math.exp(-second / 60)) + rng.gauss(0, 0.3))
            if second % 100 < 70 and second < 1400:
                put(jobs[second // 100], 12 + (second % 3))
            if second % 10 == 0:
                made.add_group_sample(group, second * 1000, 300 * MIB, 20 * MIB, 512 * MIB, 0, 0)
        made.flush()
        made._db.execute("UPDATE process SET control_group = 1")  # type: ignore[union-attr]
    return path


def drawn(recording: Path, **options: object) -> Chart:
    with Reader(recording) as reader:
        return plot.build(reader, **options)  # type: ignore[arg-type]


def words(picture: chart.Picture) -> list[str]:
    return [shape.words for shape in picture.shapes if isinstance(shape, Text)]


def test_what_the_chart_says(recording: Path) -> None:
    made = drawn(recording)
    picture = chart.layout(made)
    said = words(picture)
    assert said[0] == "Resident memory (RSS) of 18 processes"
    assert "2 growing" in said[1]
    assert "10 smaller in grey" in said[1]
    for expected in ("restart", "killed for memory", "limit 512 MiB", "leak", "flat", "warm"):
        assert expected in said
    notes = [one.note for one in made.series if one.named]
    assert any(re.fullmatch(r"pid 1 · 4\d\d MiB · \+1\d\.?\d* MiB/min · OOM", note) for note in notes), notes
    assert any(note.startswith("pid 2 · ") and note.endswith("· plateau") for note in notes)
    assert len(notes) == 8


def test_labels_lie_beside_one_another_and_inside(recording: Path) -> None:
    picture = chart.layout(drawn(recording))
    texts = [shape for shape in picture.shapes if isinstance(shape, Text)]
    assert all(0 < text.at[1] < picture.height and 0 <= text.at[0] < picture.width for text in texts)
    right = sorted(text.at[1] for text in texts if text.key and text.at[0] > picture.right)
    assert len(right) == 16
    assert all(below - above >= 12 for above, below in pairwise(right))
    for text in texts:
        length = chart_font.width(text.words) * text.size * 0.72 / chart_font.CAP
        start = text.at[0] - {"start": 0, "middle": length / 2, "end": length}[text.anchor]
        assert start >= 0, text
        assert start + length <= picture.width, text


@given(st.lists(st.floats(0, 400), max_size=30).map(sorted), st.floats(1, 40))
def test_pushed_apart_and_kept_inside(wished: list[float], height: float) -> None:
    places = chart.apart(wished, height, 0, 400)
    room = 400 / max(1, len(wished) - 1)
    assert all(below - above >= min(height, room) - 1e-6 for above, below in pairwise(places))
    assert all(-1e-6 <= place <= 400 + 1e-6 for place in places)


@given(st.floats(0, 1e12), st.floats(1e-3, 1e12), st.booleans())
def test_ticks_are_inside_and_even(low: float, span: float, bytes: bool) -> None:
    high = low + max(span, low * 1e-6)
    ticks = chart.value_ticks(low, high, bytes=bytes)
    assert len(ticks) <= 8
    assert all(low - 1e-6 * high <= tick <= high + 1e-6 * high for tick in ticks)


@given(st.floats(1e9, 2e9), st.floats(0.5, 3e7))
def test_times_are_inside_and_few(begin: float, span: float) -> None:
    ticks = chart.time_ticks(begin, begin + span, 9)
    assert len(ticks) <= 10
    assert all(begin <= wall <= begin + span for wall, _ in ticks)


def test_svg_is_whole_and_quotes_what_it_shows(recording: Path, tmp_path: Path) -> None:
    evil = Series("1", "<script>alert('x')</script> & \"more\"", "pid 1", (((0, 1, 1, 1), (9, 2, 2, 2)),))
    made = Chart("<b>", "]]>", "rss", True, 0.0, (evil,))
    tree = ElementTree.fromstring(chart_svg.render(chart.layout(made), title="<t>"))
    assert any(text.text and text.text.startswith("<script>alert") for text in tree.iter(f"{SVG}text"))
    assert not list(tree.iter(f"{SVG}script"))
    out = tmp_path / "chart.svg"
    plot.write(drawn(recording), out)
    tree = ElementTree.fromstring(out.read_text())
    assert len([path for path in tree.iter(f"{SVG}path") if path.get("data-key")]) >= 18
    assert out.stat().st_size < 600_000


def pixels(data: bytes) -> tuple[int, int, bytes]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, depth, kind = struct.unpack_from(">IIBB", data, 16)
    assert (depth, kind) == (8, 2)
    start = data.index(b"IDAT")
    (length,) = struct.unpack_from(">I", data, start - 4)
    raw = zlib.decompress(data[start + 4 : start + 4 + length])
    assert len(raw) == height * (3 * width + 1)
    return width, height, b"".join(raw[at + 1 : at + 3 * width + 1] for at in range(0, len(raw), 3 * width + 1))


def test_png_shows_the_lines_in_their_colours(recording: Path) -> None:
    picture = chart.layout(drawn(recording))
    width, height, rgb = pixels(chart_png.render(picture, scale=1))
    assert (width, height) == (picture.width, picture.height)
    colours = {rgb[at : at + 3].hex() for at in range(0, len(rgb), 3)}
    for colour in (*chart.COLOURS[:3], chart.ALARM):
        assert colour[1:] in colours
    line = next(shape for shape in picture.shapes if isinstance(shape, Line) and shape.key and shape.width > 2)
    x, y = (round(place) for place in line.dots[len(line.dots) // 2])
    near = {rgb[3 * (row * width + x) : 3 * (row * width + x) + 3].hex() for row in range(y - 2, y + 3)}
    assert near != {"ffffff"}


def test_every_letter_has_its_own_strokes() -> None:
    letters = [chr(code) for code in range(33, 127) if chr(code) not in "`"]
    strokes = {letter: chart_font.glyph(letter)[0] for letter in letters}
    unknown = chart_font.glyph("\u4e2d")[0]
    assert [letter for letter, found in strokes.items() if found == unknown] == []
    assert len(set(strokes.values())) == len(letters)


def test_html_loads_nothing_and_holds_the_figures(recording: Path) -> None:
    made = drawn(recording)
    page = chart_html.render(made, chart.layout(made))
    assert not re.search(r"(src|href)=|@import|url\(", page)
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    assert len(data["series"]) == 18
    assert data["series"][0]["points"][0][1] == pytest.approx(60 * MIB, rel=0.1)


def test_terminal(recording: Path) -> None:
    text = chart_text.render(drawn(recording), width=80, height=12, colour=False)
    lines = text.splitlines()
    assert max(len(line) for line in lines[3:17]) <= 80
    assert any(any("\u2801" <= letter <= "\u28ff" for letter in line) for line in lines)
    assert "\033" not in text
    assert "pid 4" in text
    assert "\033[34m" in chart_text.render(drawn(recording), width=80, height=12)


@pytest.mark.parametrize("figure", ["pss", "cpu", "threads", "fds", "swap"])
def test_other_figures(recording: Path, figure: str) -> None:
    made = drawn(recording, figure=figure)
    assert bool(made.series) == (figure in ("cpu", "threads", "fds"))
    assert chart_svg.render(chart.layout(made))
    assert chart_text.render(made)


def test_gaps_break_the_line_and_tiers_do_not() -> None:
    steps = [1.0] * 20 + [300.0] + [1.0] * 20
    times = [sum(steps[:number]) for number in range(len(steps))]
    assert [len(piece) for piece in plot.pieces([Point(t, 1, 1, 1) for t in times])] == [21, 20]
    tiers = [60.0 * n for n in range(20)] + [1200 + 10.0 * n for n in range(20)] + [1400.0 + n for n in range(20)]
    assert len(plot.pieces([Point(t, 1, 1, 1) for t in tiers])) == 1


def test_only_the_last_part(recording: Path) -> None:
    made = drawn(recording, since_s=60.0)
    assert min(point[0] for one in made.series for piece in one.pieces for point in piece) >= 1739
    assert made.marks == ()


def test_formats_and_figures_that_do_not_exist(recording: Path, tmp_path: Path) -> None:
    with pytest.raises(FlatwaterError, match="no format"):
        plot.write(drawn(recording), tmp_path / "chart.jpeg")
    with pytest.raises(FlatwaterError, match="no figure"):
        drawn(recording, figure="weight")
    with pytest.raises(FlatwaterError, match="No such file"):
        plot.write(drawn(recording), tmp_path / "none" / "chart.svg")


def test_the_report(recording: Path) -> None:
    with Reader(recording) as reader:
        report = summary.summarize(reader)
    assert report.verdict.startswith("KILLED FOR MEMORY: 1 process. GROWING: leak (pid ")
    assert report.verdict.endswith("1 restart.")
    by_pid = {one.pid: one for one in report.processes}
    leak, flat, warm, again = (by_pid[pid] for pid in (1, 2, 3, 4))
    assert (leak.kind, again.kind, flat.kind, warm.kind) == ("growing", "growing", "plateau", "plateau")
    assert (again.restart_of, leak.restarted_as) == (leak.id, again.id)
    assert leak.trend is not None
    assert leak.trend.low < 0.3 * MIB < leak.trend.high
    assert leak.time_to_limit_s is None
    # used 300 - 20 of cache against 240 of its own: the larger counts; 512 - 280 at 0.3 a second
    assert again.time_to_limit_s == pytest.approx(232 / 0.3, rel=0.05)
    assert (again.limit, again.limit_of) == (512 * MIB, "control group /demo")
    assert warm.trend is not None
    assert warm.trend.since > 100
    assert flat.peak_rss < 52 * MIB
    assert report.processes[0].kind == "growing"
    text = summary.text(report)
    assert text.startswith(report.verdict)
    assert "took the place of pid 1" in text
    assert json.loads(json.dumps(summary.document(report)))["processes"][0]["trend"]["kind"] == "growing"


def points(shape: str, noise: float, seed: int) -> list[Point]:
    rng = random.Random(seed)
    level = {
        "flat": lambda i: 100.0,
        "leak": lambda i: 50 + 0.05 * i,
        "warm": lambda i: 100 * (1 - math.exp(-i / 60)),
        "warm leak": lambda i: min(i, 100) + 0.03 * max(0, i - 100),
        "step": lambda i: 100.0 if i < 500 else 140.0,
        "saw": lambda i: 100 + (i % 100) * 0.3,
        "saw leak": lambda i: 100 + (i % 100) * 0.3 + 0.05 * i,
        "repaired": lambda i: 50 + 0.2 * min(i, 600),
        "broken": lambda i: 50 + 0.2 * max(0, i - 600),
        "stairs": lambda i: 100 + (i // 50) * 2,
    }[shape]
    values = ((float(i), (level(i) + rng.gauss(0, noise)) * MIB) for i in range(1000))
    return [Point(t, value, value, value) for t, value in values]


@pytest.mark.parametrize(
    ("shape", "kinds", "per_min"),
    [
        ("flat", {"plateau"}, None),
        ("leak", {"growing"}, 3.0),
        ("warm", {"plateau"}, None),
        ("warm leak", {"growing"}, 1.8),
        ("step", {"plateau"}, None),
        ("saw", {"plateau", "unclear"}, None),
        ("saw leak", {"growing"}, 3.0),
        ("repaired", {"plateau"}, None),
        ("broken", {"growing"}, 12.0),
        ("stairs", {"growing"}, 2.4),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_trends(shape: str, kinds: set[str], per_min: float | None, seed: int) -> None:
    found = trend(points(shape, 0.3, seed))
    assert found is not None
    assert found.kind in kinds
    if per_min is not None:
        assert found.per_s * 60 / MIB == pytest.approx(per_min, rel=0.1)


def test_noise_is_hardly_ever_taken_for_growth() -> None:
    alarms = 0
    for seed in range(200):
        rng = random.Random(seed)
        flat = [Point(float(i), v := (12 + 3 * rng.random()) * MIB, v, v) for i in range(70)]
        found = trend(flat)
        alarms += found is not None and found.grows
    assert alarms <= 4


def test_too_little_says_nothing() -> None:
    assert trend([Point(float(i), i, i, i) for i in range(11)]) is None


def test_merging_goes_by_time_and_keeps_the_peaks() -> None:
    """A month of minutes and an hour of seconds: the hour must not take half of the chart."""
    times = [60.0 * minute for minute in range(40_000)] + [2_400_000.0 + second for second in range(40_000)]
    made = [Point(t, 5.0, 5.0, 99.0 if t == 1_200_000 else 5.0) for t in times]
    found = merged(made, 1000)
    assert 900 < len(found) <= 1000
    assert max(point.high for point in found) == 99.0
    steps = [later.t - earlier.t for earlier, later in pairwise(found)]
    assert max(steps) < 2 * (times[-1] / 1000)
    drawing = chart.layout(Chart("", "", "rss", True, 0.0, (Series("1", "a", "", plot.pieces(made)),)))
    curve = next(shape for shape in drawing.shapes if isinstance(shape, Line) and shape.width > 2)
    assert max(right[0] - left[0] for left, right in pairwise(curve.dots)) < 4
