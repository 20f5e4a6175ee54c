"""Threads of the server share their heaps: what one frees another can use."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, sys, threading
from visionkit.serving.server.memory import limit_arenas

if "limit" in sys.argv:
    assert limit_arenas()
together = threading.Barrier(8)

def allocate():
    kept = bytearray(10_000)
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


def heaps(*words):
    command = [sys.executable, "-c", SCRIPT, *words]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return run.stdout.count("<heap nr=")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps are glibc's")
def test_threads_share_two_heaps(monkeypatch):
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    assert heaps() > 2
    assert heaps("limit") <= 2


HOLES = """
from visionkit.serving.server.memory import give_back

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

blocks = [bytearray(100_000) for _ in range(2000)]
for block in blocks: block[::4096] = bytes(len(block[::4096]))
kept = blocks[::100]
del blocks, block
before = resident()
assert give_back()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps are glibc's")
def test_free_pages_between_others_are_given_back():
    """Of 200 MB 2 are kept, spread all over."""
    command = [sys.executable, "-c", HOLES]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(run.stdout) > 100
