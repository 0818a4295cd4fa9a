"""gateway.toml: the example is right, and every mistake is told with its line and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from flatwater.cli import flatwater
from flatwater.gateway import ConfigError, load, parse

EXAMPLE = Path(__file__).parents[2] / "examples" / "gateway.toml"
SERVICE = '[services.a]\nendpoints = ["http://h:1"]\n'


def test_example_says_what_it_says() -> None:
    config = load(EXAMPLE)
    shop = config.services["shop"]
    assert [(endpoint.url, endpoint.weight) for endpoint in shop.endpoints] == [
        ("http://127.0.0.1:9001", 1),
        ("http://127.0.0.1:9002", 2),
    ]
    assert (shop.timeout.total_s, shop.max_body_bytes, shop.cache.enabled) == (3600.0, 16 * 2**20, True)
    assert config.services["intern"].tls.server_name == "intern.example"


@pytest.mark.parametrize("arguments", [["gateway", "-c"], ["config", "check", "--gateway"]])
def test_check_on_the_command_line(arguments: list[str]) -> None:
    only = ["--check"] if arguments[0] == "gateway" else []
    done = CliRunner().invoke(flatwater, [*arguments, str(EXAMPLE), *only])
    assert done.exit_code == 0, done.output
    assert "is right" in done.output
    assert "shop: any host/shop" in done.output


def test_defaults_of_the_example_are_the_defaults() -> None:
    """What the comments call defaults."""
    config = load(EXAMPLE)
    plain = parse(SERVICE)
    for name in ("listen", "front", "cache", "overload", "log", "alert"):
        assert getattr(config, name) == getattr(plain, name)
    shop, other = config.services["shop"], plain.services["a"]
    for section in ("timeout", "connections", "ejection", "breaker", "retry"):
        assert getattr(shop, section) == getattr(other, section)


@pytest.mark.parametrize(
    ("text", "line", "told", "hint"),
    [
        ("", 1, "there is no service", "[services.NAME]"),
        ("[services]\n", 1, "there is no service", "[services.NAME]"),
        (SERVICE + "balence = 'x'", 3, "`services.a.balence` is not a setting", "did you mean balance?"),
        (SERVICE + "balance = 'x'", 3, "'x' is no way to balance", "round_robin or least_requests"),
        (SERVICE + "\n[services.a.timeout]\nconnect_s = 'soon'", 5, "no number of seconds", "250ms"),
        (SERVICE + "timeout = { idle_s = -1 }", 3, "out of range", "above zero"),
        (SERVICE + "ejection = { failure_percent = 101 }", 3, "above 100", "give 0"),
        (SERVICE + "[services.a.ejection]\nslow_factor = 0.5", 3, "slow_factor below 1", "give 0"),
        ("[log]\nformat = 'xml'\n" + SERVICE, 2, "Invalid enum value", "choose 'json' or 'text'"),
        (SERVICE + "max_body_bytes = '3 apples'", 3, "no number of bytes", "64 KiB"),
        (SERVICE + "strip_prefix = 1", 3, "Expected `bool`", "give bool"),
        (SERVICE + "path = 'a'", 3, "is no path prefix", "begin it with '/'"),
        (SERVICE + "hosts = ['A B']", 3, "is no host", "lower case"),
        (SERVICE + "tls = { ca_file = 'none.pem' }", 3, "there is no file", "check the path"),
        (SERVICE + "tls = 3", 3, "this is no table", "[services.a.tls]"),
        (SERVICE + "[services.b]\npath='/a'\nendpoints = ['http://h:2']", 3, "/a is a's already", "another path"),
        ('[services.a]\nendpoints = ["ftp://h"]', 2, "is not an http or https URL", "http://host:port"),
        ('[services.a]\nendpoints = ["http://h:1/x"]', 2, "more than scheme, host and port", "http://host:port"),
        ('[services.a]\nendpoints = ["http://h:99999"]', 2, "Port out of range", "http://host:port"),
        ('[services.a]\nendpoints = ["http://h", "http://h"]', 2, "is there twice", "weight"),
        ('[services.a]\nendpoints = [{ url = "http://h", weight = 0 }]', 2, "weight is below 1", "from 1 on"),
        ('[services."a b"]\nendpoints = ["http://h"]', 1, "cannot name a service", "letters"),
        ("[front]\ntrusted_proxies = ['x']\n" + SERVICE, 2, "'x' does not appear to be", "10.0.0.0/8"),
        ("[overload]\ndrain_percent = 99\n" + SERVICE, 1, "not in order", "shrink"),
        ("[listen]\nport = 70000\n" + SERVICE, 2, "is no port", "65535"),
        ("[lissen]\nport = 1\n" + SERVICE, 1, "`lissen` is not a setting", "did you mean listen?"),
        ("a = ", 1, "this is not TOML", "toml.io"),
    ],
)
def test_mistakes_have_their_line(text: str, line: int, told: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    problems = caught.value.problems
    assert any(
        problem.path == f"gateway.toml:{line}" and told in problem.message and hint in problem.hint
        for problem in problems
    ), problems


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("[listen]\nport = 'x'\n[services.a]\nendpoints = []\nfoo = 1\n[services.b]\nendpoints = [3]\n")
    assert [problem.path for problem in caught.value.problems] == [
        "gateway.toml:4",
        "gateway.toml:5",
        "gateway.toml:7",
        "gateway.toml:2",
    ]


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.toml")
