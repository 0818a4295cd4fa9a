"""``gateway.toml`` → :class:`flatwater.gateway.config.Config`; every mistake with its line and what to do."""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import re
import tomllib
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from flatwater.errors import Problem, SettingError
from flatwater.gateway.balance import BALANCES
from flatwater.gateway.config import Config, Endpoint, Listen, Overload, Service
from flatwater.gateway.pool import origin
from flatwater.listener.address import is_loopback
from flatwater.listener.certificate import Certificate, CertificateError
from flatwater.quantity import measure

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST = re.compile(r"(\*\.)?[a-z0-9._\[\]:-]+")
_MAY_BE_ZERO = {"limit_bytes", "max_retries", "max_pending", "min_per_s", "per_s"}
_MAY_BE_ZERO |= {"memo_entries", "budget_percent", "max_ejected_percent", "backoff_s", "linger_s", "port"}
_MAY_BE_ZERO |= {"heuristic_share", "max_heuristic_s", "default_fresh_s", "max_stale_disconnected_s", "half_close_s"}
_MAY_BE_ZERO |= {"failure_percent", "slow_factor", "slow_s"}


class ConfigError(SettingError, code="gateway_config"):
    """The gateway's configuration is wrong.

    ``problems`` lists all that is wrong, each with file and line and what to do.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("".join(f"\n  {problem}" for problem in self.problems), hint="see docs/reference/gateway.md")


def load(path: str | os.PathLike[str]) -> Config:
    """Read a file. Raises ConfigError with every problem found."""
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        told = getattr(error, "strerror", None) or str(error)
        raise ConfigError([Problem(str(path), f"the file cannot be read: {told}", "check the path")]) from None
    return parse(text, name=str(path))


def parse(text: str, *, name: str = "gateway.toml") -> Config:
    """As ``load``, of a text; ``name`` is told as the file. Relative paths in it start from the file's folder."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            [Problem(_place(name, text, error), f"this is not TOML: {error}", "see https://toml.io")]
        ) from None
    reader = Reader(name, dict(_lines(text)))
    config = reader.config(document)
    if reader.problems or config is None:
        raise ConfigError(reader.problems)
    return config


def _place(name: str, text: str, error: tomllib.TOMLDecodeError) -> str:
    found = re.search(r"line (\d+)", str(error))
    return f"{name}:{found[1] if found else max(1, len(text.splitlines()))}"


class Reader:
    """Walks the document beside the types; ``problems`` gathers what is wrong."""

    def __init__(self, name: str, lines: dict[str, int]) -> None:
        self._name = name
        self._lines = lines
        self._folder = Path(name).parent
        self.problems: list[Problem] = []

    def config(self, document: dict[str, Any]) -> Config | None:
        services = document.pop("services", None)
        if not isinstance(services, dict) or not services:
            self._wrong(
                "services", "there is no service", 'write [services.NAME] with endpoints = ["http://host:port"]'
            )
            services = {}
        found = {name: self._service(name, value) for name, value in services.items()}
        values = self._fields(Config, document, "")
        self._front(values)
        self._routes({name: service for name, service in found.items() if service is not None})
        if self.problems:
            return None
        return Config(services={name: service for name, service in found.items() if service is not None}, **values)

    def _service(self, name: str, value: Any) -> Service | None:
        key = f"services.{name}"
        if not _NAME.fullmatch(name):
            self._wrong(key, f"{name!r} cannot name a service", "use letters, digits, '.', '_' and '-'")
        if not isinstance(value, dict):
            self._wrong(key, "this is no table", f"write [{key}]")
            return None
        value = dict(value)
        endpoints = self._endpoints(f"{key}.endpoints", value.pop("endpoints", None), key)
        before = len(self.problems)
        values = self._fields(Service, value, key)
        if len(self.problems) > before:
            return None
        service = Service(endpoints=endpoints, **values)
        if not service.path and not service.hosts:
            service = msgspec.structs.replace(service, path=f"/{name}")
        self._check_service(key, service)
        return msgspec.structs.replace(service, tls=self._tls(key, service))

    def _endpoints(self, key: str, value: Any, parent: str) -> tuple[Endpoint, ...]:
        if not isinstance(value, list) or not value:
            self._wrong(
                key if key in self._lines else parent,
                "a service needs endpoints",
                'endpoints = ["http://127.0.0.1:9000"]',
            )
            return ()
        found: list[Endpoint] = []
        for item in value:
            try:
                endpoint = msgspec.convert({"url": item} if isinstance(item, str) else item, Endpoint)
                origin(endpoint.url)
                if endpoint.weight < 1:
                    raise SettingError("weight is below 1", hint="give a whole number from 1 on")
            except msgspec.ValidationError as error:
                self._wrong(
                    key, f"{item!r}: {error}", 'write "http://host:port" or { url = "http://host:port", weight = 2 }'
                )
                continue
            except SettingError as error:
                self._wrong(key, error.detail, error.hint)
                continue
            if any(other.url == endpoint.url for other in found):
                self._wrong(key, f"{endpoint.url} is there twice", "use weight to give it more")
            found.append(endpoint)
        return tuple(found)

    def _fields(self, kind: type[msgspec.Struct], table: dict[str, Any], key: str) -> dict[str, Any]:
        """The values of a struct that the table gives."""
        types = typing.get_type_hints(kind)
        values: dict[str, Any] = {}
        for name, value in table.items():
            place = f"{key}.{name}" if key else name
            if name not in types or name in ("services", "endpoints"):
                close = difflib.get_close_matches(name, list(types), n=1)
                self._wrong(place, f"`{place}` is not a setting", f"did you mean {close[0]}?" if close else "remove it")
                continue
            found = self._value(types[name], name, value, place)
            if found is not msgspec.UNSET:
                values[name] = found
        return values

    def _value(self, type_: Any, name: str, value: Any, place: str) -> Any:
        if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
            if not isinstance(value, dict):
                self._wrong(place, "this is no table", f"write [{place}]")
                return msgspec.UNSET
            return type_(**self._fields(type_, value, place))
        try:
            found = msgspec.convert(_measured(name, value), type_)
        except ValueError as error:
            self._wrong(place, f"{place} = {value!r}: {error}", _example(name, type_))
            return msgspec.UNSET
        if isinstance(found, (int, float)) and not isinstance(found, bool):
            low = 0 if name in _MAY_BE_ZERO else 1e-9
            if not low <= found < math.inf:
                self._wrong(place, f"{place} = {value!r} is out of range", "give a finite number above zero")
                return msgspec.UNSET
        return found

    def _check_service(self, key: str, service: Service) -> None:
        if service.path and (not service.path.startswith("/") or set(service.path) & set("?#% ")):
            self._wrong(f"{key}.path", f"{service.path!r} is no path prefix", "begin it with '/', without ?, # and %")
        for host in service.hosts:
            if not _HOST.fullmatch(host):
                self._wrong(
                    f"{key}.hosts", f"{host!r} is no host", 'write it in lower case, as "api.example" or "*.example"'
                )
        if service.balance not in BALANCES:
            self._wrong(
                f"{key}.balance", f"{service.balance!r} is no way to balance", f"choose {' or '.join(BALANCES)}"
            )
        if service.rate.by not in ("service", "client"):
            self._wrong(f"{key}.rate.by", f"{service.rate.by!r} is not known", "choose service or client")
        if service.rate.burst < 1 or service.retry.attempts < 1:
            self._wrong(f"{key}.rate", "burst and attempts count from 1", "give at least 1")
        if service.cache.set_cookie not in ("always", "explicit", "never"):
            self._wrong(
                f"{key}.cache.set_cookie", f"{service.cache.set_cookie!r} is not known", "always, explicit, never"
            )
        ejection = service.ejection
        if ejection.failure_percent > 100 or 0 < ejection.slow_factor < 1:
            self._wrong(
                f"{key}.ejection", "failure_percent is above 100, or slow_factor below 1", "give 0 for neither of them"
            )
        if service.check.path and not service.check.path.startswith("/"):
            self._wrong(f"{key}.check.path", f"{service.check.path!r} is no path", "begin it with '/'")
        if service.check.min_status > service.check.max_status:
            self._wrong(f"{key}.check", "min_status is above max_status", "exchange them")
        if not service.host_header or set(service.host_header) & set(" \t\r\n/"):
            self._wrong(f"{key}.host_header", f"{service.host_header!r} is no host", "keep, endpoint, or a host name")

    def _tls(self, key: str, service: Service) -> Any:
        """The section with its files made absolute, each of which must be there."""
        return self._files(f"{key}.tls", service.tls, ("ca_file", "certificate", "key"))

    def _files(self, key: str, section: Any, names: tuple[str, ...]) -> Any:
        for name in names:
            if given := getattr(section, name):
                path = self._folder / given
                if not path.is_file():
                    self._wrong(f"{key}.{name}", f"there is no file {path}", "check the path")
                section = msgspec.structs.replace(section, **{name: str(path)})
        if section.key and not section.certificate:
            self._wrong(f"{key}.key", "a key without a certificate", "give certificate too")
        return section

    def _listen(self, listen: Listen) -> Listen:
        """With a certificate that serves."""
        if not 0 <= listen.port <= 65535:
            self._wrong("listen.port", f"{listen.port} is no port", "give one of 0 to 65535")
        before = len(self.problems)
        tls = self._files("listen.tls", listen.tls, ("certificate", "key"))
        if tls.certificate and len(self.problems) == before:
            try:
                Certificate(tls.certificate, tls.key, min_version=tls.min_version)
            except CertificateError as error:
                self._wrong("listen.tls.certificate", f"{error.where}: {error.message}", error.hint)
        return msgspec.structs.replace(listen, tls=tls)

    def _front(self, values: dict[str, Any]) -> None:
        front = values.get("front")
        for network in front.trusted_proxies if front is not None else ():
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                self._wrong("front.trusted_proxies", str(error), 'write networks as "10.0.0.0/8" or addresses')
        overload = values.get("overload") or Overload()
        shares = (overload.shrink_percent, overload.drain_percent, overload.refuse_percent)
        if not 3 < shares[0] <= shares[1] <= shares[2] <= 100 or overload.drain_lag_s > overload.refuse_lag_s:
            self._wrong("overload", "the levels are not in order", "shrink ≤ drain ≤ refuse, percent up to 100")
        values["listen"] = listen = self._listen(values.get("listen") or Listen())
        admin = values.get("admin")
        if admin is not None and admin.port > 65535:
            self._wrong("admin.port", f"{admin.port} is no port", "give one of 0 (none) to 65535")
        if admin is not None and admin.tls and not listen.tls.certificate:
            self._wrong("admin.tls", "there is no certificate", "give listen.tls.certificate")
        if admin is not None and not admin.token and not is_loopback(admin.host):
            self._wrong("admin.host", f"{admin.host} can be reached by others", "set admin.token")

    def _routes(self, services: dict[str, Service]) -> None:
        taken: dict[tuple[str, str], str] = {}
        for name, service in services.items():
            for host in service.hosts or ("",):
                route = (host, service.path.rstrip("/"))
                if (other := taken.setdefault(route, name)) != name:
                    shown = f"{host}{service.path or '/'}"
                    self._wrong(f"services.{name}", f"{shown} is {other}'s already", "give another path or host")

    def _wrong(self, key: str, message: str, hint: str) -> None:
        place = key
        while place and place not in self._lines:
            place = place.rpartition(".")[0]
        self.problems.append(Problem(f"{self._name}:{self._lines.get(place, 1)}", message, hint))


def _measured(name: str, value: Any) -> Any:
    unit = _unit(name)
    if unit == "seconds" and type(value) is int:
        return float(value)
    return measure(value, unit)


def _unit(name: str) -> str:
    if name.endswith("_bytes"):
        return "bytes"
    return "seconds" if name.endswith("_s") and not name.endswith("per_s") else ""


def _example(name: str, type_: Any) -> str:
    unit = _unit(name)
    if unit == "bytes":
        return 'give a size ("64 KiB"); without a unit it is bytes'
    if unit == "seconds":
        return 'give a duration ("250ms", "30s"); without a unit it is seconds'
    if choices := typing.get_args(type_) if typing.get_origin(type_) is typing.Literal else ():
        return f"choose {' or '.join(map(repr, choices))}"
    return f"give {'a list of text' if 'tuple' in str(type_) else getattr(type_, '__name__', str(type_))}"


_TABLE = re.compile(r"^\s*\[\s*([^\[\]]+?)\s*\]")
_ASSIGNMENT = re.compile(r"^\s*([\w.\-\"]+)\s*=\s*(\{.*)?")
_INLINE = re.compile(r"([\w\-]+)\s*=")


def _lines(text: str) -> Iterator[tuple[str, int]]:
    """Which line each table and key begins on: tomllib does not say. Tables written inline count by their keys."""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE.match(line):
            table = header[1].replace('"', "").replace(" ", "")
            yield table, number
        elif assignment := _ASSIGNMENT.match(line):
            name = assignment[1].replace('"', "")
            key = f"{table}.{name}" if table else name
            yield key, number
            for inner in _INLINE.finditer(assignment[2] or ""):
                yield f"{key}.{inner[1]}", number
