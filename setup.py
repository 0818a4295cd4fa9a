"""Builds the heap walker and the watch, the parts of Flatwater written in C; the rest is in pyproject.toml.

They are optional: without a compiler or the Python headers the installation goes on and says what will be missing, and
at run time ``flatwater.memory.heap`` says it again where it matters.
"""

from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

MESSAGE = """
flatwater: a memory instrument written in C ({name}) was not built: {reason}
flatwater: everything else works; memory instruments fall back to a census of what Python's collector lists.
flatwater: for graphs, paths, retained sizes and insertion lines install a C compiler and the Python headers
flatwater: (Debian: gcc python3-dev), then install flatwater again.
"""


class OptionalBuild(build_ext):
    """Turns a failed build into a message."""

    def build_extension(self, extension: Any) -> None:
        try:
            super().build_extension(extension)
        except Exception as error:  # whatever a compiler, or its absence, raises
            self.warn(MESSAGE.format(name=extension.name, reason=error))


setup(
    ext_modules=[
        Extension(
            f"flatwater.memory.{name}",
            [f"src/flatwater/memory/{name}.c"],
            extra_compile_args=["-O2", "-std=gnu11"],
            optional=True,
        )
        for name in ("_heap", "_watch", "_inject")
    ],
    cmdclass={"build_ext": OptionalBuild},
)
