"""``import flatwater.agent`` lets this process be examined: ``flatwater diagnose PID`` finds it and injects nothing.

The agent lasts as long as the process; :func:`stop` ends it earlier and :func:`start` begins again. An agent that is
there already (``flatwater exec``) stays.
"""

import contextlib

from flatwater.memory.agent import Agent, start, stop

__all__ = ["Agent", "start", "stop"]

with contextlib.suppress(FileExistsError):
    start()
