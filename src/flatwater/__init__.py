"""Flatwater: durable block flows in flat memory, and instruments that name what holds memory elsewhere.

Importing this package loads nothing heavy; import the layer you need, e.g. ``flatwater.engine``. With
``FLATWATER_AGENT=1`` in the environment it starts the agent (:mod:`flatwater.agent`).
"""

import os as _os

__version__ = "0.1.0"

if _os.environ.get("FLATWATER_AGENT") == "1":
    import importlib as _importlib
    import warnings as _warnings

    try:
        _importlib.import_module("flatwater.agent")
    except Exception as _error:
        _warnings.warn(f"FLATWATER_AGENT=1, but the agent cannot start: {_error}", RuntimeWarning, stacklevel=2)
