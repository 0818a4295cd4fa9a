"""Python imports this at its start when ``flatwater exec`` has put its folder in front of PYTHONPATH.

It takes the folder off ``sys.path`` again, imports the ``sitecustomize`` that would have been imported without it, and
starts the agent from its own sources, so the program's environment need not contain Flatwater. A Python that is too
old, or anything else that goes wrong with the agent, leaves the program as it would be.
"""

import contextlib
import importlib
import os
import sys


def _chain(here: str) -> None:
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]  # noqa: PTH100
    del sys.modules["sitecustomize"]
    importlib.import_module("sitecustomize")  # the ImportError, where there is none, is what site expects


def _agent(here: str) -> None:
    import importlib.util

    memory = os.path.dirname(here)  # noqa: PTH120
    spec = importlib.util.spec_from_file_location("_flatwater_guest", f"{memory}/guest.py")
    assert spec is not None
    assert spec.loader is not None
    guest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(guest)
    parts = f"{os.environ.get('FLATWATER_AGENT_PARTS', '')}/{'.'.join(map(str, sys.version_info[:3]))}"
    guest.begin(memory, os.environ.get("FLATWATER_AGENT_VERSION", ""), parts)


_here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
if os.environ.get("FLATWATER_AGENT") == "1" and sys.version_info >= (3, 11):
    with contextlib.suppress(Exception):
        _agent(_here)
_chain(_here)
