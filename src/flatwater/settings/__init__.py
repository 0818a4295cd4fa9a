"""Settings, read by ``cli`` and ``server`` only; constructors elsewhere take plain values.

Sizes are bytes or texts such as ``"2 MiB"``; durations are seconds or texts such as ``"10m"``. Every problem is
reported, each with its place (file and line, variable or flag), the value and what to do.
"""

from flatwater.settings.model import Settings
from flatwater.settings.source import Flag, Loaded, SettingsError, check, load

__all__ = ["Flag", "Loaded", "Settings", "SettingsError", "check", "load"]
