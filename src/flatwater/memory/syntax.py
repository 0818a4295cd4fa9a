"""Source text as a syntax tree."""

from __future__ import annotations

import ast

_TRIES = 5


def parse(source: str | bytes) -> ast.Module:
    """As ``ast.parse``, also while another thread does the same. Raises what that raises.

    CPython (3.11.7 and 3.12.1, for two) has one depth counter for all threads: where a finalizer or a callback of the
    garbage collector lets another thread parse meanwhile, both may fail with a SystemError that says nothing of the
    source (cf. https://github.com/python/cpython/issues/106905).
    """
    for _ in range(_TRIES - 1):
        try:
            return ast.parse(source)
        except SystemError:
            continue
    return ast.parse(source)
