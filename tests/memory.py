"""What the tests' own process takes from the system, as Linux tells it."""

import contextlib
from pathlib import Path

STATUS, PEAKS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@contextlib.contextmanager
def bounded_memory(limit: int):
    """The peak of memory within the block is less than `limit` bytes above its start.

    Elsewhere than on Linux nothing is checked.
    """
    if not PEAKS.exists():
        yield
        return
    PEAKS.write_text("5")  # the peak begins anew
    before = read_status("VmRSS")
    yield
    grown = 1024 * (read_status("VmHWM") - before)
    assert grown < limit, f"{grown:,} bytes were taken, at most {limit:,} are allowed"


def read_status(key: str) -> int:
    """A number of `/proc/self/status`: `VmRSS` and `VmHWM` in KiB, `Threads`."""
    lines = STATUS.read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])
