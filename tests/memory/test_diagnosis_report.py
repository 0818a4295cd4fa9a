"""The three reports of one diagnosis of this very process, made with the library."""

import threading
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from flatwater.memory import path_drawing, report_html, report_json, report_text
from flatwater.memory.diagnosis import Diagnosis, diagnose
from flatwater.memory.target import Here

SECRET = "<b>secret-4111</b>"
KEPT: dict[str, list[object]] = {}


@pytest.fixture(scope="module")
def diagnosis() -> Iterator[Diagnosis]:
    leave = threading.Event()

    def leak() -> None:
        number = 0
        while not leave.wait(0.005):
            for _ in range(20):  # megabytes a second: a worker of the whole suite is hundreds of megabytes large
                KEPT[f"{SECRET}{number}"] = [object(), SECRET * 30]
                number += 1

    thread = threading.Thread(target=leak)
    thread.start()
    phases: list[str] = []
    try:
        with Here() as here:
            yield diagnose(here, 4.0, progress=lambda phase, part: phases.append(phase))
    finally:
        leave.set()
        thread.join()
        KEPT.clear()
    assert phases[-1] == "done"


def first_of(diagnosis: Diagnosis) -> str:
    return next(found.suspect.owner for found in diagnosis.findings if ".KEPT" in found.suspect.owner)


def test_own_process_is_diagnosed(diagnosis: Diagnosis):
    assert diagnosis.verdict.kind == "python-objects"
    assert first_of(diagnosis).startswith(f"{__name__}.KEPT (dict, +")


def test_text_begins_with_the_answer_and_fits_a_terminal(diagnosis: Diagnosis):
    lines = report_text.write(diagnosis).splitlines()
    assert lines[0].startswith("GROWING  python-objects")
    assert len(lines) < 80
    assert diagnosis.signature in lines[-1]


def test_page_needs_nothing_else_and_draws_each_path(diagnosis: Diagnosis):
    page = report_html.write(diagnosis)
    assert page.count("<svg") == len(diagnosis.findings)
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "")
    for found in diagnosis.findings:
        drawing = ElementTree.fromstring(path_drawing.draw(found.suspect))
        assert any((element.text or "") == "grows" for element in drawing.iter())


def test_no_report_holds_a_value(diagnosis: Diagnosis):
    told = report_text.write(diagnosis) + report_html.write(diagnosis) + report_json.encode(diagnosis).decode()
    assert "secret" not in told
    assert "4111" not in told


def test_long_paths_lose_their_middle():
    boxes = [path_drawing.Box("", str(number), "", None) for number in range(60)]
    kept = path_drawing.shortened(boxes, 16)
    assert len(kept) == 16
    assert (kept[0].title, kept[-1].title) == ("0", "59")
    assert "45 more" in kept[5].title


def test_a_chain_of_like_objects_is_one_box():
    chain = [path_drawing.Box(".previous", "Version", "", size) for size in range(40, 10, -1)]
    first, more = path_drawing.folded(chain, 4000)
    assert (first.retained, more.title, more.retained) == (40, "4,029 more", 11)
