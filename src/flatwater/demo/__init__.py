"""The demo plant "Small Hall": a small warehouse that works in front of one's eyes, on the real engine and store.

`hall` is its layout, `world` what people and trucks do, `load` which runs are submitted, `plant` all of it together,
`invariant` what must be true of it at any time. The flows are ordinary definitions in ``definitions/``.
"""

from flatwater.demo.hall import fleet
from flatwater.demo.plant import Demo, DemoOptions, DemoStatistics, attach

__all__ = ["Demo", "DemoOptions", "DemoStatistics", "attach", "fleet"]
