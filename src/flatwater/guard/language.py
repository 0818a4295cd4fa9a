"""How a worker is asked for its warm stop, told from its command line. Decisions only."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import PurePath

# A program's name and the signal after which it takes no more work, ends what it has, and exits.
WARM = {
    "celery": signal.SIGTERM,
    "huey": signal.SIGINT,
    "run_huey": signal.SIGINT,
    "gunicorn": signal.SIGTERM,
    "uvicorn": signal.SIGTERM,
    "hypercorn": signal.SIGTERM,
    "dramatiq": signal.SIGTERM,
    "rq": signal.SIGTERM,
    "flatwater": signal.SIGTERM,
}


def warm_signal(command: Sequence[str]) -> signal.Signals:
    """The signal for a command line; SIGTERM, which most programs heed, for one that is not known."""
    words = [PurePath(word).name.removesuffix(".py").partition(".")[0].removesuffix("_consumer") for word in command]
    return next((WARM[word] for word in words[:8] if word in WARM), signal.SIGTERM)
