"""``python -m flatwater.cli`` is the ``flatwater`` command."""

from flatwater.cli import main

main()
