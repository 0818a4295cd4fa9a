"""Memory of a C library that is never given back (native leak).

A binding allocates a buffer in C for each picture that it scales and forgets ``free`` when the picture is small.
Nothing of it is visible to Python. Repaired: freed in a ``finally``.
"""

import ctypes

from stage import Stage

libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
libc.free.argtypes, libc.free.restype = [ctypes.c_void_p], None
libc.memset.argtypes, libc.memset.restype = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], ctypes.c_void_p

PICTURE_BYTES = 8000


def scale(number: int) -> int:
    buffer = libc.malloc(PICTURE_BYTES)
    libc.memset(buffer, number % 256, PICTURE_BYTES)
    return number % 7


def scale_and_free(number: int) -> int:
    buffer = libc.malloc(PICTURE_BYTES)
    try:
        libc.memset(buffer, number % 256, PICTURE_BYTES)
        return number % 7
    finally:
        libc.free(buffer)


def main() -> None:
    stage = Stage(__doc__, rate=150)
    work = scale_and_free if stage.repaired else scale
    for number in stage.orders():
        work(number)


if __name__ == "__main__":
    main()
