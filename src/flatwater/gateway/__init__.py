"""The gateway: an HTTP/1.1 reverse proxy as an ASGI app, fast, strict and in flat memory.

``async with Gateway(load("gateway.toml"), ledger=Ledger()) as gateway`` makes ``gateway.app``, which any ASGI server
serves; :mod:`flatwater.gateway.serve` is ``flatwater gateway``, with the gateway's own front.
"""

from flatwater.gateway.config import Config, Endpoint, Service
from flatwater.gateway.document import ConfigError, load, parse
from flatwater.gateway.gateway import Gateway, GatewayStatistics
from flatwater.gateway.proxy import Hook
from flatwater.gateway.request import Request
from flatwater.gateway.transit import Record

__all__ = [
    "Config",
    "ConfigError",
    "Endpoint",
    "Gateway",
    "GatewayStatistics",
    "Hook",
    "Record",
    "Request",
    "Service",
    "load",
    "parse",
]
