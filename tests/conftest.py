"""What every test gets: the leak check, the watched loop, databases of its own, and the figures of the code base."""

pytest_plugins = ["tests.leak", "tests.loop", "tests.service", "tests.figure"]
