"""Builds the parts of Flatwater that are written in C: memory instruments, and the guard's meter.

They are optional: without a compiler or the Python headers the installation goes on and says what will be missing, and
at run time ``flatwater.memory.heap`` says it again where it matters. The rest is in pyproject.toml.
"""

from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

MISSING = {
    "memory": """everything else works; memory instruments fall back to a census of what Python's collector lists.
flatwater: for graphs, paths, retained sizes and insertion lines install a C compiler and the Python headers""",
    "guard": """everything works; the guard measures tasks in Python, which takes a few times as long per task.
flatwater: for the faster one install a C compiler and the Python headers""",
}
MESSAGE = """
flatwater: a part written in C ({name}) was not built: {reason}
flatwater: {missing}
flatwater: (Debian: gcc python3-dev), then install flatwater again.
"""


class OptionalBuild(build_ext):
    """Turns a failed build into a message."""

    def build_extension(self, extension: Any) -> None:
        try:
            super().build_extension(extension)
        except Exception as error:  # whatever a compiler, or its absence, raises
            missing = MISSING[extension.name.split(".")[1]]
            self.warn(MESSAGE.format(name=extension.name, reason=error, missing=missing))


setup(
    ext_modules=[
        Extension(
            f"flatwater.{part}.{name}",
            [f"src/flatwater/{part}/{name}.c"],
            depends=[f"src/flatwater/{part}/sampler.c"] if name == "_heap" else [],
            extra_compile_args=["-O2", "-std=gnu11"],
            optional=True,
        )
        for part, name in (("memory", "_heap"), ("memory", "_watch"), ("memory", "_inject"), ("guard", "_meter"))
    ],
    cmdclass={"build_ext": OptionalBuild},
)
