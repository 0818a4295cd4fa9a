"""The three reports of one diagnosis that a process made of itself, with the library."""

import pickle
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from flatwater.memory import path_drawing, report_html, report_json, report_text
from flatwater.memory.diagnosis import Diagnosis

PROGRAM = Path(__file__).with_name("own_diagnosis.py")


@pytest.fixture(scope="module")
def diagnosis() -> Diagnosis:
    done = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found: Diagnosis = pickle.loads(done.stdout)
    return found


def first_of(diagnosis: Diagnosis) -> str:
    return next(found.suspect.owner for found in diagnosis.findings if ".KEPT" in found.suspect.owner)


def test_own_process_is_diagnosed(diagnosis: Diagnosis):
    assert diagnosis.verdict.kind == "python-objects"
    assert first_of(diagnosis).startswith("__main__.KEPT (dict, +")


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


def test_paths_are_a_picture_and_a_graph_of_their_own(diagnosis: Diagnosis):
    suspects = [found.suspect for found in diagnosis.findings]
    picture = path_drawing.svg(suspects)
    root = ElementTree.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    drawn = root.findall("{http://www.w3.org/2000/svg}svg")
    assert len(drawn) == len(suspects)
    assert int(root.get("height", 0)) >= sum(int(one.get("height", 0)) for one in drawn) > 0
    assert "var(" not in picture
    graph = path_drawing.dot(suspects)
    assert graph.startswith("digraph")
    assert graph.count("subgraph cluster_") == len(suspects)
    assert "color=red" in graph
    assert any(line.strip().startswith("n0_0 -> n0_1 [label=") for line in graph.splitlines())
    assert graph.count("{") == graph.count("}")
    assert "secret" not in picture + graph
    assert path_drawing.svg([]) == path_drawing.dot([]) == ""
