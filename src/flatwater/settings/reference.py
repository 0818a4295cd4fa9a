"""The page ``docs/reference/settings.md``, written from the structs: ``python -m flatwater.settings.reference``."""

from __future__ import annotations

import msgspec

from flatwater.settings.model import Settings, leaves
from flatwater.settings.source import default_text

_REFERENCE_HEAD = """# Settings

Written from `src/flatwater/settings/model.py` (`python -m flatwater.settings.reference` prints it; a test compares).

A TOML file (`--config FILE`, else `FLATWATER_CONFIG`, else `flatwater.toml` in the working directory) is overridden by
environment variables, and those by flags. The variable of `port` in `[server]` is `FLATWATER_SERVER_PORT`; lists are
separated by commas there. Sizes are bytes or texts with a unit (`"512 KiB"`, `"2 MiB"`, `"2 MB"`); durations are
seconds or texts with a unit (`"250ms"`, `"30s"`, `"10m"`, `"2h"`, `"7d"`). Unknown keys and variables are errors.
`flatwater config check` prints what is in force and where each value came from."""

_REFERENCE_TAIL = """
## [databases]

Databases that JDBC blocks may use: `name = "SQLAlchemy URL"`. A block can name no other.

## [modbus]

Devices that Modbus blocks may use: `name = "tcp://host:502"`, or `rtu+tcp://host:port` for a serial line behind a
converter that passes bytes through. A block can name no other. See [modbus.md](../howto/modbus.md).
"""


def reference() -> str:
    """The text of ``docs/reference/settings.md``."""
    lines = [_REFERENCE_HEAD]
    section = ""
    for leaf in leaves():
        group, _, name = leaf.key.partition(".")
        if group != section:
            doc = str(msgspec.structs.asdict(Settings())[group].__doc__)
            lines += ["", f"## [{group}]", "", doc, "", "| key | default | meaning |", "|---|---|---|"]
            section = group
        lines.append(f"| `{name}` | `{default_text(leaf)}` | {leaf.description} |")
    return "\n".join([*lines, _REFERENCE_TAIL])


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201
