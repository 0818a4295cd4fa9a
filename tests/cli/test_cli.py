"""The `flatwater` command as people type it: real processes, real files, a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engine.plan import b, plan

FLATWATER = [sys.executable, "-m", "flatwater.cli"]
HELLO = plan(
    "hello",
    b(1, "DelayBp", {"timeMillis": 20}),
    inputs=[("who", "String")],
    outputs={"text": "'hello ' + taskInputs.who"},
)


def flatwater(*words: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environ}
    return subprocess.run(
        [*FLATWATER, *words], input=stdin, capture_output=True, text=True, timeout=60, env=environment, check=False
    )


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    file = tmp_path / "hello.json"
    file.write_text(json.dumps(HELLO))
    return file


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server of its own."""
    command = [*FLATWATER, "serve", "--port", "0", "--db", f"sqlite:///{tmp_path}/server.db"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "Flatwater is ready: http" in line, line + process.stderr.read()
    yield line.split(": ")[1].strip().rstrip("/")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=90)
    assert process.returncode == 0


def test_run_prints_the_outputs(hello: Path) -> None:
    done = flatwater("run", str(hello), "--input", "who=you")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"text": "hello you"})


def test_run_reads_standard_input(hello: Path) -> None:
    done = flatwater("run", "-", "--inputs", '{"who": "you"}', stdin=hello.read_text())
    assert json.loads(done.stdout) == {"text": "hello you"}


def test_run_says_by_its_status_that_the_run_failed(tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text(json.dumps(plan("bad", b(1, "ThrowExceptionBp", {"message": "no forklift"}))))
    done = flatwater("run", str(file))
    assert done.returncode == 1
    assert "no forklift [-1/1]" in done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "truncated"),
        (json.dumps(plan("x", b(1, "NoSuchBp"))), "NoSuchBp"),
        (json.dumps(plan("x", b(1, "IfBp", {"condition": "=1 +"}))), "condition"),
    ],
)
def test_run_names_every_problem_of_a_definition(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "wrong.json"
    file.write_text(text)
    done = flatwater("run", str(file))
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["run", "/no/such/file"],
        ["run", "-", "--input", "novalue"],
        ["run", "-", "--inputs", "[1]"],
        ["serve", "--port", "many"],
        ["nonsense"],
    ],
)
def test_wrong_usage_has_status_2(words: list[str]) -> None:
    done = flatwater(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_run_with_sites_and_with_blocks_of_a_module(tmp_path: Path) -> None:
    (tmp_path / "scales.py").write_text(
        "from flatwater.engine import block\n\n"
        "@block('Weigh')\ndef weigh(site: str) -> dict:\n    return {'kg': len(site)}\n"
    )
    (tmp_path / "sites.json").write_text(json.dumps([{"id": "A-1", "group": "A"}]))
    get = b(1, "GetIdleSiteBp", {"groupName": "A", "lock": True, "filled": False}, name="get")
    weigh = b(2, "Weigh", {"site": "=blocks.get.siteId"}, name="weigh")
    (tmp_path / "d.json").write_text(json.dumps(plan("weigh", get, weigh, outputs={"kg": "blocks.weigh.kg"})))
    done = flatwater(
        "run", str(tmp_path / "d.json"), "--sites", str(tmp_path / "sites.json"), "--blocks", "scales",
        PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"kg": 3}


def test_a_module_of_blocks_that_is_not_there(hello: Path) -> None:
    done = flatwater("run", str(hello), "--blocks", "no_such_module")
    assert done.returncode == 1
    assert "no_such_module" in done.stderr
    assert "Traceback" not in done.stderr


def test_definitions_check_lists_problems_with_the_file(hello: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(plan("bad", b(1, "NoSuchBp"), b(2, "IfBp"))))
    done = flatwater("definitions", "check", str(hello), str(bad))
    assert done.returncode == 1
    assert "hello" in done.stdout
    assert done.stderr.count("bad.json: ") >= 2


def test_a_server_is_steered_from_the_command_line(server: str, hello: Path, tmp_path: Path) -> None:
    def call(*words: str) -> Any:
        done = flatwater(*words, FLATWATER_URL=server)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "hello\tversion 1" in call("definitions", "save", str(hello))
    assert '"hello you"' in call("runs", "submit", "hello", "--input", "who=you", "--wait")
    late = call("runs", "submit", "hello", "--delay", "3600").strip()
    assert f"{late}\tCANCELED" in call("runs", "cancel", late)
    assert len(call("runs", "list").splitlines()) == 2
    assert len(call("runs", "list", "--state", "canceled").splitlines()) == 1
    assert json.loads(call("runs", "show", late))["state"] == "CANCELED"
    sites = tmp_path / "sites.json"
    sites.write_text(json.dumps([{"id": "A-1", "group": "A"}, {"id": "A-2", "group": "A"}]))
    assert "2 sites" in call("sites", "import", str(sites))
    assert json.loads(call("sites", "set", "A-1", "filled=true"))["filled"] is True
    assert len(call("sites", "list", "--group", "A").splitlines()) == 2


def test_a_submitted_run_that_fails_is_the_status(server: str, tmp_path: Path) -> None:
    failing = tmp_path / "failing.json"
    failing.write_text(json.dumps(plan("failing", b(1, "ThrowExceptionBp", {"message": "on purpose"}))))
    assert flatwater("definitions", "save", str(failing), FLATWATER_URL=server).returncode == 0
    assert flatwater("runs", "submit", "failing", "--wait", FLATWATER_URL=server).returncode == 1


def test_errors_of_the_server_are_told_in_its_words(server: str) -> None:
    done = flatwater("runs", "submit", "nothing", FLATWATER_URL=server)
    assert done.returncode == 1
    assert "nothing" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_server_is_a_clear_error() -> None:
    done = flatwater("runs", "list", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "is `flatwater serve` running there?" in done.stderr


def test_db_upgrade_and_check(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    assert flatwater("db", "upgrade", "--db", url).returncode == 0
    assert flatwater("db", "check", "--db", url).stdout.strip() == "the database is sound"
    (tmp_path / "junk.db").write_bytes(b"this is no database" * 100)
    done = flatwater("db", "check", "--db", f"sqlite:///{tmp_path}/junk.db")
    assert done.returncode == 1
    assert "junk.db" in done.stderr
    assert "Traceback" not in done.stderr


def test_config_check_looks_into_the_certificate(tmp_path: Path) -> None:
    file = tmp_path / "flatwater.toml"
    (tmp_path / "cert.pem").write_text("nothing")
    file.write_text(f'[server]\ntls_certificate = "{tmp_path}/cert.pem"\n')
    done = flatwater("config", "check", "--config", str(file))
    assert done.returncode != 0
    assert "the file holds none" in done.stderr


def test_config_check_shows_origins_and_problems(tmp_path: Path) -> None:
    file = tmp_path / "flatwater.toml"
    file.write_text("[server]\nport = 9000\n")
    done = flatwater("config", "check", "--config", str(file))
    assert "port = 9000" in done.stdout
    file.write_text('[server]\nport = "many"\n')
    done = flatwater("config", "check", "--config", str(file))
    assert done.returncode == 1
    assert "flatwater.toml" in done.stderr


def test_a_taken_port_is_a_clear_error(server: str, tmp_path: Path) -> None:
    port = server.rsplit(":", 1)[1]
    done = flatwater("serve", "--port", port, "--db", f"sqlite:///{tmp_path}/other.db")
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr
