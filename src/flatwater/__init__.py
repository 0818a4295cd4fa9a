"""Flatwater: durable block flows in flat memory, and instruments that name what holds memory elsewhere.

Importing this package loads nothing heavy; import the layer you need, e.g. ``flatwater.engine``.
"""

__version__ = "0.1.0"
