"""Settings: three layers, units, and errors that say where, what and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from flatwater.quantity import exact, measure
from flatwater.settings import Flag, Settings, SettingsError, check, load
from flatwater.settings.model import EngineSettings, RetentionSettings, StoreSettings, leaves
from flatwater.settings.reference import reference

DOCS = Path(__file__).parents[2] / "docs" / "reference"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "flatwater.toml"
    path.write_text(text, "utf-8")
    return path


def problems(
    tmp_path: Path, text: str = "", environ: dict[str, str] | None = None, flags: tuple[Flag, ...] = ()
) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(write(tmp_path, text), environ=environ or {}, flags=flags)
    return [str(problem) for problem in caught.value.problems]


def test_defaults_need_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(environ={}).settings == Settings()


def test_environment_overrides_file_and_flags_override_both(tmp_path: Path) -> None:
    path = write(tmp_path, '[server]\nport = 1001\nhost = "10.0.0.1"\nmax_body_bytes = "4 MiB"\n')
    environ = {
        "FLATWATER_SERVER_PORT": "1002",
        "FLATWATER_SERVER_HOST": "10.0.0.2",
        "FLATWATER_TEST_DATABASE": "ignored",
    }
    loaded = load(path, environ=environ, flags=[Flag("--port", "server.port", "1003")])
    assert (loaded.settings.server.port, loaded.settings.server.host) == (1003, "10.0.0.2")
    assert loaded.settings.server.max_body_bytes == 4 * 1024**2
    assert loaded.origins["server.port"] == "--port"
    assert loaded.origins["server.host"] == "FLATWATER_SERVER_HOST"
    assert loaded.origins["server.max_body_bytes"] == f"{path}:4"


def test_file_is_found_by_variable_and_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "[server]\nport = 7\n")
    assert load(environ={"FLATWATER_CONFIG": str(path)}).settings.server.port == 7
    monkeypatch.chdir(tmp_path)
    assert load(environ={}).settings.server.port == 7


def test_every_default_is_shown_in_a_form_that_reads_back() -> None:
    for leaf in leaves():
        if leaf.unit:
            assert measure(exact(leaf.default, leaf.unit), leaf.unit) == leaf.default, leaf.key


def test_every_problem_is_reported_with_file_and_line(tmp_path: Path) -> None:
    text = 'port = 1\n[server]\nprot = 1\nport = "x"\n\n[stream]\nheartbeat_s = "soon"\n[engin]\nmax_active = 1\n'
    found = problems(tmp_path, text, {"FLATWATER_SERVER_PRT": "1", "FLATWATER_ENGINE_MAX_ACTIVE": "0"})
    where = tmp_path / "flatwater.toml"
    assert [line for line in found if line.startswith(f"{where}:1: `port` stands outside")]
    assert [line for line in found if line.startswith(f"{where}:3: `server.prot`") and "server.port" in line]
    assert [line for line in found if line.startswith(f"{where}:4: server.port = 'x'") and "8350" in line]
    assert [line for line in found if line.startswith(f"{where}:7: stream.heartbeat_s") and "30s" in line]
    assert [line for line in found if line.startswith(f"{where}:9: `engin.max_active`") and "engine.max_active" in line]
    assert [line for line in found if line.startswith("FLATWATER_SERVER_PRT") and "FLATWATER_SERVER_PORT" in line]
    assert [line for line in found if line.startswith("FLATWATER_ENGINE_MAX_ACTIVE: engine.max_active = '0'")]
    assert len(found) == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server\nport=1", "not TOML"),
        ("[server]\nport = 70000", "65535"),
        ("[server]\nport = 1.5", "server.port"),
        ("[server]\nport = true", "server.port"),
        ("[server]\nmax_body_bytes = nan", "finite"),
        ("[server]\nmax_body_bytes = -1", "server.max_body_bytes"),
        ('[log]\nlevel = "loud"', "log.level"),
        ("[server]\nallowed_hosts = [1]", "allowed_hosts"),
        ("[databases]\nmain = 1", "databases.main"),
        ("[modbus]\nline = 502", 'modbus.line = 502 is not a URL (write it as name = "tcp://10.0.0.7:502")'),
        ("[server.port]\nx = 1", "server.port"),
    ],
)
def test_bad_values(tmp_path: Path, text: str, message: str) -> None:
    (found,) = problems(tmp_path, text)
    assert message in found


def test_missing_and_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path / "none.toml", environ={})
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not TOML"):
        load(tmp_path / "bad.toml", environ={})


def test_lists_and_databases_come_from_the_environment(tmp_path: Path) -> None:
    environ = {"FLATWATER_SERVER_ALLOWED_HOSTS": "a.example, b.example", "FLATWATER_DATABASES_WMS": "sqlite:///wms.db"}
    environ["FLATWATER_MODBUS_LINE"] = "tcp://10.0.0.7"
    settings = load(write(tmp_path, ""), environ=environ).settings
    assert settings.server.allowed_hosts == ("a.example", "b.example")
    assert settings.databases == {"wms": "sqlite:///wms.db"}
    assert settings.modbus == {"line": "tcp://10.0.0.7"}


def test_secrets_never_show(tmp_path: Path) -> None:
    text = '[server]\ntoken = "hush-hush"\n[store]\nurl = "postgresql://u:hush-hush@h/d"\n[databases]\nw = "x://hush-hush"\n'
    path = write(tmp_path, text)
    shown = check(path, environ={})
    assert "hush-hush" not in shown
    assert f'token = "***"  # {path}:2' in shown
    assert "hush-hush" not in "".join(problems(tmp_path, "[server]\ntoken = ['hush-hush']\n"))


def test_check_prints_toml_that_loads_to_the_same(tmp_path: Path) -> None:
    original = load(write(tmp_path, '[server]\nport = 99\nallowed_hosts = ["a"]\n[demo]\nenabled = true\n'), environ={})
    printed = check(tmp_path / "flatwater.toml", environ={})
    again = tmp_path / "again.toml"
    again.write_text(printed, "utf-8")
    assert load(again, environ={}).settings == original.settings


def test_settings_of_parts_match_the_parts_own_options() -> None:
    from flatwater.engine.option import EngineOptions
    from flatwater.store.option import StoreOptions
    from flatwater.store.retention import Keep

    def defaults(kind: Any) -> dict[str, Any]:
        return {field.name: field.default for field in msgspec.structs.fields(kind)}

    options = EngineOptions()
    ours = defaults(EngineSettings)
    ours.pop("blocks")  # the user's modules, for the registry
    assert ours == {name: getattr(options, name) for name in EngineOptions.__slots__}
    ours = defaults(StoreSettings)
    assert ours.pop("url")
    assert ours == defaults(StoreOptions)
    kept = defaults(RetentionSettings)
    assert {name: kept.get(name) for name in Keep.__struct_fields__} == defaults(Keep)


def test_every_setting_has_a_description_and_the_reference_is_current() -> None:
    assert [leaf.key for leaf in leaves() if not leaf.description] == []
    assert (DOCS / "settings.md").read_text("utf-8") == reference()


def test_the_address_that_clients_are_told_is_no_setting() -> None:
    assert load(None, environ={"FLATWATER_URL": "http://flow.example"}).settings == load(None, environ={}).settings
