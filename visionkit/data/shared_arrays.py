"""What two processes say to each other: arrays in shared memory, lines in pipes."""

from __future__ import annotations

import json
import math
import mmap
import os
import select
import struct
import tempfile
import weakref

import numpy as np

ALIGNMENT = 64  # bytes; the first of them are the header
KEPT_BYTES = 16 << 20  # a larger memory is given back behind each sample


class Memory:
    """Arrays in memory that two processes share, each in its turn.

    The memory has no name, so that nothing is left behind however a process ends. It
    grows as needed; only the parent may `shrink` it, and a worker begins each turn with
    `refresh`.

    Args:
        fd: File descriptor that both processes hold.
    """

    def __init__(self, fd: int):
        self.fd = fd
        self._map = None

    @property
    def started(self) -> float:
        """When a worker took up the sample, by the monotonic clock; 0.0 if none did."""
        return struct.unpack_from("d", self._view(ALIGNMENT))[0]

    @started.setter
    def started(self, seconds: float):
        struct.pack_into("d", self._view(ALIGNMENT), 0, seconds)

    def write(self, arrays, behind=()) -> list:
        """Copies `arrays` in; returns their layout, ready for JSON.

        Args:
            arrays: Of any shape; not objects.
            behind: Layout of other arrays, which are to stay as they are.
        """
        layout, end = [], _end(behind)
        for array in arrays:
            layout.append([array.dtype.str, array.shape, end])
            end = _end(layout)
        view = self._view(end)
        for array, (dtype, shape, start) in zip(arrays, layout, strict=True):
            np.copyto(np.ndarray(shape, dtype, view, start), array)
        return layout

    def read(self, layout) -> list[np.ndarray]:
        """The arrays that `write` put there, without a copy."""
        view = self._view(_end(layout))
        return [np.ndarray(shape, dtype, view, start) for dtype, shape, start in layout]

    def refresh(self):
        """Forgets the memory as it was when the other process last had it."""
        if self._map is not None and len(self._map) != os.fstat(self.fd).st_size:
            self._map = None

    def shrink(self):
        """Gives the memory of an unusually large sample back."""
        if self._map is not None and len(self._map) > KEPT_BYTES:
            self._map = None
            os.ftruncate(self.fd, 0)

    def _view(self, end: int) -> mmap.mmap:
        # No call into the system where nothing has grown: each would be a chance for
        # the parent's many threads to wait for one another.
        if self._map is None or len(self._map) < end:
            size = os.fstat(self.fd).st_size
            if size < end:
                size = -(-end // mmap.PAGESIZE) * mmap.PAGESIZE
                os.ftruncate(self.fd, size)
            self._map = mmap.mmap(self.fd, size)
        return self._map


def _end(layout) -> int:
    """The first free byte behind the last array of a layout."""
    if not layout:
        return ALIGNMENT
    dtype, shape, start = layout[-1]
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return start + -(-size // ALIGNMENT) * ALIGNMENT


def anonymous_memory() -> Memory:
    """New memory without a name, given back with the object."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("visionkit")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    memory = Memory(fd)
    weakref.finalize(memory, os.close, fd)
    return memory


def send(fd: int, message: dict):
    """Writes a message to a pipe, as a line."""
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(fd, data) :]


def wait(fd: int, seconds: float) -> bool:
    """Whether there is something to read, or its end, within `seconds`."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def receive(fd: int) -> dict:
    """A line that `send` wrote; an EOFError if its process died."""
    data = os.read(fd, 65536)
    while not data.endswith(b"\n"):
        more = os.read(fd, 65536)
        if not more:
            raise EOFError
        data += more
    return json.loads(data)
