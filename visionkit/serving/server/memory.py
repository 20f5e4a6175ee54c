"""The heaps of the server's process."""

from __future__ import annotations

import ctypes
import os

_M_ARENA_MAX = -8  # glibc, malloc.h


def limit_arenas(count: int = 2) -> bool:
    """Let all threads of this process share `count` heaps of the C library.

    glibc gives threads heaps of their own, up to eight for each core, and what one
    frees another does not use: the process of a server with many threads grows for
    hours although nothing is lost. For heaps not made yet, so to be called early;
    `MALLOC_ARENA_MAX` in the environment comes first.

    Args:
        count: Of heaps.

    Returns:
        Whether it was set: other C libraries have no such setting.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return False
    return _call("mallopt", _M_ARENA_MAX, count)


def give_back() -> bool:
    """Return the free pages of all heaps to the system, which glibc keeps otherwise.

    What is free lies between what is not, so that heaps of many threads only grow.
    Takes some milliseconds.

    Returns:
        Whether any was returned: other C libraries have no such call.
    """
    return _call("malloc_trim", 0)


def _call(function: str, *arguments: int) -> bool:
    """What a function of the C library says; False where there is none."""
    try:
        return bool(getattr(ctypes.CDLL(None), function)(*arguments))
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no None
        return False
