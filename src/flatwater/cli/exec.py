"""``flatwater exec``: run a program that can be examined."""

from __future__ import annotations

import os
from pathlib import Path

import click

from flatwater import __version__
from flatwater.cli import option


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--sample", type=option.BYTES, help="Also note one allocation each so many bytes (2MiB), always.")
@click.argument("words", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(sample: float | None, words: tuple[str, ...]) -> None:
    """Run COMMAND with an agent in every Python process of it, so that diagnose, top and record inject nothing.

    For example: flatwater exec -- python app.py. Its children have agents too. Python 3.11 or later; the program's
    environment need not contain Flatwater.
    """
    from flatwater.memory import build, sampler, startup

    folder = Path(startup.__file__).parent
    path = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder}{os.pathsep}{path}" if path else str(folder),
        "FLATWATER_AGENT": "1",
        "FLATWATER_AGENT_VERSION": __version__,
        "FLATWATER_AGENT_PARTS": str(build.cache()),
    }
    if sample is not None:
        environment[sampler.VARIABLE] = str(int(sample))
    try:
        os.execvpe(words[0], words, environment)  # noqa: S606 (running it is the purpose)
    except OSError as error:
        raise click.UsageError(f"{words[0]}: {error.strerror}") from error
