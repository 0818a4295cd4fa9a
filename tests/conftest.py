"""What every test gets: the leak check, the watched loop, databases of its own, and the figures of the code base."""

import os

from hypothesis import settings

pytest_plugins = [
    "tests.leak",
    "tests.long",
    "tests.loop",
    "tests.order",
    "tests.priority",
    "tests.service",
    "tests.figure",
]

# No deadline: the machines are shared and noisy. In CI the same examples each time: a change is judged, not its luck.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", parent=settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
