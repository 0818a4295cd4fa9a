"""What the guard does around every task: in C where a compiler was there at the installation, else in Python."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from flatwater.guard import meter_fallback

if TYPE_CHECKING:
    from flatwater.guard.meter_fallback import Call, Meter, Slots, Sums
else:
    try:
        _built = importlib.import_module("flatwater.guard._meter")
    except ImportError:
        _built = meter_fallback
    Call, Meter, Slots, Sums = _built.Call, _built.Meter, _built.Slots, _built.Sums

__all__ = ["Call", "Meter", "Slots", "Sums"]
