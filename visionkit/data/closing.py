"""Data sets that are still read when Python ends."""

from __future__ import annotations

import atexit
import functools
import gc
import sys


@functools.cache
def end_iterators_at_exit() -> None:
    """Have what an error or an interrupt left of iterators go before Python does.

    A pipeline that calls Python (albumentations, reports of bad records) waits at its
    end for the calls under way. Once the interpreter shuts down they never return, and
    the process would hang with its error already printed.
    """
    atexit.register(_end_iterators)


def _end_iterators() -> None:
    # The frames of an uncaught error hold the iterator that it came through.
    for name in ("last_exc", "last_value", "last_traceback"):
        if hasattr(sys, name):
            setattr(sys, name, None)
    gc.collect()
